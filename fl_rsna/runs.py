"""What a run folder holds, and who may write it: the one place that knows its file names."""

import csv
import dataclasses
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fl_rsna.arithmetic import describe_arithmetic
from fl_rsna.cohort.sites import Cohort
from fl_rsna.cohort.whole import write_whole
from fl_rsna.config import Config
from fl_rsna.learning.weights import file_sha256

VERSIONS_OF = (
    "fl-rsna",
    "flwr",
    "torch",
    "numpy",
    "ray",
    "pydicom",
    "opencv-python-headless",
    "scikit-learn",
    "efficientnet-pytorch",
)

MAY_CHANGE = (
    "resume",
    "engine",
    "deploy",
    "paths",
    "prepare",
    "predict",
    "tracking",
    "train.device",
    "data.dicom",  # the data itself is in the cohort's hash
    "data.labels",
    "strategy.lost",
    "strategy.timeout_s",
    "sequence.encoder",
)  # of a run that goes on

SCORECARDS = "scorecards.json"  # of the final model on the test site and at every site, whole

ALONE = "alone"  # folder of the sites' own runs, where each trained by itself

COHORT_VIEW = "cohort_view.json"  # slices and headers of the sites, for the report
EXPLANATIONS = "explanations.json"  # slices of the test site with what the model looked at, for the report
MANIFEST = "manifest.json"  # what began a run, and when
MODEL = "model.safetensors"  # the final one
ENCODER = "encoder.safetensors"  # of a run of the second stage: the slice model under it
SLICE_STAGE = "slice"  # folder of the first stage's run, where both were asked for
STACK_NETWORK = "stacker.safetensors"  # of a stacking by a network
STACKER = "stacker.json"  # of a stacking, whose slice models are the folds'

OF_MANY = ("site_done", "site_failed")  # events that come once a site; the disk gets them with the next other one

Listener = Callable[[str, Mapping[str, Any]], None]


def fold_folder(run: Path, number: int) -> Path:
    """Where fold number 0, 1, ... of a stacking has its run: fold-1, fold-2, ..."""
    return run / f"fold-{number + 1}"


class RunFolder:
    """One run's folder, written by one process. Events go to events.jsonl and to every listener."""

    def __init__(self, folder: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.folder = folder
        self._listeners = listeners

    def listen(self, listener: Listener) -> None:
        """Give every later event to one more listener."""
        self._listeners = (*self._listeners, listener)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def site_memory(self) -> Path:
        """Where the sites of a simulation keep what they remember."""
        return self.folder / "site_memory"

    def packed(self, cohort_sha256: str) -> Path:
        """Where a cohort's test site is packed when its folder cannot be written: a cache that all runs share."""
        return self.folder.parent / ".packed" / cohort_sha256[:16]

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl: read by others when this returns, and on disk unless it is one of many sites'."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **fields})
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(line + "\n")
            file.flush()
            if kind not in OF_MANY:
                os.fsync(file.fileno())
        self.tell(kind, fields)

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show an event to whoever listens, without writing it down."""
        for listener in self._listeners:
            listener(kind, fields)

    def append_row(self, table: str, row: Mapping[str, Any]) -> None:
        """Append a row to rounds.csv or sites.csv; the first row sets the columns."""
        path = self.folder / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def rows(self, table: str) -> list[dict[str, str]]:
        """The rows of rounds.csv or sites.csv so far."""
        path = self.folder / f"{table}.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def rewind(self, round_: int) -> None:
        """Drop the rows of rounds after `round_`, which a killed run began and will play again."""
        for table in ("rounds", "sites"):
            path = self.folder / f"{table}.csv"
            if not path.exists():
                continue
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if None not in row.values() and int(row["round"]) <= round_]
                names = reader.fieldnames or []
            if not rows:
                path.unlink()
                continue
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_whole(path, text.getvalue().encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / name, (json.dumps(content, indent=2) + "\n").encode())


def start_run(
    folder: Path,
    config: Config,
    cohort: Cohort,
    device: str,
    listeners: tuple[Listener, ...],
) -> RunFolder:
    """Make a new run folder with config.yaml and manifest.json, or, with `config.resume`, take up the one that is there.

    Raises ValueError when it exists and is not to be resumed, and when it was begun with other settings or data.
    """
    run, plain = RunFolder(folder, listeners), json.loads(json.dumps(dataclasses.asdict(config)))
    if config.resume and (folder / MANIFEST).exists():
        check_same(folder, config, cohort)
        (folder / "summary.json").unlink(missing_ok=True)  # of a run that failed and now goes on
        return run
    try:
        folder.mkdir(parents=True, exist_ok=config.resume)
    except FileExistsError:
        raise ValueError(
            f"run.name: expected a new run, got the existing {folder}; choose another run.name, delete it or say resume=true"
        ) from None
    run.checkpoints.mkdir(exist_ok=config.resume)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    run.write_json(
        MANIFEST,
        {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": {name: _version(name) for name in VERSIONS_OF},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "arithmetic": describe_arithmetic(),
            "device": device,
            "git_commit": _git_commit(),
            "cohort": str(cohort.folder),
            "cohort_sha256": cohort.sha256,
            "seed": config.seed,
            **({"weights_sha256": file_sha256(Path(config.model.weights))} if config.model.weights else {}),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return run


def is_finished(folder: Path) -> bool:
    """Whether a run in `folder` came to its end."""
    summary = folder / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] == "finished"


def stays(folder: Path, config: Config, cohort: Cohort) -> bool:
    """Whether the run in `folder` is finished and is what is asked for; raises ValueError when it is finished under other settings."""
    finished = is_finished(folder)
    if finished:
        check_same(folder, config, cohort)
    return finished


def check_same(folder: Path, config: Config, cohort: Cohort) -> None:
    """Refuse to go on with a run under other settings than it began with; where and how it runs may change.

    A setting younger than the run had its default. Raises ValueError.
    """
    asked = json.loads(json.dumps(dataclasses.asdict(config)))
    begun, default = (
        yaml.safe_load((folder / "config.yaml").read_text()),
        json.loads(json.dumps(dataclasses.asdict(Config()))),
    )
    for group, value in default.items():
        begun[group] = {**value, **begun.get(group, {})} if isinstance(value, dict) else begun.get(group, value)
    changed = sorted(
        f"{group}.{key}" if key else group
        for group in asked
        if group not in MAY_CHANGE
        for key in (asked[group] if isinstance(asked[group], dict) else [""])
        if f"{group}.{key}" not in MAY_CHANGE and _at(asked, group, key) != _at(begun, group, key)
    )
    if changed:
        raise ValueError(
            f"resume: {folder} was begun with other settings ({', '.join(changed)} differ); repeat its command with resume=true"
        )
    dealt = json.loads((folder / MANIFEST).read_text())["cohort_sha256"]
    if dealt != cohort.sha256:
        raise ValueError(
            f"resume: {folder} was begun with cohort {dealt[:12]}, got {cohort.sha256[:12]}; give it the same data"
        )


def _at(settings: dict[str, Any], group: str, key: str) -> Any:
    value = settings.get(group)
    return value.get(key) if key and isinstance(value, dict) else value


def default_run_name() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The checkout's commit, with + when it has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
