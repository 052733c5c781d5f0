"""Check what a run reads and writes, for the doctor: cohort, prepared data, DICOM, folders and their disks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_rsna.checks.check import Check, State
from fl_rsna.checks.memory import disk_needed, footprint_of, free_disk, refuses_writing, size, slices_there
from fl_rsna.checks.request import Request, check_run_name
from fl_rsna.cohort.prepared.index import read_prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.cohort.steps import cohort_name
from fl_rsna.imaging.dicom.reader import read_image
from fl_rsna.imaging.dicom.rejections import Rejected
from fl_rsna.imaging.sources import File, read_file
from fl_rsna.learning.training.memory_estimate import Footprint
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import is_demo
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import Task, find_task

TRIED = 5  # DICOM files that are read as a sample

ok, warning, problem = State.ok, State.warning, State.problem


def each(what: str, act: Callable[[], Sequence[Check]]) -> Sequence[Check]:
    """Return the checks that `act` makes. A ValueError or OSError of `act` becomes a problem, so that other checks go on."""
    try:
        return act()
    except ValueError as error:
        return [as_problem(what, error)]
    except OSError as error:
        return [Check(what=what, state=problem, found=f"cannot read {error.filename}: {error.strerror}")]


def as_problem(what: str, error: ValueError) -> Check:
    """Turn a refusal, `what is wrong; what to do`, into a problem."""
    wrong, _, change = str(error).rpartition("; ")
    return Check(what=what, state=problem, found=wrong or change, change=change if wrong else "")


def check_data(config: Config) -> list[Check]:
    """Check what a run would start from: a cohort, prepared data, DICOM, or the synthetic demo."""
    prepared, cohort = Path(config.paths.prepared) / config.data.name, Path(config.paths.sites) / cohort_name(config)
    checks: list[Check] = []
    if config.data.dicom is not None:
        checks += each("data.dicom", lambda: [check_dicom(config)])
    if prepared.exists():
        held = read_prepared(prepared, find_task(config.data.task))
        found = f"{prepared}: {len(held.index)} images, {'labelled' if held.labels else 'without labels'}"
        state = ok if held.labels else problem
        checks.append(
            Check(what="prepared", state=state, found=found, change="" if held.labels else "prepare with data.labels")
        )
    elif is_demo(config.data) and not cohort.exists():
        checks.append(Check(what="prepared", state=ok, found="the synthetic demo, drawn on first use"))
    elif not cohort.exists() and config.data.dicom is None:
        change = "python -m fl_rsna.prepare data.dicom=<folder> data.labels=<csv> data.name=<name>"
        checks.append(Check(what="prepared", state=problem, found=f"nothing at {prepared}", change=change))
    if cohort.exists():
        checks.append(_cohort(cohort))
    return checks


def _cohort(folder: Path) -> Check:
    cohort = read_cohort(folder)
    for site in (*cohort.sites, TEST_SITE):
        place = folder / site
        for needed in (place / "index.csv", place / "site.json", place / "images"):
            if not os.access(needed, os.R_OK):
                return Check(what="cohort", state=problem, found=f"cannot read {needed}", change="partition again")
    return Check(what="cohort", state=ok, found=f"{folder}: {len(cohort.sites)} sites and a test site")


def check_dicom(config: Config) -> Check:
    """Check that data.dicom has files, that labels fit them, and that TRIED of them can be read."""
    data, task = config.data, find_task(config.data.task)
    labels = Path(data.labels) if data.labels else None
    inputs = find_inputs(
        Path(str(data.dicom)),
        labels,
        task,
        unlabelled=data.unlabelled,
        test_set=data.test_set,
        if_any=False,
        unannotated=data.unannotated,
    )
    spread = [inputs.files[number * (len(inputs.files) - 1) // max(1, TRIED - 1)] for number in range(TRIED)]
    tried = list(dict.fromkeys(spread))
    refused = [sentence for file in tried if (sentence := _find_rejection(file, task))]
    found = f"{len(inputs.files)} files in {data.dicom}"
    if inputs.labels is not None:
        found += f", {len(inputs.labels)} images with labels"
    if refused:
        found += f"; {len(refused)} of {len(tried)} tried give no image, {refused[0]}"
    state = problem if len(refused) == len(tried) else warning if refused else ok
    return Check(what="data.dicom", state=state, found=found, change="look at these files" if refused else "")


def _find_rejection(file: File, task: Task) -> str:
    try:
        read_image(read_file(file), rendering=task.rendering, modalities=task.modalities)
    except Rejected as why:
        return f"{file.name}: {why.reason} {why.detail}".strip()
    return ""


def check_disk(config: Config, footprint: Footprint) -> list[Check]:
    """Check that every folder can be written and that each file system has room for all that is written to it."""
    checks = []
    for room in rooms(config, footprint):
        refused = refuses_writing(Path(room.folder))
        if refused:
            change = f"give {room.key} a folder that can be written"
            checks.append(Check(what=room.key, state=problem, found=f"cannot write: {refused}", change=change))
        elif room.lacking > 0:
            checks.append(Check(what=room.key, state=problem, found=room.description, change=room.change))
        else:
            checks.append(Check(what=room.key, state=ok, found=room.description))
    return checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The bytes that one folder of a run needs; `lacking` is what its disk lacks for all folders of the run that lie on it."""

    key: str
    folder: str
    needed: int
    free: int
    lacking: int

    @property
    def description(self) -> str:
        return f"{self.folder}/ needs about {size(self.needed)}; {size(self.free)} free"

    @property
    def change(self) -> str:
        less = ", or say run.keep=last" if self.key == "paths.runs" else ""
        return f"free {size(self.lacking)}, or give {self.key} another disk{less}"


def rooms(config: Config, footprint: Footprint) -> list[Room]:
    """Compute the need and the room of every folder that a run writes into."""
    needed = disk_needed(config, footprint, slices_there(config) or 0, config.partition.num_sites)
    folders = {
        "paths.prepared": (config.paths.prepared, needed.prepared),
        "paths.sites": (config.paths.sites, needed.sites),
        "paths.runs": (config.paths.runs, needed.runs),
    }
    together: dict[int, int] = {}
    for folder, wanted in folders.values():
        device = free_disk(Path(folder))[0]
        together[device] = together.get(device, 0) + wanted
    found = []
    for key, (folder, wanted) in folders.items():
        device, free = free_disk(Path(folder))
        lacking = together[device] - free if wanted else 0
        found.append(Room(key=key, folder=folder, needed=wanted, free=free, lacking=lacking))
    return found


def check_space(config: Config) -> None:
    """Raise ValueError, before anything is written, when a disk lacks the room for a run; the sentence names the folder."""
    lacking = [room for room in rooms(config, footprint_of(config, of_disk=True)) if room.lacking > 0]
    if lacking:
        most = max(lacking, key=lambda room: room.needed)
        raise ValueError(f"{most.key}: {most.description}; {most.change}")


def check_run_folder(config: Config) -> list[Check]:
    """Check that the run's name is free, or that there is a run to resume."""
    if config.run.name is None:
        return []
    folder = Path(config.paths.runs) / config.run.name
    there = (folder / "manifest.json").exists()
    if folder.exists() and not config.resume:
        try:
            check_run_name(Request(config=config))
        except ValueError as error:
            return [as_problem("run.name", error)]
    if config.resume and not there:
        return [
            Check(
                what="run.name", state=warning, found=f"no run to go on with at {folder}: it starts from the beginning"
            )
        ]
    return [Check(what="run.name", state=ok, found=f"{folder}, {'goes on' if there else 'new'}")]
