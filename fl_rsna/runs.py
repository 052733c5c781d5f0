"""What a run folder holds, and who may write it: the one place that knows its file names."""

import csv
import dataclasses
import importlib.metadata
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

from fl_rsna.cohort.whole import write_whole
from fl_rsna.config import Config

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

COHORT_VIEW = "cohort_view.json"  # slices and headers of the sites, for the report

Listener = Callable[[str, Mapping[str, Any]], None]


class RunFolder:
    """One run's folder, written by one process. Events go to events.jsonl and to every listener."""

    def __init__(self, folder: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.folder = folder
        self._listeners = listeners

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl, on disk when this returns."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **fields})
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
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

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / name, (json.dumps(content, indent=2) + "\n").encode())


def start_run(
    folder: Path, config: Config, cohort_sha256: str, device: str, listeners: tuple[Listener, ...]
) -> RunFolder:
    """Make a new run folder with config.yaml and manifest.json; raises ValueError when it exists."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(
            f"run.name: expected a new run, got the existing {folder}; choose another run.name or delete it"
        ) from None
    run = RunFolder(folder, listeners)
    run.checkpoints.mkdir()
    (folder / "config.yaml").write_text(
        yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config))), sort_keys=False)
    )
    run.write_json(
        "manifest.json",
        {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": {name: _version(name) for name in VERSIONS_OF},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": device,
            "git_commit": _git_commit(),
            "cohort_sha256": cohort_sha256,
            "seed": config.seed,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return run


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
