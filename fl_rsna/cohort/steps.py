"""Carry out the steps before a run from the configuration: prepare the data, then partition them or take an existing one.

A cohort that was made before is found by its name or by its settings. A cohort with other settings is refused.
"""

import copy
import functools
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from fl_rsna.cohort.partition.assignment import Known, read_assignment, read_listed
from fl_rsna.cohort.partition.partitioners import find_positive, group_column
from fl_rsna.cohort.partition.split import SitePatients, split_patients
from fl_rsna.cohort.prepared.index import Prepared, read_prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.patients import patients_of_numbers
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.cohort.sites.noise import SiteNoise, noise_of_sites
from fl_rsna.cohort.sites.s0_layout import read_unlabelled
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort, write_cohort
from fl_rsna.common.ownership import WAIT_S, build_beside, hold_lock
from fl_rsna.common.reading import dump_hashed_json, read_json, refuse_unreadable
from fl_rsna.imaging.workers import Converter, convert_here, convert_local, convert_on_ray
from fl_rsna.phantom.chest.cohort import write_chest_cohort
from fl_rsna.phantom.head.cohort import write_cohort as write_phantoms
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import PrepareEngine, is_demo
from fl_rsna.settings.partition import TEST_SITE, Group, Layout, PartitionConfig, PartitionKind
from fl_rsna.task import LabelKind, Rendering, Task, find_task, restrict_task

FILES = "files_sha256"  # key of the hashes of files in the settings of a cohort
TEST_SET = "{}-test"  # name of the set without labels beside data.name
Progress = Callable[[str, int, int], None]  # (what, done, total)


def cohort_name(config: Config) -> str:
    """Return the name of the cohort's folder: partition.name, or a name with a hash of every setting that changes the partition."""
    part = config.partition
    if part.name is not None:
        return part.name
    settings = partition_settings(config)
    plain = PartitionConfig()
    unused = {key for key in ("noise", "layout") if getattr(part, key) == getattr(plain, key)}  # not in the hash
    left_out = {"name", FILES, *unused}
    what = {key: value for key, value in settings.items() if key not in left_out} | settings[FILES]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]
    count = "" if part.kind == PartitionKind.explicit else f"{part.num_sites}-"
    return f"{config.data.name}-{part.kind}-{count}{digest}"


def partition_settings(config: Config) -> dict[str, Any]:
    """Collect the settings that cohort.json records; files are recorded by the hash of their content, too."""
    part = config.partition
    plain = {key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(part).items()}
    files = {
        key: path for key in ("assignment", "test") if isinstance(path := plain[key], str) and Path(path).is_file()
    }
    digests = {key: hashlib.sha256(Path(path).read_bytes()).hexdigest() for key, path in files.items()}
    return {"data": config.data.name, **plain, FILES: digests}


def adopt_cohort(config: Config) -> None:
    """Take the settings of the cohort partition.name or, without a name, of the only cohort made of data.name.

    Called where the user did not say how to assign patients, so that `simulate data.name=<name>` after `partition` with settings does not make
    another cohort. Changes `config`. Raises ValueError when there are several cohorts to choose from.
    """
    named, sites = config.partition.name, Path(config.paths.sites)
    if named is None and (is_demo(config.data) or (sites / cohort_name(config)).exists()):
        return
    paths = [path.parent for path in sorted(sites.glob(f"{named or '*'}/cohort.json"))]
    found = [read_cohort(path) for path in paths if path.suffix != ".part"]
    suited = [cohort for cohort in found if named or cohort.facts["settings"].get("data") == config.data.name]
    if len(suited) > 1:
        names = ", ".join(cohort.name for cohort in suited)
        raise ValueError(
            f"partition.name: expected one cohort of {config.data.name} to take, got {names}; choose one with partition.name="
        )
    for cohort in suited:
        known = {field.name for field in fields(PartitionConfig)}
        settings = {key: value for key, value in cohort.facts["settings"].items() if key in known}
        with refuse_unreadable(cohort.folder / "cohort.json", "the settings it was made with", "partition again"):
            choices = {"group": Group(settings["group"]), "layout": Layout(settings["layout"])}
        config.partition = PartitionConfig(**{**settings, **choices, "name": cohort.name})


def reuse_cohort(folder: Path, config: Config, prepared: Prepared) -> Cohort:
    """Read the cohort in `folder`. Raises ValueError unless it was made of the same data with the same settings."""
    cohort = read_cohort(folder)
    if cohort.facts["prepared"]["index_sha256"] != prepared.index_sha256:
        raise ValueError(
            f"partition.name: {folder} was made from other data than {prepared.folder} holds now; delete it to partition again, or choose "
            "another partition.name"
        )
    check_cohort_settings(cohort, config)
    return cohort


def check_cohort_settings(cohort: Cohort, config: Config, but: Collection[str] = ()) -> None:
    """Raise ValueError for a cohort that was made with other settings than `config` has; those in `but` are not compared."""
    asked, made = partition_settings(config), cohort.facts["settings"]

    def same(key: str) -> bool:
        """Compare one setting, by content where both values are files."""
        ours, theirs = asked[FILES], made.get(FILES, {})
        both_files = key in ours and key in theirs
        return bool(ours[key] == theirs[key] if both_files else key in made and asked[key] == made[key])

    changed = sorted(key for key in asked if key not in ("name", FILES, *but) and not same(key))
    if changed:
        raise ValueError(
            f"partition.name: {cohort.folder} was made with other settings ({', '.join('partition.' + key for key in changed)} differ); "
            "choose another partition.name or delete it"
        )


def prepare_step(config: Config, on_progress: Progress) -> Iterator[Prepared]:
    """Prepare the files of data.dicom with data.labels, then the test set beside them as a set without labels.

    Yields each set when it is finished. Raises ValueError when the request for the next one cannot be met.
    """
    data, task = config.data, find_task(config.data.task)
    if data.dicom is None:
        raise ValueError(
            "data.dicom: expected a folder, archive or list, got nothing; give data.dicom=<folder> data.labels=<csv> data.name=<name>"
        )
    inputs = find_inputs(
        Path(data.dicom),
        Path(data.labels) if data.labels is not None else None,
        task,
        unlabelled=data.unlabelled,
        test_set=data.test_set,
        unannotated=data.unannotated,
    )
    request = Request(
        task=restrict_task(task, data.unannotated),
        image=data.image,
        size=data.size,
        hash_ids=data.hash_ids,
        salt=data.salt,
    )
    sets = [(data.name, inputs.files, inputs.labels), (TEST_SET.format(data.name), inputs.test_files, None)]
    for name, files, labels in sets:
        if files:
            yield prepare_folder(
                Path(config.paths.prepared) / name,
                request,
                files,
                labels,
                max_rejected=data.max_rejected,
                convert=_converter(config),
                on_progress=functools.partial(on_progress, f"preparing {name}"),
            )


def _converter(config: Config) -> Converter:
    """Choose where files are converted: in this process for the few of the demo, else as prepare.engine says."""
    if is_demo(config.data):
        return convert_here  # they are few: starting processes would take longer
    match config.prepare.engine:
        case PrepareEngine.local:
            return functools.partial(convert_local, workers=config.prepare.workers)
        case PrepareEngine.ray:
            return functools.partial(convert_on_ray, workers=config.prepare.workers)


def demo_step(config: Config, on_progress: Progress) -> Prepared:
    """Draw synthetic patients as DICOM files, prepare them like any others, and delete the DICOM files.

    A process that finds another one making the demo waits, and takes what that one made. Raises ValueError where a demo with other
    settings exists.
    """
    demo, folder = config.demo, Path(config.paths.prepared) / config.data.name
    with hold_lock(folder, wait_s=WAIT_S):
        if os.path.lexists(folder):
            check_demo(config, folder)
            return read_prepared(folder, find_task(config.data.task))
        with build_beside(folder.with_name(f"{folder.name}.dicom")) as building:
            dicom = building / "dicom"
            on_progress("drawing synthetic patients", 0, demo.patients)
            _draw(config, dicom, lambda done: on_progress("drawing synthetic patients", done, demo.patients))
            drawn = copy.deepcopy(config)  # a copy: the run records the settings as they were typed
            drawn.data.dicom = str(dicom)  # in a published layout, so that its label tables are found
            (made,) = prepare_step(drawn, on_progress)
        (made.folder / "demo.json").write_bytes(dump_hashed_json(asdict(demo)))
        return made


def _draw(config: Config, dicom: Path, on_patient: Callable[[int], None]) -> None:
    """Write the task's synthetic cohort as DICOM files with label tables."""
    demo, workers = config.demo, config.prepare.workers or 2
    match find_task(config.data.task).rendering:
        case Rendering.hounsfield:
            write_phantoms(
                dicom,
                patients=demo.patients,
                seed=demo.seed,
                size=demo.size,
                slices_per_series=demo.slices_per_series,
                workers=workers,
                on_progress=on_patient,
            )
        case Rendering.radiograph:
            write_chest_cohort(
                dicom, patients=demo.patients, seed=demo.seed, size=demo.size, workers=workers, on_progress=on_patient
            )


def check_demo(config: Config, folder: Path) -> None:
    """Raise ValueError where the prepared demo in `folder` was made with other settings than `config.demo`."""
    path = folder / "demo.json"
    made = read_json(path, "delete that folder to make it again") if path.exists() else {}
    for key, value in asdict(config.demo).items():
        if made.get(key, value) != value:
            raise ValueError(
                f"demo.{key}: expected {made[key]}, as {folder} was made with, got {value}; delete that folder to make it again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortPlan:
    """A cohort before it is written: the patients of each site, and the sites' simulated errors."""

    prepared: Prepared
    sites: list[SitePatients]
    noise: dict[str, SiteNoise]


def partition_step(config: Config) -> Cohort:
    """Assign the patients of the prepared data to sites and write the cohort; the same request finds the cohort it made before."""
    found = plan_partition(config)
    if isinstance(found, Cohort):
        return found
    folder = Path(config.paths.sites) / cohort_name(config)
    with hold_lock(folder, wait_s=WAIT_S):
        if os.path.lexists(folder):  # another process made it while this one waited
            return reuse_cohort(folder, config, found.prepared)
        task, part, settings = find_task(config.data.task), config.partition, partition_settings(config)
        beside = found.prepared.folder.with_name(TEST_SET.format(config.data.name))
        unlabelled = read_unlabelled(beside, task) if part.layout is Layout.s0 else None
        return write_cohort(
            folder, found.prepared, found.sites, task, settings, part.group, found.noise, part.layout, unlabelled
        )


def plan_partition(config: Config) -> Cohort | CohortPlan:
    """Return the cohort that the same request made before, or the plan of the one to write.

    Raises ValueError when the data have no labels, no positives of the headline label or none in a training part, and when they cannot
    be divided. Other labels may lack positives: cohort/sites/absent_labels.py says what cannot be known then.
    """
    task = find_task(config.data.task)
    prepared = read_prepared(Path(config.paths.prepared) / config.data.name, task)
    if unlabelled := [label for label in task.labels if label not in prepared.index]:
        raise ValueError(
            f"data.name: expected labelled data to assign to sites, got {prepared.folder} without {', '.join(unlabelled)}; "
            "prepare it with data.labels"
        )
    folder = Path(config.paths.sites) / cohort_name(config)
    if os.path.lexists(folder):
        return reuse_cohort(folder, config, prepared)
    present = [label for label in task.labels if prepared.index[label].any()]
    if task.kind is LabelKind.multi_label and task.headline not in present:
        raise ValueError(
            f"data.name: expected images with the label {task.headline}, without which nothing can be learned, got none of "
            f"{len(prepared.index)} in {prepared.folder}; add positive exams, or score these with python -m fl_rsna.evaluate"
        )
    if task.kind is LabelKind.multi_class and len(present) < 2:
        raise ValueError(
            f"data.name: expected images of two classes or more, got only {', '.join(present) or 'none'} in {prepared.folder}; "
            "add images of another class"
        )
    plan, part = plan_sites(config, prepared), config.partition
    positive = find_positive(prepared.index, task, group_column(part.group, task))
    if task.kind is LabelKind.multi_label and not any(positive.intersection(site.train) for site in plan.sites):
        raise ValueError(
            f"partition.test: expected {part.group.plural} with the label {task.headline} in a training part, got none: all "
            f"{len(positive)} are in the test site or in validation; hold out others, or say partition.seed={part.seed + 1}"
        )
    return plan


def plan_sites(config: Config, prepared: Prepared) -> CohortPlan:
    """Assign the patients of prepared data to sites. Raises ValueError when they are too few, or partition.noise names an unknown site."""
    task, part = find_task(config.data.task), config.partition
    assignment, test = _who_is_where(config, prepared, task)
    sites = split_patients(prepared.index, task, replace(part, test=test), assignment)
    noise = noise_of_sites(part.noise, [site.name for site in sites], prepared.image, part.seed)
    return CohortPlan(prepared=prepared, sites=sites, noise=noise)


def _who_is_where(
    config: Config, prepared: Prepared, task: Task
) -> tuple[dict[str, str] | None, float | str | Sequence[str]]:
    """Read the site of every patient from partition.assignment, and partition.test as a share, a site's name or a list of ids.

    Raises ValueError for explicit sites without an assignment, and for two choices of the test site.
    """
    part, test = config.partition, config.partition.test
    ids = frozenset(prepared.index[group_column(part.group, task)].unique())
    known = Known(
        ids=ids,
        group=part.group,
        salt=config.data.salt if config.data.hash_ids else None,
        of_number=patients_of_numbers(prepared.index) if part.group is Group.patient else {},
    )
    if isinstance(test, list) or (isinstance(test, str) and Path(test).is_file()):
        test = read_listed(test, known)
    if part.kind != PartitionKind.explicit:
        return None, test
    if part.assignment is None:
        raise ValueError(
            f"partition.assignment: expected a CSV with the columns {part.group},site for explicit sites, got nothing"
        )
    assignment = read_assignment(Path(part.assignment), known)
    held_out = [id_ for id_, site in assignment.items() if site == TEST_SITE]
    if not held_out:
        return assignment, test
    if part.test != PartitionConfig().test or part.folds is not None:
        key = "test" if part.folds is None else "folds"
        raise ValueError(
            f"partition.{key}: expected nothing beside the {TEST_SITE} of {part.assignment}, "
            f"got {getattr(part, key)}; leave one of them out"
        )
    return {id_: site for id_, site in assignment.items() if site != TEST_SITE}, held_out


def cohort_for_run(config: Config, on_progress: Progress) -> Cohort:
    """Return the cohort that a run asks for: an existing one, or one that is made now.

    Files of data.dicom are prepared first, unless they were before. The demo is made when it does not exist yet.
    """
    prepared = Path(config.paths.prepared) / config.data.name
    if config.data.dicom is not None:
        check_named(config)
        for _ in prepare_step(config, on_progress):
            pass
    if is_demo(config.data):
        check_demo(config, prepared) if prepared.exists() else demo_step(config, on_progress)
    folder = Path(config.paths.sites) / cohort_name(config)
    if prepared.exists() or not folder.exists():
        return partition_step(config)
    return cohort_brought(config)


def cohort_brought(config: Config) -> Cohort:
    """Read a cohort from another machine, without the data it was made of. Raises ValueError when it has another task or settings."""
    task, cohort = find_task(config.data.task), read_cohort(Path(config.paths.sites) / cohort_name(config))
    if cohort.task != task.name or cohort.labels != task.labels:
        raise ValueError(
            f"data.task: expected a cohort for task {task.name}, got task {cohort.task} in {cohort.folder}; partition again"
        )
    check_cohort_settings(cohort, config, but=("data",))  # the prepared set may have another name there
    return cohort


def check_named(config: Config) -> None:
    """Raise ValueError for the user's own data under the name of the synthetic cohort."""
    if config.data.dicom is not None and is_demo(config.data):
        raise ValueError(
            f"data.name: expected a name for your data, got {config.data.name}, which stands for the synthetic cohort"
        )
