"""Describe the start of a run for manifest.json: time, command, versions, arithmetic, commit, cohort, seed."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from fl_rsna.cohort.sites.site_folders import Cohort, cohort_files
from fl_rsna.common.arithmetic import describe_arithmetic
from fl_rsna.common.plugins import MODELS, PARTITIONERS, STRATEGIES, TASKS, versions_of
from fl_rsna.common.reading import file_sha256
from fl_rsna.settings.config import Config
from fl_rsna.version import PACKAGE

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


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Hash a run's settings; the order and the format in which they are written do not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


class Manifest(TypedDict, total=False):
    """What manifest.json says of a run: what began it, on which machine, on which data. A run folder without that file has none of it."""

    command: list[str]
    versions: dict[str, str | None]
    plugins: dict[str, str]
    python: str
    machine: str
    arithmetic: dict[str, Any]
    device: str
    git_commit: str | None
    cohort: str
    cohort_sha256: str
    ids: str | None
    seed: int
    cohort_files: dict[str, str]
    id: str
    config_sha256: str
    weights_sha256: str
    started: str


def describe_start(config: Config, cohort: Cohort, device: str) -> Manifest:
    """Collect what manifest.json says of a run's start."""
    named = {STRATEGIES: config.strategy.name, MODELS: config.model.name, TASKS: config.data.task}
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {name: _version(name) for name in VERSIONS_OF},
        "plugins": versions_of({**named, PARTITIONERS: config.partition.kind}),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "arithmetic": describe_arithmetic(),
        "device": device,
        "git_commit": git_commit(PACKAGE),
        "cohort": str(cohort.folder),
        "cohort_sha256": cohort.sha256,
        "ids": cohort.ids,
        "seed": config.seed,
        "cohort_files": cohort_files(cohort),
        "id": secrets.token_hex(8),
        "config_sha256": settings_sha256(json.loads(json.dumps(dataclasses.asdict(config)))),
        **({"weights_sha256": file_sha256(Path(config.model.weights))} if config.model.weights else {}),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit(package: Path) -> str | None:
    """Find the commit of a package's own checkout, with + when it has changes; None elsewhere, such as where it is installed.

    A repository is the package's own if it tracks the package at its top. One around a virtual environment is not.
    """
    # a git hook sets GIT_* to another repository
    alone = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=package, env=alone, capture_output=True, check=True)
        return done.stdout.decode(errors="replace").strip()

    try:
        if ask("rev-parse", "--show-prefix") != f"{package.name}/":
            return None
        ask("ls-files", "--error-unmatch", "version.py")
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
