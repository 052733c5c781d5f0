"""How patients are dealt to sites, and what a site is made to get wrong."""

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

TEST_SITE = "test-site"  # the name of the held-out site, which no training site may have
NOISE = "partition.noise"
UNANNOTATED = "unannotated"
WIDEST = 4095  # HU, from the least to the greatest that a prepared image holds
OF_NOISE: dict[str, Range] = {
    "labels": Range("0 to 1, a share of training slices", lambda value: 0 <= value <= 1),
    "hu_shift": Range(f"-{WIDEST} to {WIDEST} HU", lambda value: abs(value) <= WIDEST),
    "hu_noise": Range(f"0 to {WIDEST} HU", lambda value: 0 <= value <= WIDEST),
    "blur": Range("0 or more mm", lambda value: 0 <= value < math.inf),
}


class PartitionKind(StrEnum):
    """How fl_rsna itself deals patients to sites; other packages add to these."""

    iid = "iid"
    dirichlet = "dirichlet"
    quantity = "quantity"
    specialist = "specialist"
    scanner = "scanner"
    origin = "origin"
    explicit = "explicit"
    shards = "shards"


class Group(StrEnum):
    """What is dealt as one piece. Anything below a patient lets one patient be in two places: for reproduction only."""

    patient = "patient"
    series = "series"
    slice = "slice"

    @property
    def plural(self) -> str:
        return "series" if self is Group.series else f"{self}s"


class Layout(StrEnum):
    """What a cohort's folder holds beside the sites' folders."""

    standard = "standard"
    s0 = "s0"


def list_partitions() -> list[str]:
    """The ways to deal patients: fl_rsna's own and those of other installed packages."""
    return [*PartitionKind, *sorted(set(find_plugins(PARTITIONERS)) - set(PartitionKind))]


def finds_ids(asked: Asked) -> bool:
    """Original ids are looked up among hashed ones."""
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
    kind: str = declare(PartitionKind.iid.value, "how patients are dealt to sites")
    name: str | None = declare(
        None, "folder under paths.sites; default: data.name, kind, sites and a hash of the settings"
    )
    num_sites: int = declare(
        4,
        "training sites; scanner and origin: at most; explicit: as many as the file names",
        within=at_least(1),
        needs=(CHOSEN_SITES,),
    )
    alpha: float = declare(
        0.5,
        "dirichlet: small is uneven",
        within=above_up_to(0, 1e6, "1e6"),
        needs=(_of_kind(PartitionKind.dirichlet),),
    )
    sigma: float = declare(
        1.0,
        "quantity: of the log-normal of site sizes; 0 is even",
        within=from_to(0, 10),
        needs=(_of_kind(PartitionKind.quantity),),
    )
    lacking: int = declare(
        1,
        "specialist: labels that none of a site's patients has",
        within=at_least(1),
        needs=(_of_kind(PartitionKind.specialist),),
    )
    assignment: str | None = declare(
        None, f"explicit: CSV with the columns patient and site; site {TEST_SITE} is the test site"
    )
    test: Any = declare(
        0.2,
        "share of the patients, name of a dealt site, list of patients, or path of a file of patients",
        within=BETWEEN_0_AND_1,
    )
    folds: int | None = declare(
        None,
        "deal the patients into folds first; fold number `fold` is the test site",
        within=at_least(2).or_null(),
    )
    fold: int = declare(0, "number of the fold that is the test site", within=NOT_NEGATIVE)
    validation: float = declare(0.2, "share of a site's patients on whom models are validated", within=BETWEEN_0_AND_1)
    group: Group = declare(
        Group.patient, "what is dealt as one piece; series and slice leak, to reproduce published splits"
    )
    seed: int = declare(0, "seed by which patients are dealt", within=NOT_NEGATIVE)
    layout: Layout = declare(
        Layout.standard,
        "s0 adds the tables and folders of the RSNA preprocessing S0; cohort/sites/s0_layout.py",
    )
    allow_missing_labels: bool = declare(False, "go on although a label has no positive patient at all")
    noise: dict[str, Any] = declare(
        {}, "site, or all -> labels, hu_shift, hu_noise, blur, unannotated (cohort/sites/noise.py)"
    )


def check_test(value: str | list[Any]) -> None:
    """Refuse a list of patients whose ids are not as they were typed: 1e5 and true are no ids unless quoted."""
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
    """Refuse a table of sites that nothing reads, and folds beside a test site; raises ValueError with the key's path."""
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
    """Refuse what no site can be set to; raises ValueError with the setting's path. Sites are checked once dealt.

    `labels` are the task's, where it is known.
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
    """Refuse labels that the task has not, and a site that annotates none of those it has."""
    unknown = [name for name in named if labels and name not in labels]
    if unknown:
        raise ValueError(f"{key}: expected labels among {', '.join(labels)}, got {unknown[0]}")
    if labels and set(labels) <= set(named):
        raise ValueError(f"{key}: expected one label at least that the site annotates, got all of them")


def check_annotated_task(task: Task, key: str) -> None:
    """Refuse unannotated labels where each says what the others are not."""
    if task.kind is LabelKind.multi_class:
        raise ValueError(
            f"{key}: expected no unannotated labels for task {task.name}, whose classes exclude each other"
        )
