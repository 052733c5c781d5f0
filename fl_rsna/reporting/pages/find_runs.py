"""Find the runs that a path on the command line means: a run, a folder of runs, a gap experiment, or a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

from fl_rsna.run_folder.sweep_folder import Job, find_failed_jobs, is_sweep, job_of, read_jobs

RUN = "config.yaml"  # the file that every run's folder has
LOST = ("events.jsonl", "rounds.csv")  # files that show a run's folder to be one where its config.yaml is lost


def find_runs(path: Path) -> list[Path]:
    """List the run folders that `path` means, a sweep's in the order of its jobs, others by name; raises ValueError when there are none."""
    if not path.is_dir():
        raise ValueError(f"expected a run folder with {RUN}, got {path}, which is no folder; give runs/<name>")
    found = runs_in(path)
    if not found:
        raise ValueError(
            f"expected a run folder with {RUN}, a folder of runs or a sweep's folder, found no run in {path}; give runs/<name>"
        )
    return found


def runs_in(path: Path) -> list[Path]:
    """List the run folders that a folder is or holds; it may hold none."""
    return [path] if is_run(path) else _below(path)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, complete or not; a folder that cannot be read counts as one, so that it is named."""
    return not os.access(folder, os.R_OK | os.X_OK) or any((folder / name).is_file() for name in (RUN, *LOST))


def failures_in(path: Path) -> list[Job]:
    """List the failed jobs of sweeps, where `path` is a sweep's folder or holds such folders."""
    sweeps = [path] if is_sweep(path) else [folder for folder in sorted(path.iterdir()) if is_sweep(folder)]
    return [job for sweep in sweeps for job in find_failed_jobs(sweep)]


def common_folder(runs: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all of the runs, at whatever depth."""
    return Path(os.path.commonpath([run.absolute().parent for run in runs]))


def name_of(run: Path, above: Path) -> str:
    """Name a run among those below a folder: by its path, with the settings of a sweep's job in place of the job's folder."""
    parts, job = list(Path(os.path.relpath(run.absolute(), above)).parts), job_of(run)
    if job is not None and job.name in parts:
        parts[parts.index(job.name)] = job.label
    return "/".join(parts).encode(errors="backslashreplace").decode()


def _below(path: Path) -> list[Path]:
    """List the runs in a folder, and those of gap experiments and sweeps in it, but no runs inside a run."""
    jobs = {job.name: job.number for job in read_jobs(path)} if is_sweep(path) else {}
    inside = [folder for folder in path.iterdir() if folder.is_dir()]
    found = []
    for folder in sorted(inside, key=lambda folder: (jobs.get(folder.name, len(jobs)), _by_number(folder))):
        found += [folder] if is_run(folder) else _below(folder)
    return found


def _by_number(folder: Path) -> tuple[str, int, str]:
    """Make a sort key of a folder's name that puts sweep-2 before sweep-10."""
    stem = folder.name.rstrip("0123456789")
    number = folder.name[len(stem) :]
    return stem, int(number or -1), folder.name
