"""Patients to sites. Every function takes patients in sorted order and a generator, and returns a permutation of them."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pandas as pd

from fl_rsna.task import Task

NO_FINDING = "none"
DIRICHLET_TRIES = 1000


class PartitionKind(StrEnum):
    """How patients are dealt to sites."""

    iid = "iid"
    dirichlet = "dirichlet"


def rarest_labels(index: pd.DataFrame, task: Task) -> pd.Series:
    """The rarest positive label of each patient, NO_FINDING without any; indexed by patient in sorted order.

    Rarest is by number of patients; ties go to the label that comes first in the task.
    """
    specific = list(task.specific_labels)
    by_patient = index.groupby(task.group_key, sort=True)[specific].max()
    rarity = by_patient.sum().sort_values(kind="stable").index
    rarest = pd.Series(NO_FINDING, index=by_patient.index)
    for label in reversed(list(rarity)):
        rarest[by_patient[label] == 1] = label
    return rarest


def deal_iid(rarest: pd.Series, num_sites: int, rng: np.random.Generator) -> list[list[str]]:
    """Equal shares of every rarest-label group, as near as the counts allow."""
    order = [patient for group in _shuffled_groups(rarest, rng) for patient in group]
    return [sorted(order[site::num_sites]) for site in range(num_sites)]


def deal_dirichlet(
    rarest: pd.Series, num_sites: int, alpha: float, minimum: int, rng: np.random.Generator
) -> list[list[str]]:
    """Each rarest-label group is dealt by its own draw from Dirichlet(alpha) (Hsu et al. 2019, arXiv:1909.06335).

    Draws are repeated until every site has `minimum` patients; raises ValueError when none of 1,000 has.
    """
    groups = _shuffled_groups(rarest, rng)
    for _ in range(DIRICHLET_TRIES):
        sites: list[list[str]] = [[] for _ in range(num_sites)]
        for group in groups:
            cuts = np.rint(np.cumsum(rng.dirichlet([alpha] * num_sites)) * len(group)).astype(int)
            for site, part in enumerate(np.split(np.array(group, dtype=object), cuts[:-1])):
                sites[site].extend(part)
        if min(map(len, sites)) >= minimum:
            return [sorted(site) for site in sites]
    raise ValueError(
        f"partition.alpha: expected a draw that leaves every site at least {minimum} patients, got none in {DIRICHLET_TRIES} tries "
        f"with alpha={alpha:g}, {num_sites} sites and {len(rarest)} patients; raise partition.alpha or lower partition.num_sites"
    )


def take_stratified(rarest: pd.Series, share: float, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split patients into (taken, left): round(share * n), at least one, spread over the rarest-label groups."""
    order = [patient for group in _shuffled_groups(rarest, rng) for patient in group]
    count = min(max(1, round(share * len(order))), len(order) - 1)
    picked = set(np.floor((np.arange(count) + 0.5) * len(order) / count).astype(int)) if count else set()
    taken = [patient for position, patient in enumerate(order) if position in picked]
    return sorted(taken), sorted(set(order) - set(taken))


def _shuffled_groups(rarest: pd.Series, rng: np.random.Generator) -> Sequence[list[str]]:
    """Patients of each rarest label, shuffled inside it, labels in alphabetical order."""
    return [
        list(rng.permutation(sorted(group.index)))
        for _, group in sorted(rarest.groupby(rarest), key=lambda pair: str(pair[0]))
    ]
