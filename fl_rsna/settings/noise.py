"""What `partition.noise` may say of a site: names, ranges, and the labels that a site leaves unannotated."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fl_rsna.settings.config import TEST_SITE
from fl_rsna.task import LabelKind, Task

KEY = "partition.noise"
UNANNOTATED = "unannotated"
WIDEST = 4095  # HU, from the least to the greatest that a prepared image holds
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "labels": ("0 to 1, a share of training slices", lambda value: 0 <= value <= 1),
    "hu_shift": (f"-{WIDEST} to {WIDEST} HU", lambda value: abs(value) <= WIDEST),
    "hu_noise": (f"0 to {WIDEST} HU", lambda value: 0 <= value <= WIDEST),
    "blur": ("0 or more mm", lambda value: 0 <= value < math.inf),
}


def check_noise(asked: Mapping[str, Any], key: str = KEY, labels: Sequence[str] = ()) -> None:
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
            if name not in RANGES:
                known = ", ".join((*RANGES, UNANNOTATED))
                raise ValueError(f"{key}.{site}.{name}: no such setting; expected one of {known}")
            expected, rule = RANGES[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not rule(value):
                raise ValueError(f"{key}.{site}.{name}: expected {expected}, got {value}")
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
