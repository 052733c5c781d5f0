"""Damaged files of runs, prepared data and cohorts against every command that reads them: none may lie and none may break.

    python tests/e2e/damage_files.py [--count 300] [--seed 0] [--kinds plain,scaffold,both,trees,network,gap] [--workers 2]

Tiny runs are made first: one of every kind, finished, and again ended in the middle. Then, `count` times, one file of a fresh
copy is cut, or one bit of it flipped, and one of resume, report, evaluate, replay, audit and doctor is told in this process.
Checked: what ends it is a ValueError, RunFailed or OSError, so a sentence, and never another exception; a sentence about
damage names the file; and what succeeds says what it says of undamaged files, the same model hash and the same numbers, or
names the file in a warning. Each damage depends on the seed and its number alone: --only <number> tells one again.

It prints a table of outcomes and, as the last line, one JSON object; exit code 1 on a violation, naming seed, number and file.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as in the commands
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import torch

from fl_rsna.audit import audit_cohort, request_of
from fl_rsna.checks.doctor import check_run
from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.command_end import RunFailed
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.settings import EvaluateConfig, ScansConfig
from fl_rsna.replay import replay
from fl_rsna.report import report
from fl_rsna.reporting.pages.find_runs import find_runs
from fl_rsna.reporting.record.console import console
from fl_rsna.settings.compose import compose_config
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Baseline
from fl_rsna.simulation.simulation import report_run, run_federation, run_gap
from fl_rsna.strategies.find import STRATEGIES

SETTINGS = (
    "demo.patients=16", "demo.slices_per_series=6", "demo.size=64", "data.size=64", "model.image_size=32", "partition.num_sites=2",
    "rounds=2", "engine.workers=0", "train.batch_size=8", "train.device=cpu",
    "prepare.workers=1", "paths.prepared=prepared", "paths.sites=site_data", "paths.runs=runs", "run.name=run",
)  # fmt: skip
KINDS = {
    "plain": ("run.keep=all",),
    "scaffold": ("strategy=scaffold", "strategy.weighting=equal", "model.norm=local", "run.keep=all"),
    "both": ("stage=both", "sequence.width=16"),
    "trees": ("stage=stacking", "stacking.folds=2", "stacking.rounds=2"),
    "network": ("stage=stacking", "stacking.folds=2", "stacking.stacker=cnn", "stacking.rounds=2", "sequence.width=16"),
    "gap": ("experiment=gap",),
}
STOPS = {
    "plain": 2,
    "scaffold": 2,
    "both": 5,
    "trees": 8,
    "network": 8,
    "gap": 5,
}  # the round_end at which a run is ended
COMMANDS = ("resume", "report", "evaluate", "replay", "audit", "doctor")
READ = {
    "resume": ["runs", "runs", "site_data"],
    "report": ["runs", "runs", "runs"],
    "evaluate": ["runs", "prepared", "runs"],
    "replay": ["runs", "site_data", "runs"],
    "audit": ["site_data", "site_data", "site_data"],
    "doctor": ["prepared", "site_data", "runs"],
}
SITE, TIMES = "site-1", ("wall_s", "seconds", "_s")
LINKED = 200_000  # bytes: larger files are only ever replaced, so a copy of a folder may share them
SENTENCES = (ValueError, RunFailed, OSError)


class Stopped(BaseException):
    """What ends a run in the middle; a display that fails would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one damage."""

    number: int
    kind: str
    command: str
    file: str
    how: str
    end: str  # same, warned, sentence, or a violation
    said: str

    @property
    def is_violation(self) -> bool:
        return self.end not in ("same", "warned", "sentence")


def config_of(kind: str, *, resume: bool = False) -> Config:
    return compose_config([*SETTINGS, *KINDS[kind], f"resume={str(resume).lower()}"], STRATEGIES)


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def simulate(kind: str, *, resume: bool = False, stop_at: int | None = None) -> Path:
    """A run of this kind in the working folder, ended at its n-th `round_end` when told so; its report is written, too."""
    config, ends = config_of(kind, resume=resume), 0

    def listen(event: str, fields: Mapping[str, Any]) -> None:
        nonlocal ends
        ends += event == "round_end"
        if event == "round_end" and ends == stop_at:
            raise Stopped

    cohort, folder = cohort_for_run(config, quiet), Path("runs/run")
    if config.baseline is Baseline.gap:
        run_gap(config, cohort, folder, (listen,))
        for part in find_runs(folder):
            report_run(part, cohort)
    else:
        run_federation(config, cohort, folder, (listen,))
        report_run(folder, cohort)
    return folder


def main_run(kind: str) -> Path:
    return Path("runs/run/federated" if kind == "gap" else "runs/run")


def tell(command: str, kind: str) -> str:
    """Tell one command; all that it says of models and numbers, as text."""
    run = main_run(kind)
    match command:
        case "resume":
            simulate(kind, resume=True)
            return numbers_of([Path("runs/run/summary.json")])
        case "report":
            report([Path("runs/run")])
            return numbers_of(sorted(Path("runs/run").rglob("report.json")))
        case "evaluate":
            shutil.rmtree("out", ignore_errors=True)
            model = Path("runs/run/slice") if kind == "both" else run
            data = ScansConfig(name=config_of(kind).data.name)
            evaluate(EvaluateConfig(model=str(model), out="out", data=data), quiet)
            return numbers_of([Path("out/scorecard.json"), Path("out/evaluation.json")])
        case "replay":
            replay([f"run={run}", f"site={SITE}", "round=2"])
            return "the same, bit by bit"
        case "audit":
            found = audit_cohort(request_of([f"cohort={cohort_folder()}"]), cohort_folder())
            return json.dumps(asdict(found), default=str)
        case "doctor":
            checks = check_run(config_of(kind, resume=True))
            told = [check for check in checks if check.what not in ("memory", "shared memory", "ports", "cores")]
            return json.dumps([[check.what, check.state.value] for check in told]) + "".join(
                c.found for c in told if c.change
            )
    raise AssertionError(command)


def cohort_folder() -> Path:
    return next(path.parent for path in sorted(Path("site_data").glob("*/cohort.json")))


def numbers_of(paths: list[Path]) -> str:
    """JSON files without what takes time and without their own hashes."""
    return json.dumps([timeless(json.loads(path.read_text())) for path in paths])


def timeless(value: Any) -> Any:
    """Without seconds, and what is new in every run."""
    if isinstance(value, dict):
        left_out = (
            "content_sha256",
            "time",
            "tables",
            "run_id",
            "cost",
            "provenance",
            "headlines",
            "failures",
            "bytes_down",
            "bytes_up",
            "curves",
        )
        return {key: timeless(inner) for key, inner in value.items() if key not in left_out and not key.endswith(TIMES)}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def copied(source: Path, target: Path) -> None:
    """A copy of a folder; large files are shared with it."""
    shutil.rmtree(target, ignore_errors=True)

    def copy(from_: str, to: str) -> None:
        if os.stat(from_).st_size > LINKED or from_.endswith(".png"):
            os.link(from_, to)
        else:
            shutil.copyfile(from_, to)

    shutil.copytree(source, target, copy_function=copy)


def prepare_kind(home: Path, kind: str, stop: int) -> None:
    """`home`/<kind>: finished and begun, and what every command says of them undamaged."""
    place = home / kind
    (place / "now").mkdir(parents=True)
    os.chdir(place / "now")
    with contextlib.suppress(Stopped):
        simulate(kind, stop_at=stop)
        raise RuntimeError(f"{kind}: has no {stop} rounds to be ended in")
    copied(place / "now", place / "begun")
    simulate(kind, resume=True)
    copied(place / "now", place / "whole")
    said = {}
    for command in COMMANDS:
        if command not in lacking(kind):
            os.chdir(place)
            copied(place / ("begun" if command == "resume" else "whole"), place / "now")
            os.chdir(place / "now")
            said[command] = tell(command, kind)
    (place / "said.json").write_text(json.dumps(said))


def lacking(kind: str) -> tuple[str, ...]:
    """Commands that such a run has no part for."""
    return ("replay",) if kind not in ("plain", "scaffold") else ()


def damage(folder: Path, command: str, draw: np.random.Generator) -> tuple[Path, str]:
    """Cut one file below a folder, or flip one bit of it; every kind of file is as likely, and so is every file of it.

    Three of four are where the command reads most.
    """
    top = Path(str(draw.choice([*READ[command] * 3, "runs", "prepared", "site_data"])))
    files = [path for path in sorted((folder / top).rglob("*")) if path.is_file() and path.stat().st_size]
    kinds = sorted({path.name if path.suffix in (".json", ".csv", ".yaml") else path.suffix for path in files})
    chosen = str(draw.choice(kinds))
    same = [path for path in files if chosen in (path.name, path.suffix)]
    path = same[int(draw.integers(len(same)))]
    raw = bytearray(path.read_bytes())
    if draw.random() < 0.4:
        left = int(draw.choice([0, len(raw) // 2, len(raw) - 1, int(draw.integers(len(raw)))]))
        content, how = bytes(raw[:left]), f"cut to {left} of {len(raw)} bytes"
    else:
        at, bit = int(draw.integers(len(raw))), int(draw.integers(8))
        raw[at] ^= 1 << bit
        content, how = bytes(raw), f"bit {bit} of byte {at} of {len(raw)} flipped"
    path.unlink()  # it may be shared with the copy's source
    path.write_bytes(content)
    return path.relative_to(folder), how


def try_one(home: Path, kinds: list[str], seed: int, number: int) -> Outcome:
    """One damage and one command after it."""
    draw = np.random.default_rng((seed, number))
    command = COMMANDS[number % len(COMMANDS)]
    kind = str(draw.choice([kind for kind in kinds if command not in lacking(kind)] or ["plain"]))
    source, now = home / kind, home / kind / f"at-{os.getpid()}"
    os.chdir(home)
    copied(source / ("begun" if command == "resume" else "whole"), now)
    os.chdir(now)
    file, how = damage(now, command, draw)
    result = partial(Outcome, number=number, kind=kind, command=command, file=str(file), how=how)
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            found = tell(command, kind)
    except SENTENCES as error:
        text = " ".join(str(error).split())
        return result(end="sentence" if text else "no sentence", said=text)
    except Exception:
        return result(end="exception", said=traceback.format_exc())
    expected = json.loads((source / "said.json").read_text())[command]
    if found == expected:
        return result(end="same", said="")
    events = (
        [path.read_text(errors="replace") for path in Path("runs").rglob("events.jsonl")] if command == "resume" else []
    )
    text = " ".join([printed.getvalue(), *(str(each.message) for each in warned), *events, found]).replace("\n", "")
    if file.name in text or "is damaged" in text:
        return result(end="warned", said="")
    return result(end="another result", said=first_difference(expected, found))


def first_difference(expected: str, found: str) -> str:
    at = next(
        (i for i, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other),
        min(len(expected), len(found)),
    )
    return f"...{expected[max(0, at - 60) : at + 60]}... became ...{found[max(0, at - 60) : at + 60]}..."


def setting_up() -> None:
    torch.set_num_threads(1)
    console.quiet = True
    sys.stderr = io.StringIO()  # libraries complain of damage there, too


def say(outcomes: list[Outcome], seed: int, seconds: float) -> int:
    """The table, the violations and the JSON line; the exit code."""
    counted = Counter((outcome.command, outcome.end) for outcome in outcomes)
    ends = sorted({end for _, end in counted})
    print(f"{'command':<10}" + "".join(f"{end:>16}" for end in ends))
    for command in COMMANDS:
        print(f"{command:<10}" + "".join(f"{counted[command, end]:>16}" for end in ends))
    wrong = [outcome for outcome in outcomes if outcome.is_violation]
    for outcome in wrong:
        print(
            f"\nseed {seed} number {outcome.number}: {outcome.kind}, {outcome.file} {outcome.how}; {outcome.command}: {outcome.end}"
        )
        print(outcome.said)
    total = Counter(outcome.end for outcome in outcomes)
    print(
        json.dumps(
            {
                "seed": seed,
                "damages": len(outcomes),
                "violations": len(wrong),
                "ends": total,
                "seconds": round(seconds, 1),
            }
        )
    )
    return int(bool(wrong))


def run(count: int, seed: int, kinds: list[str], workers: int, home: Path, only: int | None = None) -> list[Outcome]:
    """Make the runs, then damage; every process makes its own copies."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, workers), setting_up) as pool:
        pool.starmap(prepare_kind, [(home, kind, STOPS[kind]) for kind in kinds], 1)
        numbers = range(count) if only is None else [only]
        act: Callable[[int], Outcome] = partial(try_one, home, kinds, seed)
        return pool.map(act, numbers, 1)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of runs")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--only", type=int, help="the number of one damage")
    parser.add_argument("--say", action="store_true", help="print every outcome")
    return parser.parse_args()


if __name__ == "__main__":
    arguments, start = parsed(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fl_rsna-damage-") as place:
        outcomes = run(
            arguments.count, arguments.seed, arguments.kinds.split(","), arguments.workers, Path(place), arguments.only
        )
    for outcome in outcomes if arguments.say else ():
        print(
            f"{outcome.number:>4} {outcome.kind:<9}{outcome.command:<9}{outcome.end:<10}{outcome.file}: {outcome.how}: {outcome.said}"
        )
    sys.exit(say(outcomes, arguments.seed, time.perf_counter() - start))
