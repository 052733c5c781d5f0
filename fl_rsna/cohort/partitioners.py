"""Patients to sites. Every function takes patients in sorted order and a generator, and returns a permutation of them.

What is dealt is a group of slices that stay together: a patient, unless another `Group` is asked for by name.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.choices import Group
from fl_rsna.task import Task

NO_FINDING = "none"
DIRICHLET_TRIES = 1000


def group_column(group: Group, task: Task) -> str:
    """The index column whose values are dealt."""
    match group:
        case Group.patient:
            return task.group_key
        case Group.series:
            return "series_id"
        case Group.slice:
            return "image_id"


def findings(index: pd.DataFrame, task: Task, group: Group = Group.patient) -> pd.DataFrame:
    """0 or 1 for each patient (rows, sorted) and each specific label of the task (columns)."""
    return index.groupby(group_column(group, task), sort=True)[list(task.specific_labels)].max()


def rarest_labels(index: pd.DataFrame, task: Task) -> pd.Series:
    """The rarest positive label of each patient, NO_FINDING without any; indexed by patient in sorted order."""
    return rarest_finding(findings(index, task))


def rarest_finding(found: pd.DataFrame) -> pd.Series:
    """The same of a table of findings. Rarest is by number of patients; ties go to the label that comes first."""
    rarest = pd.Series(NO_FINDING, index=found.index)
    for label in reversed(list(found.sum().sort_values(kind="stable").index)):
        rarest[found[label] == 1] = label
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


def deal_quantity(
    rarest: pd.Series, num_sites: int, sigma: float, minimum: int, rng: np.random.Generator
) -> list[list[str]]:
    """Sites of uneven size and even labels: sizes are as exp(sigma * z), z standard normal, above the `minimum`.

    Each site takes its patients at equal distances from the patients in order of their rarest label.
    """
    order = [patient for group in _shuffled_groups(rarest, rng) for patient in group]
    drawn = rng.standard_normal(num_sites)
    weights = np.exp(sigma * (drawn - drawn.max()))
    sizes = minimum + _whole_shares(weights, len(order) - minimum * num_sites)
    turns = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    taker = np.repeat(np.arange(num_sites), sizes)[np.argsort(turns, kind="stable")]
    patients = np.array(order, dtype=object)
    return [sorted(patients[taker == site]) for site in range(num_sites)]


def deal_shards(rarest: pd.Series, num_sites: int) -> list[list[str]]:
    """Contiguous cuts of the sorted patients, unshuffled."""
    return [list(part) for part in np.array_split(np.array(rarest.index, dtype=object), num_sites)]


def take_stratified(rarest: pd.Series, share: float, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split patients into (taken, left): round(share * n), at least one, spread over the rarest-label groups."""
    return take_count(rarest, min(max(1, round(share * len(rarest))), len(rarest) - 1), rng)


def take_count(rarest: pd.Series, count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split patients into (taken, left): `count` of them, spread over the rarest-label groups."""
    order = [patient for group in _shuffled_groups(rarest, rng) for patient in group]
    picked = set(np.floor((np.arange(count) + 0.5) * len(order) / count).astype(int)) if count > 0 else set()
    taken = [patient for position, patient in enumerate(order) if position in picked]
    return sorted(taken), sorted(set(order) - set(taken))


def _shuffled_groups(rarest: pd.Series, rng: np.random.Generator) -> Sequence[list[str]]:
    """Patients of each rarest label, shuffled inside it, labels in alphabetical order."""
    return [
        list(rng.permutation(sorted(group.index)))
        for _, group in sorted(rarest.groupby(rarest), key=lambda pair: str(pair[0]))
    ]


def _whole_shares(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """`total` in whole numbers proportional to `weights`, by largest remainder."""
    exact = weights / weights.sum() * total
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole
