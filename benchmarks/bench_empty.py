"""What a round costs when nothing is trained: a model of 5.4 million parameters goes out to every site and comes back.

Ours with the whole server part of a real run (checks, hashes, events, checkpoints, a test site of a few slices scored
every round), beside Flower's runtime as its examples use it: Ray, FedAvg, one array a tensor, nothing written or scored.
The time that goes into writing models is measured where they are written. Called by bench_federation.py --empty.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_cohort import COHORT, bench_config, count_floats, figures_of, make_cohort, use_scaled
from bench_engines import events_of, round_seconds, run_engine
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.federation.protocol.messages import ARRAYS, COUNTS, METRICS, SCORECARD, action_of
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.settings.model import ModelName

WIDTH, SIZE, SLICES, TEST = 1.15, 32, 4, 2  # of EfficientNet-B0; pixels, training slices a site, test patients
WRITERS = ("save_progress", "write_model", "keep_round")  # in fl_rsna.federation: what writes models
FLOWER = "Flower on Ray, as its examples do it"


def measure(sites: list[int], engines: list[str], rounds: int, repeats: int, *, flower: bool = True) -> None:
    """Print the table and the JSON line."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in [*engines, *([FLOWER] if flower else [])]}
    writing: dict[str, dict[int, list[float]]] = {name: {} for name in engines}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for count in sites:
            folder = Path(name) / str(count)
            make_cohort(folder, count, SLICES, SIZE, test_patients=TEST)
            for repeat in range(repeats):
                for engine in engines:
                    arguments = [
                        "--folder",
                        str(folder),
                        "--engine",
                        engine,
                        "--rounds",
                        str(rounds),
                        "--run",
                        str(repeat),
                    ]
                    figures = figures_of(Path(__file__), *arguments)
                    found[engine].setdefault(count, []).extend(figures["round_s"])
                    writing[engine].setdefault(count, []).extend(figures["writing_s"])
                if flower:
                    arguments = ["--folder", str(folder), "--empty", str(WIDTH), "--size", str(SIZE)]
                    figures = figures_of(
                        Path(__file__).with_name("bench_flower.py"), *arguments, "--rounds", str(rounds)
                    )
                    found[FLOWER].setdefault(count, []).extend(figures["round_s"][1:])
    report(found, writing, rounds, repeats)


def empty_rounds(folder: Path, engine: str, rounds: int, run: str) -> dict[str, list[float]]:
    """Seconds of each steady round, and of them those spent writing models."""
    use_scaled(WIDTH, 1.0)
    config, cohort = bench_config(rounds, ModelName.efficientnet_b0, SIZE), read_cohort(folder / COHORT)
    target, spent = folder / f"{engine}-{run}", [0.0]
    count_writing(spent)
    before: list[float] = []

    def note(event: str, fields: Any) -> None:
        if event == "round_start":
            before.append(spent[0])

    run_engine(engine, config, cohort, target, functools.partial(empty_app, WIDTH), (note,))
    assert all(event["event"] != "site_failed" for event in events_of(target)), "a site failed"
    written = [after - start for start, after in zip(before, [*before[1:], spent[0]], strict=True)]
    return {"round_s": round_seconds(target)[1:], "writing_s": written[1:-1] or written[-1:]}


def empty_app(width: float, cohort: Path, memory: Path) -> ClientApp:
    """Sites that answer the roll call and send back the model they got."""
    use_scaled(width, 1.0)
    real, app = app_for_cohort(cohort, memory), ClientApp()
    metrics = {"num-examples": 1, "steps": 0, "seconds": 0.0, "loss": 0.0}

    @app.query()
    def _query(message: Message, context: Context) -> Message:
        return real(message, context)

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        content = RecordDict({ARRAYS: message.content[ARRAYS], METRICS: MetricRecord(metrics)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({METRICS: MetricRecord(metrics)}), reply_to=message)

    for kind in (COUNTS, SCORECARD):  # after the last round

        @app.evaluate(action_of(kind))
        def _score(message: Message, context: Context) -> Message:
            return real(message, context)

    return app


def count_writing(spent: list[float]) -> None:
    """Add the seconds of every call that writes a model to `spent`, the outermost ones only."""
    inside: list[str] = []

    def timed(act: Callable[..., Any]) -> Callable[..., Any]:
        def timed_act(*arguments: Any, **named: Any) -> Any:
            start, outermost = time.perf_counter(), not inside
            inside.append(act.__name__)
            try:
                return act(*arguments, **named)
            finally:
                inside.pop()
                spent[0] += time.perf_counter() - start if outermost else 0.0

        return timed_act

    modules = [module for name, module in sys.modules.items() if name.startswith("fl_rsna.federation")]
    writers = [(module, name) for module in modules for name in WRITERS if hasattr(module, name)]
    missing = set(WRITERS) - {name for _, name in writers}
    assert not missing, f"{missing} write models no more; mend WRITERS"
    for module, name in writers:
        setattr(module, name, timed(getattr(module, name)))


def report(
    found: dict[str, dict[int, list[float]]], writing: dict[str, dict[int, list[float]]], rounds: int, repeats: int
) -> None:
    use_scaled(WIDTH, 1.0)
    floats = count_floats(bench_config(1, ModelName.efficientnet_b0, SIZE))
    table = Table(title=f"nothing trained, {floats:,} values out and back, {rounds} rounds, {repeats} repeats, medians")
    sites = list(next(iter(found.values())))
    table.add_column("")
    for count in sites:
        table.add_column(f"s a round, {count} sites", justify="right")
        table.add_column("of it writing models", justify="right")
    for name, by_sites in found.items():
        cells = []
        for count in sites:
            cells.append(
                f"{statistics.median(by_sites[count]):.2f} ({min(by_sites[count]):.2f}-{max(by_sites[count]):.2f})"
            )
            cells.append(f"{statistics.median(writing[name][count]):.3f}" if name in writing else "nothing is written")
        table.add_row(name, *cells)
    Console(width=140).print(table)
    medians = {name: {n: statistics.median(s) for n, s in by_sites.items()} for name, by_sites in found.items()}
    written = {name: {n: statistics.median(s) for n, s in by_sites.items()} for name, by_sites in writing.items()}
    print(json.dumps({"values": floats, "round_s": medians, "writing_s": written}))


if __name__ == "__main__":
    import bench_empty  # the workers find its app under its own name, not as __main__

    asked = argparse.ArgumentParser()
    for option in ("--folder", "--engine", "--rounds", "--run"):
        asked.add_argument(option, required=True)
    arguments = asked.parse_args()
    print(
        json.dumps(
            bench_empty.empty_rounds(Path(arguments.folder), arguments.engine, int(arguments.rounds), arguments.run)
        )
    )
