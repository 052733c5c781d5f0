"""What federation costs over the training itself, in one run with repeats.

The reference is a bare PyTorch loop: the same local steps, the same evaluations, numpy for the weighted mean, one
process, one thread, no Flower. Each engine does the same rounds on the same cohort. Printed: median seconds of a steady
round (the first is left out), its ratio to the reference, and seconds from process start to the first training step.

    python scripts/bench_federation.py [--sites 5] [--slices 48] [--rounds 4] [--repeats 3] [--model efficientnet_b0]
"""

import argparse
import csv
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from fl_rsna.choices import ModelName
from fl_rsna.cohort.index import Prepared, table_sha256
from fl_rsna.cohort.partitioners import PartitionKind
from fl_rsna.cohort.sites import Cohort, write_cohort
from fl_rsna.cohort.split import TEST_SITE, split_patients
from fl_rsna.config import Config
from fl_rsna.imaging.store import ImageKind, write_png
from fl_rsna.learning.dataset import open_site
from fl_rsna.learning.metrics import auroc, log_loss
from fl_rsna.learning.model import build_model
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import predict, train_locally
from fl_rsna.runs import start_run
from fl_rsna.task import ICH

CPU = torch.device("cpu")
ENGINES = ("local, workers=0", "local, workers=2", "ray, workers=2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--slices", type=int, default=48, help="training slices a site")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--first-step", choices=["bare", "local", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    config = Config(rounds=words.rounds)
    config.model.name, config.model.pretrained, config.model.image_size = words.model, False, words.size
    if words.first_step:
        first_step(words.first_step, config, words.folder)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cohort = make_cohort(folder, words.sites, words.slices, words.size)
        rounds: dict[str, list[float]] = {"bare loop": [], **{engine: [] for engine in words.engines}}
        kinds = dict.fromkeys(["bare", *(engine.partition(",")[0] for engine in words.engines)])
        starts: dict[str, list[float]] = {kind: [] for kind in kinds}
        for repeat in range(words.repeats):  # interleaved, so a noisy minute hits all alike
            rounds["bare loop"] += bare_rounds(config, cohort)[1:]
            for engine in words.engines:
                rounds[engine] += engine_rounds(engine, config, cohort, folder / f"{engine}-{repeat}")[1:]
            for kind in starts:
                starts[kind].append(time_to_first_step(kind, words, folder))
    report(words, rounds, starts)


def make_cohort(folder: Path, sites: int, slices: int, size: int) -> Cohort:
    """Sites of equal size with random pictures: what they show does not change what they cost."""
    rows = [
        {
            "image_id": f"i{patient:04d}-{rank}", "patient_id": f"p{patient:04d}", "study_id": f"t{patient:04d}", "series_id": f"s{patient:04d}",
            "rank": rank, "relative_position": rank / 3, "brain_hu_mean": 30.0, **dict.fromkeys(ICH.labels, int(patient % 2)),
        }
        for patient in range(int(sites * slices / 4 / 0.8 / 0.9) + sites)
        for rank in range(4)
    ]  # fmt: skip
    index = pd.DataFrame(rows)
    (folder / "prepared" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id in index["image_id"]:
        write_png(
            folder / "prepared" / "images" / f"{image_id}.png", rng.integers(900, 1200, (size, size)).astype(np.uint16)
        )
    prepared = Prepared(
        folder=folder / "prepared",
        task=ICH.name,
        labels=ICH.labels,
        image=ImageKind.hu,
        size=size,
        index_sha256=table_sha256(index),
        index=index,
    )
    dealt = split_patients(
        index, ICH, kind=PartitionKind.iid, num_sites=sites, alpha=1, test=0.1, validation=0.2, seed=0
    )
    return write_cohort(folder / "cohort", prepared, dealt, ICH, {})


def bare_rounds(config: Config, cohort: Cohort) -> list[float]:
    """Seconds of each round of the reference."""
    settle_process()
    size = config.model.image_size
    sites = [open_site(cohort.site_folder(name), image_size=size) for name in cohort.sites]
    test = open_site(cohort.site_folder(TEST_SITE), image_size=size)
    model = build_model(config.model, ICH, ImageKind.hu, seed=0)
    state, seconds = {name: value.clone() for name, value in model.state_dict().items()}, []
    for round_ in range(1, config.rounds + 1):
        start = time.perf_counter()
        updates, weights = [], []
        for data in sites:
            model.load_state_dict(state)
            result = train_locally(
                model, data, task=ICH, norm=config.model.norm, config=config.train, learning_rate=config.train.learning_rate,
                seed=derive_seed(0, "train", data.name, round_), device=CPU,
            )  # fmt: skip
            updates.append({name: value.numpy().copy() for name, value in model.state_dict().items()})
            weights.append(result.examples)
        state = {name: torch.from_numpy(average([update[name] for update in updates], weights)) for name in state}
        model.load_state_dict(state)
        for data, part in [*((data, "validation") for data in sites), (test, "test")]:
            rows = data.rows(part)
            found = predict(model, data, rows, task=ICH, batch_size=64, device=CPU)
            log_loss(data.labels[rows], found, ICH)
            [auroc(data.labels[rows, i], found[:, i]) for i in range(len(ICH.labels))]
        seconds.append(time.perf_counter() - start)
    return seconds


def average(arrays: list[np.ndarray], weights: list[int]) -> np.ndarray:
    if arrays[0].dtype.kind != "f":
        return arrays[0]
    return sum(array * np.float32(weight / sum(weights)) for array, weight in zip(arrays, weights, strict=True))


def engine_rounds(engine: str, config: Config, cohort: Cohort, folder: Path) -> list[float]:
    """Seconds of each round of one engine, from its own rounds.csv."""
    run_engine(engine, config, cohort, folder)
    with (folder / "rounds.csv").open() as file:
        return [float(row["seconds"]) for row in csv.DictReader(file) if row["round"] != "0"]


def run_engine(engine: str, config: Config, cohort: Cohort, folder: Path) -> None:
    from fl_rsna.federation.client_app import app_for_cohort
    from fl_rsna.federation.engines.local import run_local
    from fl_rsna.federation.engines.ray import run_ray
    from fl_rsna.federation.server_app import make_server_app

    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client, workers = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory"), int(engine[-1])
    if engine.startswith("ray"):
        run_ray(server, client, num_sites=len(cohort.sites), workers=workers, gpus_per_worker=0)
    else:
        run_local(server, client, num_sites=len(cohort.sites), workers=workers)


def time_to_first_step(kind: str, words: argparse.Namespace, folder: Path) -> float:
    """Seconds from starting a fresh process to the start of its first training step at a site."""
    command = [
        sys.executable,
        __file__,
        "--first-step",
        kind,
        "--folder",
        str(folder),
        "--sites",
        str(words.sites),
        "--rounds",
        "1",
    ]
    start = time.time()
    out = subprocess.run(
        [*command, "--size", str(words.size), "--model", words.model], capture_output=True, text=True, check=True
    ).stdout
    return float(out.split()[-1]) - start


def first_step(kind: str, config: Config, folder: Path) -> None:
    """Print the time of day at which the first site began to train."""
    from fl_rsna.cohort.sites import read_cohort

    cohort = read_cohort(folder / "cohort")
    if kind == "bare":
        settle_process()
        data = open_site(cohort.site_folder("site-1"), image_size=config.model.image_size)
        model = build_model(config.model, ICH, ImageKind.hu, seed=0)
        result = train_locally(
            model, data, task=ICH, norm=config.model.norm, config=config.train, learning_rate=1e-3, seed=0, device=CPU
        )
        print(time.time() - result.seconds)
        return
    run = folder / f"first-{kind}-{time.time()}"
    run_engine("ray, workers=2" if kind == "ray" else "local, workers=2", config, cohort, run)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    first = next(event for event in events if event["event"] == "site_done")
    print(datetime.fromisoformat(first["time"]).timestamp() - first["metrics"]["seconds"])


def report(words: argparse.Namespace, rounds: dict[str, list[float]], starts: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    first = {name: statistics.median(values) for name, values in starts.items()}
    table = Table(
        title=f"{words.model}, {words.size} px, {words.sites} sites of {words.slices} slices, {words.repeats} repeats, medians"
    )
    for name in ("", "seconds a steady round", "ratio to the bare loop", "seconds to the first step"):
        table.add_column(name, justify="right" if name else "left")
    for name, value in medians.items():
        kind = "bare" if name.startswith("bare") else name.partition(",")[0]
        start = "" if name == "local, workers=0" else f"{first[kind]:.1f}"
        table.add_row(
            name,
            f"{value:.2f} ({min(rounds[name]):.2f}-{max(rounds[name]):.2f})",
            f"{value / medians['bare loop']:.3f}",
            start,
        )
    Console(width=110).print(table)
    print(
        json.dumps(
            {
                "model": words.model.value, "size": words.size, "sites": words.sites, "slices": words.slices, "repeats": words.repeats,
                "round_s": medians,
                "ratio": {name: value / medians["bare loop"] for name, value in medians.items()},
                "first_step_s": first,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
