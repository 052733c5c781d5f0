"""Which runs a path on the command line means: a run, a folder of runs, a gap experiment, a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

RUN, SWEEP = "config.yaml", "multirun.yaml"  # the files by which such folders are known
LOST = ("events.jsonl", "rounds.csv")  # by these a run is known that lost its config.yaml


def find_runs(path: Path) -> list[Path]:
    """The run folders `path` stands for, in the order of their names; raises ValueError when there are none."""
    if not path.is_dir():
        raise ValueError(f"expected a run folder with {RUN}, got {path}, which is no folder; give runs/<name>")
    if _is_run(path):
        return [path]
    found = _of_sweep(path) if (path / SWEEP).exists() else _below(path)
    if not found:
        raise ValueError(
            f"expected a run folder with {RUN}, a folder of runs or a sweep's folder under multirun/, found no run in {path}; give runs/<name>"
        )
    return found


def common_folder(runs: Sequence[Path]) -> Path:
    """The folder that holds all of the runs, however deep."""
    return Path(os.path.commonpath([run.absolute().parent for run in runs]))


def _below(path: Path) -> list[Path]:
    """Runs in a folder, and those of gap experiments in it; not what a run has inside."""
    found = []
    for folder in sorted((inside for inside in path.iterdir() if inside.is_dir()), key=_by_number):
        found += [folder] if _is_run(folder) else _below(folder)
    return found


def _is_run(folder: Path) -> bool:
    """Whether it is a run's, whole or not; one that may not be looked into counts, so that it is named."""
    return not os.access(folder, os.R_OK | os.X_OK) or any((folder / name).is_file() for name in (RUN, *LOST))


def _of_sweep(path: Path) -> list[Path]:
    """The runs of a --multirun: <run.name or the sweep's own name>-<job> below paths.runs, from here or from where it stood."""
    asked = yaml.safe_load((path / SWEEP).read_text())
    name, runs = asked["run"]["name"] or path.absolute().name, asked["paths"]["runs"]
    jobs = sorted(int(job.name) for job in path.iterdir() if job.name.isdigit())
    for stood in (Path(), path.parent.parent):
        folders = [stood / runs / f"{name}-{job}" for job in jobs]
        found = [run for folder in folders if folder.is_dir() for run in find_runs(folder)]
        if found:
            return found
    return []


def _by_number(folder: Path) -> tuple[str, int, str]:
    """By name, with a number at the end counted as one: sweep-2 before sweep-10."""
    stem = folder.name.rstrip("0123456789")
    number = folder.name[len(stem) :]
    return stem, int(number or -1), folder.name
