"""Write and read the files of a sweep beside the runs of its jobs: sweep.json, and in jobs/ how each job ended."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fl_rsna.common.atomic import write_whole
from fl_rsna.run_folder.run_folder import is_finished

SWEEP, JOBS = "sweep.json", "jobs"  # the file by which a sweep's folder is known, and the folder of its jobs' records


class JobState(StrEnum):
    """The state of a job of a sweep."""

    running = "running"  # or killed before it could say so
    finished = "finished"
    failed = "failed"
    interrupted = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a sweep. Its run is in the folder `name` beside sweep.json, if it began."""

    name: str
    words: tuple[str, ...]  # the settings that the sweep varies, as they were typed
    number: int
    attempt: str  # the id of the command that ran it last
    state: JobState
    sentence: str = ""  # the error, where it failed
    row: dict[str, Any] = field(default_factory=dict)  # its row in the sweep's table

    @property
    def label(self) -> str:
        return " ".join(self.words) or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The settings of a sweep as they were typed, and what its jobs need to know of them."""

    words: tuple[str, ...]
    fixed: tuple[str, ...]
    typed: dict[str, str]
    attempt: str


def write_asked(sweep: Path, asked: Asked) -> None:
    """Write sweep.json."""
    write_whole(sweep / SWEEP, _json(asdict(asked)))


def read_asked(sweep: Path) -> Asked:
    """Read sweep.json; raises ValueError when it is damaged."""
    found = _read(sweep / SWEEP)
    try:
        return Asked(**{**found, "words": tuple(found["words"]), "fixed": tuple(found["fixed"])})
    except (KeyError, TypeError):
        raise _damage_error(sweep / SWEEP) from None


def is_sweep(folder: Path) -> bool:
    """Check whether a folder is a sweep's."""
    return (folder / SWEEP).is_file()


def write_job(sweep: Path, job: Job) -> None:
    """Write the record of one job into jobs/."""
    (sweep / JOBS).mkdir(exist_ok=True)
    write_whole(sweep / JOBS / f"{job.name}.json", _json(asdict(job)))


def read_jobs(sweep: Path) -> list[Job]:
    """Read every job that began, in the order of the command that ran it last. Raises ValueError for a damaged file."""
    jobs = [_read_job(path) for path in sorted((sweep / JOBS).glob("*.json"))]
    return sorted(jobs, key=lambda job: job.number)


def find_failed_jobs(sweep: Path) -> list[Job]:
    """List the jobs that failed and have not been finished since."""
    failed = [job for job in read_jobs(sweep) if job.state is JobState.failed]
    return [job for job in failed if not is_finished(sweep / job.name)]


def job_of(run: Path) -> Job | None:
    """Find the job of a sweep that made this run, or the folder around it, such as a gap; None for a run of no sweep."""
    for folder in (run.absolute(), run.absolute().parent):
        path = folder.parent / JOBS / f"{folder.name}.json"
        if is_sweep(folder.parent) and path.is_file():
            return _read_job(path)
    return None


def _read_job(path: Path) -> Job:
    found = _read(path)
    try:
        return Job(**{**found, "words": tuple(found["words"]), "state": JobState(found["state"])})
    except (KeyError, TypeError, ValueError):
        raise _damage_error(path) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:  # UnicodeDecodeError is one
        raise _damage_error(path) from None
    if not isinstance(found, dict):
        raise _damage_error(path)
    return found


def _damage_error(path: Path) -> ValueError:
    return ValueError(
        f"{path}: expected what a sweep wrote there, got a damaged file; delete it and repeat the sweep with resume=true"
    )


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
