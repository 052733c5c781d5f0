"""Settings of the partition: how patients are assigned to sites, and which errors of labels and scanners are simulated."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fl_rsna.common.plugins import PARTITIONERS, find_plugin, find_plugins
from fl_rsna.settings.fields import NOT_NEGATIVE, Asked, Need, Range, above_up_to, at_least, declare, from_to
from fl_rsna.task import LabelKind, Task

SITE_NAME = re.compile(r"\w(?:[\w .-]{0,58}\w)?")  # a site's name, which is also the name of its folder
TEST_SITE = "test-site"  # the name of the held-out site, which no training site may have
NOISE = "partition.noise"
UNANNOTATED = "unannotated"
WIDEST = 4095  # HU: the difference between the largest and the smallest value of a prepared image
OF_NOISE: dict[str, Range] = {
    "labels": Range("0 to 1, a share of training slices", lambda value: 0 <= value <= 1),
    "hu_shift": Range(f"-{WIDEST} to {WIDEST} HU", lambda value: abs(value) <= WIDEST),
    "hu_noise": Range(f"0 to {WIDEST} HU", lambda value: 0 <= value <= WIDEST),
    "blur": Range("0 or more mm", lambda value: 0 <= value < math.inf),
}


class PartitionKind(StrEnum):
    """fl_rsna's own ways to assign patients to sites. Other packages may add some."""

    iid = "iid"
    dirichlet = "dirichlet"
    quantity = "quantity"
    specialist = "specialist"
    scanner = "scanner"
    origin = "origin"
    explicit = "explicit"
    shards = "shards"


class Group(StrEnum):
    """The unit that is assigned to a site. With series or slices one patient can be at two places; they exist only to reproduce published splits."""

    patient = "patient"
    series = "series"
    slice = "slice"

    @property
    def plural(self) -> str:
        """The plural of the unit, for messages."""
        return "series" if self is Group.series else f"{self}s"


class Layout(StrEnum):
    """The files that a cohort's folder holds beside the sites' folders: `s0` adds those of the reference implementation (S0)."""

    standard = "standard"
    s0 = "s0"


def list_partitions() -> list[str]:
    """List the names of all partitioners: fl_rsna's own, then those of other installed packages in alphabetical order."""
    return [*PartitionKind, *sorted(set(find_plugins(PARTITIONERS)) - set(PartitionKind))]


def finds_ids(asked: Asked) -> bool:
    """Say whether the settings name patients, whose ids are looked up in the prepared set."""
    part: PartitionConfig = asked.config.partition
    return part.kind == PartitionKind.explicit or isinstance(part.test, list | str)


def _of_kind(kind: PartitionKind) -> Need:
    return Need(f"partition={kind}", lambda asked: asked.config.partition.kind == kind)


CHOSEN_SITES = Need(
    "sites to choose: partition=explicit has as many as the file names",
    lambda asked: asked.config.partition.kind != PartitionKind.explicit,
)
BETWEEN_0_AND_1 = Range("between 0 and 1", lambda value: 0 < value < 1)


@dataclass(kw_only=True, slots=True)
class PartitionConfig:
    """Settings of how a prepared set is split into sites."""

    kind: str = declare(PartitionKind.iid.value, "how patients are assigned to sites")
    name: str | None = declare(
        None, "folder under paths.sites; default: data.name, kind, sites and a hash of the settings"
    )
    num_sites: int = declare(
        4,
        "number of training sites; scanner and origin: the largest number; explicit: the file decides",
        within=at_least(1),
        needs=(CHOSEN_SITES,),
    )
    alpha: float = declare(
        0.5,
        "dirichlet: concentration; the smaller, the more the sites' labels differ",
        within=above_up_to(0, 1e6, "1e6"),
        needs=(_of_kind(PartitionKind.dirichlet),),
    )
    sigma: float = declare(
        1.0,
        "quantity: sigma of the log-normal distribution of site sizes; 0 makes them equal",
        within=from_to(0, 10),
        needs=(_of_kind(PartitionKind.quantity),),
    )
    lacking: int = declare(
        1,
        "specialist: number of labels that no patient of a site has",
        within=at_least(1),
        needs=(_of_kind(PartitionKind.specialist),),
    )
    assignment: str | None = declare(
        None, f"explicit: CSV with the columns patient and site; site {TEST_SITE} is the test site"
    )
    test: Any = declare(
        0.2,
        "test site: a share of the patients, the name of one of the sites, a list of patients, or a file of patients",
        within=BETWEEN_0_AND_1,
    )
    folds: int | None = declare(
        None,
        "number of folds that the patients are first divided into; one of them, `fold`, is the test site",
        within=at_least(2).or_null(),
    )
    fold: int = declare(0, "fold that is the test site, from 0", within=NOT_NEGATIVE)
    validation: float = declare(0.2, "share of a site's patients that is kept for validation", within=BETWEEN_0_AND_1)
    group: Group = declare(
        Group.patient,
        "unit that is assigned; series and slice put one patient at several places, only to reproduce published splits",
    )
    seed: int = declare(0, "seed of the split", within=NOT_NEGATIVE)
    layout: Layout = declare(
        Layout.standard,
        "files beside the sites' folders; s0 adds the tables and folders of the reference implementation (S0; cohort/sites/s0_layout.py)",
    )
    noise: dict[str, Any] = declare(
        {},
        "simulated errors by site, or for all: labels, hu_shift, hu_noise, blur, unannotated (cohort/sites/noise.py)",
    )


def check_test(value: str | list[Any]) -> None:
    """Raise ValueError for a partition.test that is empty, a quoted number, or a list with values that are no ids.

    YAML reads 1e5 and true as a number and a boolean; as ids they must be quoted.
    """
    if (
        isinstance(value, str)
        and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value)
        and not Path(value).is_file()
    ):
        raise ValueError(f"partition.test: expected a share without quotes, got {value!r}; say partition.test={value}")
    if not value:
        raise ValueError("partition.test: expected a share, a site, a list of patients or a file of them, got nothing")
    for item in value if isinstance(value, list) else ():
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(
                f"partition.test: expected ids, got {item}, which is none; quote it: partition.test=[\"'...'\"]"
            )


def check_partition(part: PartitionConfig) -> None:
    """Raise ValueError for an unknown partitioner, an assignment that is not read, and folds that do not fit the other settings."""
    if part.kind not in list_partitions():
        raise ValueError(
            f"partition.kind: expected one of {', '.join(list_partitions())}, got {part.kind!r}; choose one of them"
        )
    find_plugin(PARTITIONERS, part.kind, "partition.kind", is_ours=part.kind in list(PartitionKind))
    if part.assignment is not None and part.kind != PartitionKind.explicit:
        raise ValueError(
            f"partition.assignment: expected nothing with {part.kind} sites, got {part.assignment}; say partition=explicit"
        )
    if part.folds is None:
        if part.fold != 0:
            raise ValueError(f"partition.fold: expected partition.folds beside it, got fold {part.fold} of nothing")
        return
    if part.fold >= part.folds:
        raise ValueError(f"partition.fold: expected 0 to {part.folds - 1} of {part.folds} folds, got {part.fold}")
    if part.test != PartitionConfig().test:
        raise ValueError(
            f"partition.test: expected nothing beside partition.folds, whose fold is the test site, got {part.test}; leave one out"
        )


def check_noise(asked: Mapping[str, Any], key: str = NOISE, labels: Sequence[str] = ()) -> None:
    """Raise ValueError for simulated errors that are unknown or out of range. Names of sites are checked later, when the sites are made.

    `labels` are those of the task; without any, the names of unannotated labels are not checked.
    """
    for site, settings in asked.items():
        if not isinstance(settings, Mapping):
            raise ValueError(f"{key}.{site}: expected settings such as {{labels: 0.2}}, got {settings!r}")
        for name, value in settings.items():
            if name == UNANNOTATED:
                _check_unannotated(value, f"{key}.{site}.{name}", site, labels)
                continue
            if name not in OF_NOISE:
                known = ", ".join((*OF_NOISE, UNANNOTATED))
                raise ValueError(f"{key}.{site}.{name}: no such setting; expected one of {known}")
            within = OF_NOISE[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not within.holds(value):
                raise ValueError(f"{key}.{site}.{name}: expected {within}, got {value}")
    if asked.get(TEST_SITE, {}).get("labels"):
        raise ValueError(
            f"{key}.{TEST_SITE}.labels: expected true labels where models are scored, "
            f"got {asked[TEST_SITE]['labels']}; leave it out"
        )


def _check_unannotated(value: Any, key: str, site: str, labels: Sequence[str]) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key}: expected a list of labels, got {value}")
    check_unannotated(value, key, labels)
    if site == TEST_SITE and value:
        raise ValueError(
            f"{key}: expected every label where models are scored, got all but {', '.join(value)}; leave it out"
        )


def check_unannotated(named: Sequence[str], key: str, labels: Sequence[str]) -> None:
    """Raise ValueError for unannotated labels that the task lacks, and when they are all of the task's labels."""
    unknown = [name for name in named if labels and name not in labels]
    if unknown:
        raise ValueError(f"{key}: expected labels among {', '.join(labels)}, got {unknown[0]}")
    if labels and set(labels) <= set(named):
        raise ValueError(f"{key}: expected one label at least that the site annotates, got all of them")


def check_annotated_task(task: Task, key: str) -> None:
    """Raise ValueError for unannotated labels in a task of classes, which exclude each other."""
    if task.kind is LabelKind.multi_class:
        raise ValueError(
            f"{key}: expected no unannotated labels for task {task.name}, whose classes exclude each other"
        )
