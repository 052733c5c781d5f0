"""The steps before a run, as every command takes them from the configuration."""

import copy
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fl_rsna.choices import Group, Layout, PartitionKind, PrepareEngine
from fl_rsna.cohort.assignment import Known, read_assignment, read_listed
from fl_rsna.cohort.index import Prepared, read_prepared
from fl_rsna.cohort.inputs import find_inputs
from fl_rsna.cohort.noise import SiteNoise, noise_of_sites
from fl_rsna.cohort.partitioners import group_column, rarest_labels
from fl_rsna.cohort.patients import patients_of_numbers
from fl_rsna.cohort.prepared import Request, prepare_folder
from fl_rsna.cohort.s0 import read_unlabelled
from fl_rsna.cohort.sites import Cohort, read_cohort, write_cohort
from fl_rsna.cohort.split import SitePatients, split_patients
from fl_rsna.cohort_name import cohort_name, partition_settings
from fl_rsna.config import TEST_SITE, Config, PartitionConfig, is_demo
from fl_rsna.existing import check_dealt, existing_cohort
from fl_rsna.imaging.phantom import write_cohort as write_phantoms
from fl_rsna.imaging.phantom_chest import write_chest_cohort
from fl_rsna.imaging.workers import Converter, convert_here, convert_local, convert_on_ray
from fl_rsna.ownership import WAIT_S, building_beside, held
from fl_rsna.reading import hashed_json, read_json
from fl_rsna.task import Rendering, Task, annotated_part, named_task

TEST_SET = "{}-test"  # the name of the set without labels that lies beside data.name

Progress = Callable[[str, int, int], None]  # (what, done, total)


def prepare_step(config: Config, on_progress: Progress) -> Iterator[Prepared]:
    """Prepare what data.dicom and data.labels name, then RSNA's stage_2_test beside it as a set without labels.

    Each set is there when it is given; raises ValueError when the request for the next one cannot be met.
    """
    data, task = config.data, named_task(config.data.task)
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
        task=annotated_part(task, data.unannotated),
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
    if is_demo(config):
        return convert_here  # our own files, and few: starting processes would take longer
    match config.prepare.engine:
        case PrepareEngine.local:
            return functools.partial(convert_local, workers=config.prepare.workers)
        case PrepareEngine.ray:
            return functools.partial(convert_on_ray, workers=config.prepare.workers)


def demo_step(config: Config, on_progress: Progress) -> Prepared:
    """Synthetic patients written as DICOM, prepared like any other; the DICOM is deleted afterwards.

    Made once: a process that finds another at it waits, and takes what that one made.
    """
    demo, folder = config.demo, Path(config.paths.prepared) / config.data.name
    with held(folder, wait_s=WAIT_S):
        if os.path.lexists(folder):
            check_demo(config, folder)
            return read_prepared(folder, named_task(config.data.task))
        with building_beside(folder.with_name(f"{folder.name}.dicom")) as building:
            dicom = building / "dicom"
            on_progress("drawing synthetic patients", 0, demo.patients)
            _draw(config, dicom, lambda done: on_progress("drawing synthetic patients", done, demo.patients))
            drawn = copy.deepcopy(config)  # what a run writes down stays as it was asked, so that it can be asked again
            drawn.data.dicom = str(dicom)  # in the layout of the competition, whose tables are found
            (made,) = prepare_step(drawn, on_progress)
        (made.folder / "demo.json").write_bytes(hashed_json(asdict(demo)))
        return made


def _draw(config: Config, dicom: Path, on_patient: Callable[[int], None]) -> None:
    """The task's synthetic cohort, as DICOM with its label tables."""
    demo, workers = config.demo, config.prepare.workers or 2
    match named_task(config.data.task).rendering:
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
    """Refuse to take an earlier demo cohort for the one asked for now."""
    path = folder / "demo.json"
    made = read_json(path, "delete that folder to make it anew") if path.exists() else {}
    for key, value in asdict(config.demo).items():
        if made.get(key, value) != value:
            raise ValueError(
                f"demo.{key}: expected {made[key]}, as {folder} was made with, got {value}; delete that folder to make it anew"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """Who goes where, before anything of it is written."""

    prepared: Prepared
    sites: list[SitePatients]
    noise: dict[str, SiteNoise]


def partition_step(config: Config) -> Cohort:
    """Deal the patients of the prepared data to sites; the same request finds the cohort it made before."""
    found = plan_partition(config)
    if isinstance(found, Cohort):
        return found
    folder = Path(config.paths.sites) / cohort_name(config)
    with held(folder, wait_s=WAIT_S):
        if os.path.lexists(folder):  # another process dealt it while this one waited
            return existing_cohort(folder, config, found.prepared)
        return _write(folder, config, found)


def _write(folder: Path, config: Config, found: Deal) -> Cohort:
    task, part = named_task(config.data.task), config.partition
    beside = found.prepared.folder.with_name(TEST_SET.format(config.data.name))
    unlabelled = read_unlabelled(beside, task) if part.layout is Layout.s0 else None
    settings = partition_settings(config)
    return write_cohort(
        folder, found.prepared, found.sites, task, settings, part.group, found.noise, part.layout, unlabelled
    )


def plan_partition(config: Config) -> Cohort | Deal:
    """The cohort that was dealt by the same request, or what is to be written; raises ValueError when it cannot be dealt."""
    task, part = named_task(config.data.task), config.partition
    prepared = read_prepared(Path(config.paths.prepared) / config.data.name, task)
    _check_labelled(prepared, task)
    folder = Path(config.paths.sites) / cohort_name(config)
    if os.path.lexists(folder):
        return existing_cohort(folder, config, prepared)
    if not part.allow_missing_labels:
        _check_positives(prepared, task)
    return deal_prepared(config, prepared)


def deal_prepared(config: Config, prepared: Prepared) -> Deal:
    """Deal the patients of an index; raises ValueError when they do not suffice, or noise names a site that is not there."""
    task, part = named_task(config.data.task), config.partition
    assignment, test = _who_is_where(config, prepared, task)
    sites = split_patients(
        prepared.index,
        task,
        kind=part.kind,
        num_sites=part.num_sites,
        alpha=part.alpha,
        sigma=part.sigma,
        lacking=part.lacking,
        assignment=assignment,
        test=test,
        folds=part.folds,
        fold=part.fold,
        validation=part.validation,
        group=part.group,
        seed=part.seed,
    )
    noise = noise_of_sites(part.noise, [site.name for site in sites], prepared.image, part.seed)
    return Deal(prepared=prepared, sites=sites, noise=noise)


def _who_is_where(
    config: Config, prepared: Prepared, task: Task
) -> tuple[dict[str, str] | None, float | str | Sequence[str]]:
    """The site of everyone by partition.assignment, and partition.test as a share, a site's name or the ids it lists."""
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
    if part.kind is not PartitionKind.explicit:
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
    """The cohort a run asks for: as it lies on disk, or dealt now.

    What data.dicom names is prepared first, unless it was before; demo data is made when there is none.
    """
    prepared = Path(config.paths.prepared) / config.data.name
    if config.data.dicom is not None:
        check_named(config)
        for _ in prepare_step(config, on_progress):
            pass
    if is_demo(config):
        check_demo(config, prepared) if prepared.exists() else demo_step(config, on_progress)
    folder = Path(config.paths.sites) / cohort_name(config)
    if prepared.exists() or not folder.exists():
        return partition_step(config)
    return cohort_brought(config)


def cohort_brought(config: Config) -> Cohort:
    """A cohort from another machine, without the data it was dealt from; raises ValueError when it is not what is asked for."""
    task, cohort = named_task(config.data.task), read_cohort(Path(config.paths.sites) / cohort_name(config))
    if cohort.task != task.name or cohort.labels != task.labels:
        raise ValueError(
            f"data.task: expected a cohort for task {task.name}, got task {cohort.task} in {cohort.folder}; partition again"
        )
    check_dealt(cohort, config, but=("data",))  # whatever it was called there
    return cohort


def check_named(config: Config) -> None:
    """Refuse the user's own data under the name of the synthetic cohort."""
    if config.data.dicom is not None and is_demo(config):
        raise ValueError(
            f"data.name: expected a name for your data, got {config.data.name}, which stands for the synthetic cohort"
        )


def _check_labelled(prepared: Prepared, task: Task) -> None:
    missing = [label for label in task.labels if label not in prepared.index]
    if missing:
        raise ValueError(
            f"data.name: expected labelled data to deal to sites, got {prepared.folder} without {', '.join(missing)}; "
            "prepare it with data.labels"
        )


def _check_positives(prepared: Prepared, task: Task) -> None:
    """Refuse a label without a positive patient: nothing can be learned or measured about it."""
    missing = [label for label in task.labels if not prepared.index[label].any()]
    if missing:
        raise ValueError(
            f"data.name: expected positives of every label in {prepared.folder}, got none for {', '.join(missing)} "
            f"among {len(rarest_labels(prepared.index, task))} patients; use other data or set partition.allow_missing_labels=true"
        )
