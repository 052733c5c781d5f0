"""How a federation grows: 10, 100 and 1,000 sites, each size in a fresh process.

Printed for each number of sites: the server process's peak memory, in all and how far rounds raise it above what it
was when the roll call was over; seconds a round and a participant; both as ratios to the smallest size; and the server
process's own CPU time a participant. The goals are memory within 10% and the same seconds a participant. A small model
(EfficientNet-B0 at a tenth of its width and depth) keeps the training short; every site takes one step. The same for B0
itself, 4 million parameters, at `--large` sites. `--fold` shows what the server holds while so many of B0's replies
become one model, beside Flower's own FedAvg on the same replies, which holds them all.

    python benchmarks/bench_scale.py [--sites 10 100 1000] [--workers 0 2] [--rounds 3] [--large 5 20] [--fold 5 20 80]
"""

import argparse
import functools
import gc
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bench_cohort import (
    COHORT,
    bench_config,
    count_floats,
    figures_of,
    make_cohort,
    scaled_app,
    use_scaled,
)
from bench_engines import events_of, round_seconds, run_engine, time_of
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from rich.console import Console
from rich.table import Table

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.federation.engines.local import identify
from fl_rsna.federation.protocol.messages import ARRAYS, METRICS, to_arrays
from fl_rsna.federation.server.aggregation import Asked, aggregate_replies
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.flat import FlatModel, flatten
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.fedavg import FEDAVG
from fl_rsna.task import ICH

SMALL, LARGE = 0.1, 1.0  # times the width and depth of EfficientNet-B0
SIZE, SLICES, TEST = 32, 4, 8  # pixels a side, training slices a site, test patients whatever the number of sites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, nargs="*", default=[5, 20], help="sites of a run with 4M parameters")
    parser.add_argument("--fold", type=int, nargs="*", default=[5, 20, 80], help="replies of a 4M-parameter model")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_of(*arguments.one, rounds_=arguments.rounds)))
        return
    runs, script = [], Path(__file__)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        asked = [(SMALL, sites, workers) for sites in arguments.sites for workers in arguments.workers]
        asked += [(LARGE, sites, arguments.workers[-1]) for sites in arguments.large]
        for scale, sites, workers in asked:
            folder = Path(name) / str(sites)
            if not folder.exists():
                make_cohort(folder, sites, SLICES, SIZE, test_patients=TEST)
            one = ["run", str(folder), str(workers), str(scale)]
            figures = figures_of(script, "--rounds", str(arguments.rounds), "--one", *one)
            runs.append({"scale": scale, "sites": sites, "workers": workers, **figures})
    folds = [
        {"rule": rule, "replies": replies, **figures_of(script, "--one", "fold", rule, str(replies))}
        for replies in arguments.fold
        for rule in ("ours", "flower")
    ]
    report(arguments.rounds, runs, folds)


def one_of(what: str, *arguments: str, rounds_: int) -> dict[str, float]:
    """What a fresh process measures."""
    if what == "run":
        return scale_run(Path(arguments[0]), int(arguments[1]), float(arguments[2]), rounds_)
    return fold_replies(arguments[0], int(arguments[1]))


def scale_run(folder: Path, workers: int, scale: float, rounds_: int) -> dict[str, float]:
    """Rounds of one number of sites; memory in MB, of this process: the server, and with no workers the sites, too."""
    use_scaled(scale, scale)
    config = bench_config(rounds_, ModelName.efficientnet_b0, SIZE)
    config.train.batch_size = 8
    called: dict[str, float] = {"start_mb": memory_mb()}
    cpu: list[float] = []

    def watch(event: str, fields: Mapping[str, Any]) -> None:
        if event == "roll_call":
            called["called_mb"] = memory_mb()
            reset_peak()
        if event == "round_end":
            cpu.append(time.process_time())

    run = folder / f"run-{workers}-{scale}"
    cohort = read_cohort(folder / COHORT)
    run_engine(f"local, workers={workers}", config, cohort, run, functools.partial(scaled_app, scale, scale), (watch,))
    seconds, events = round_seconds(run), events_of(run)
    spent = [after - before for before, after in itertools.pairwise(cpu)]
    roll = next(event for event in events if event["event"] == "roll_call")
    made = (run / "manifest.json").stat().st_mtime
    return {
        **called,
        "values": count_floats(config),
        "peak_mb": peak_mb(),
        "round_s": float(np.median(seconds[1:] or seconds)),
        "first_round_s": seconds[0],
        "cpu_s": float(np.median(spent[1:] or spent)),
        "roll_call_s": time_of(roll) - made,
    }


def fold_replies(rule: str, replies: int) -> dict[str, float]:
    """Peak memory above the model's own while so many replies of a 4M-parameter model become one."""
    config = bench_config(1, ModelName.efficientnet_b0, SIZE)
    flat = flatten(build_model(config.model, ICH, ImageKind.hu, seed=0))
    identify()

    def reply(number: int) -> Message:
        asked = Message(RecordDict(), number + 1, MessageType.TRAIN)
        sent = FlatModel(flat.floats + np.float32(number / replies), flat.integers)
        content = RecordDict({ARRAYS: to_arrays(sent), METRICS: MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=asked)

    expected = flat.floats.astype(np.float64) + (replies - 1) / 2 / replies
    folded = fold_ours if rule == "ours" else fold_flower
    gc.collect()
    start = memory_mb()
    reset_peak()
    mean = folded(flat, replies, (reply(number) for number in range(replies)))
    found = {"above_mb": peak_mb() - start, "model_mb": flat.floats.nbytes / 1e6}
    assert np.allclose(mean, expected, atol=1e-3), "the mean is wrong"
    return found


def fold_ours(flat: FlatModel, count: int, replies: Iterator[Message]) -> np.ndarray:
    of = {"version": "", "cohort_sha256": "", "task": "", "counts": {}, "controls": {}, "patients": frozenset()}
    sites = [Site(name=f"site-{number}", node_id=number, **of) for number in range(1, count + 1)]
    asked = Asked(
        sites=sites, model=flat, strategy=FEDAVG, settings=StrategyConfig(), train=TrainConfig(), round=1, bytes_down=0
    )
    folded, _, _ = aggregate_replies(asked, replies, lambda reply: None)
    return folded.mean


def fold_flower(flat: FlatModel, count: int, replies: Iterator[Message]) -> np.ndarray:
    """As FedAvg gets them from Grid.send_and_receive: a list."""
    arrays, _ = FedAvg(weighted_by_key="num-examples").aggregate_train(1, list(replies))
    assert isinstance(arrays, ArrayRecord)
    return arrays["floats"].numpy()


def memory_mb() -> float:
    return _status("VmRSS")


def peak_mb() -> float:
    return _status("VmHWM")


def reset_peak() -> None:
    """Measure the peak again, from what is held now (Linux, proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def report(rounds_: int, runs: list[dict[str, float]], folds: list[dict[str, float]]) -> None:
    table = Table(title=f"{SIZE} px, one step a site, {rounds_} rounds, median without the first")
    names = (
        "values",
        "workers",
        "sites",
        "peak, MB",
        "ratio",
        "rise in rounds, MB",
        "roll call, s",
        "round, s",
        "ms a site",
        "ratio",
        "CPU ms a site",
    )
    for name in names:
        table.add_column(name, justify="right")
    for row in runs:
        alike = [other for other in runs if all(other[key] == row[key] for key in ("scale", "workers"))]
        base = min(alike, key=lambda other: other["sites"])
        row["memory_ratio"] = row["peak_mb"] / base["peak_mb"]
        row["site_s"] = row["round_s"] / row["sites"]
        row["site_ratio"] = row["site_s"] / (base["round_s"] / base["sites"])
        table.add_row(
            f"{row['values']:,}", f"{row['workers']}", f"{row['sites']}", f"{row['peak_mb']:.0f}", f"{row['memory_ratio']:.2f}",
            f"{row['peak_mb'] - row['called_mb']:.0f}", f"{row['roll_call_s']:.1f}", f"{row['round_s']:.2f}",
            f"{1000 * row['site_s']:.1f}", f"{row['site_ratio']:.2f}", f"{1000 * row['cpu_s'] / row['sites']:.1f}",
        )  # fmt: skip
    Console(width=130).print(table)
    memory = Table(title="peak memory above the model while replies of a 4M-parameter model become one, MB")
    for name in ("replies", "running mean", "Flower's FedAvg"):
        memory.add_column(name, justify="right")
    for replies in dict.fromkeys(row["replies"] for row in folds):
        held = {row["rule"]: row["above_mb"] for row in folds if row["replies"] == replies}
        memory.add_row(f"{replies}", f"{held['ours']:.0f}", f"{held['flower']:.0f}")
    if folds:
        Console(width=130).print(memory)
    print(json.dumps({"size": SIZE, "rounds": rounds_, "runs": runs, "folds": folds}))


if __name__ == "__main__":
    sys.exit(main())
