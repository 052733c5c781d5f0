"""Divide patients among sites: at random, by label, by size, by scanner or origin, or so that sites lack labels.

The unit that is assigned is a patient, or the series or slice of another `Group`. Every function takes the units in sorted order and a
generator, and returns each of them exactly once.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.settings.partition import Group
from fl_rsna.task import Task

NaturalSite = tuple[tuple[str, ...], list[str]]
"""A site by a column: the values that belong to it, and its patients, sorted."""

NO_FINDING = "none"
DIRICHLET_TRIES = 1000
TRIES = 200  # orders of labels that assign_specialist tries
Flags = NDArray[np.bool_]


def natural_sites(index: pd.DataFrame, key: str, column: str, num_sites: int) -> list[NaturalSite]:
    """Make sites of patients with the same value of `column`: the `num_sites` - 1 largest groups, then all others as the last site.

    With no more groups than sites, every group is a site. The largest comes first; equal ones are in alphabetical order. Raises ValueError
    when the column is missing, empty for a patient, or has only one value.
    """
    values = _most_frequent(index, key, column)
    groups: list[NaturalSite] = [((str(value),), sorted(part.index)) for value, part in values.groupby(values)]
    groups.sort(key=lambda group: (-len(group[1]), group[0]))
    if len(groups) < 2:
        raise ValueError(
            f"partition.kind: expected 2 or more values of {column} to make sites of, got only {groups[0][0][0]!r}; "
            "use another partition"
        )
    if num_sites < 2:
        raise ValueError(
            f"partition.num_sites: expected 2 or more sites by {column}, got {num_sites}, which would put all {len(groups)} "
            "groups into one; raise it"
        )
    if len(groups) <= num_sites:
        return groups
    rest = groups[num_sites - 1 :]
    joined = (
        tuple(sorted(value for made_of, _ in rest for value in made_of)),
        sorted(patient for _, part in rest for patient in part),
    )
    return [*groups[: num_sites - 1], joined]


def _most_frequent(index: pd.DataFrame, key: str, column: str) -> pd.Series:
    """Find the value on most of a patient's slices, without empty ones; of equal ones the first in alphabetical order.

    Raises ValueError when the column is missing, or a patient has no value.
    """
    if column not in index:
        raise ValueError(
            f"partition.kind: expected the column {column} in index.parquet, got none; prepare the data again"
        )
    said = index.loc[index[column].notna() & (index[column] != ""), [key, column]].astype({column: str})
    counted = said.groupby([key, column], sort=True).size().rename("slices").reset_index()
    ordered = counted.sort_values([key, "slices", column], ascending=[True, False, True], kind="stable")
    values = ordered.drop_duplicates(key).set_index(key)[column]
    silent = sorted(set(index[key]) - set(values.index))
    if silent:
        raise ValueError(
            f"partition.kind: expected {column} of every patient, got none for {len(silent)} of {index[key].nunique()} "
            f"(first: {silent[0]}); use another partition, or say where each patient is with partition=explicit"
        )
    return values


def group_column(group: Group, task: Task) -> str:
    """Return the column of the index whose values are assigned to sites."""
    match group:
        case Group.patient:
            return task.group_key
        case Group.series:
            return "series_id"
        case Group.slice:
            return "image_id"


def findings(index: pd.DataFrame, task: Task, group: Group = Group.patient) -> pd.DataFrame:
    """Find whether each patient (rows, sorted) has each specific label of the task (columns): 0 or 1."""
    return index.groupby(group_column(group, task), sort=True)[list(task.specific_labels)].max()


def find_positive(index: pd.DataFrame, task: Task, key: str) -> frozenset[str]:
    """Find the patients, by their id in the column `key`, who have the task's headline label on an image at least."""
    return frozenset(index.loc[index[task.headline] == 1, key])


def rarest_labels(index: pd.DataFrame, task: Task) -> pd.Series:
    """Find the rarest positive label of each patient, NO_FINDING without any; indexed by patient in sorted order."""
    return rarest_finding(findings(index, task))


def rarest_finding(found: pd.DataFrame) -> pd.Series:
    """Find the rarest positive label of each patient in a table of findings, NO_FINDING without any.

    The rarest label is the one of fewest patients; of equal ones the first column.
    """
    rarest = pd.Series(NO_FINDING, index=found.index)
    for label in reversed(list(found.sum().sort_values(kind="stable").index)):
        rarest[found[label] == 1] = label
    return rarest


def assign_iid(rarest: pd.Series, num_sites: int, rng: np.random.Generator) -> list[list[str]]:
    """Assign patients at random, so that each site gets an equal share of every rarest-label group, as near as the counts allow."""
    order = [patient for group in _shuffle_groups(rarest, rng) for patient in group]
    return [sorted(order[site::num_sites]) for site in range(num_sites)]


def assign_dirichlet(
    rarest: pd.Series, num_sites: int, alpha: float, minimum: int, rng: np.random.Generator
) -> list[list[str]]:
    """Assign each rarest-label group by its own draw from Dirichlet(alpha) (Hsu et al. 2019, arXiv:1909.06335).

    Draws are repeated until every site has `minimum` patients. Raises ValueError when none of 1,000 draws does.
    """
    groups = _shuffle_groups(rarest, rng)
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


def assign_quantity(
    rarest: pd.Series, num_sites: int, sigma: float, minimum: int, rng: np.random.Generator
) -> list[list[str]]:
    """Assign patients to sites of different size with equal shares of labels.

    Beyond the `minimum`, sizes are proportional to exp(sigma * z), z standard normal, rounded by largest remainder. Each site takes its
    patients at equal distances from the list of patients in order of their rarest label.
    """
    order = [patient for group in _shuffle_groups(rarest, rng) for patient in group]
    drawn = rng.standard_normal(num_sites)
    weights = np.exp(sigma * (drawn - drawn.max()))
    total = len(order) - minimum * num_sites
    exact = weights / weights.sum() * total
    sizes: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    sizes += minimum
    turns = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    taker = np.repeat(np.arange(num_sites), sizes)[np.argsort(turns, kind="stable")]
    patients = np.array(order, dtype=object)
    return [sorted(patients[taker == site]) for site in range(num_sites)]


def assign_shards(rarest: pd.Series, num_sites: int) -> list[list[str]]:
    """Assign the sorted patients in contiguous pieces of equal size, unshuffled."""
    return [list(part) for part in np.array_split(np.array(rarest.index, dtype=object), num_sites)]


def take_stratified(rarest: pd.Series, share: float, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split n patients into (taken, left), spread over the rarest-label groups: round(share * n) are taken, 1 to n - 1."""
    return take_count(rarest, min(max(1, round(share * len(rarest))), len(rarest) - 1), rng)


def take_count(rarest: pd.Series, count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split patients into (taken, left), spread over the rarest-label groups: `count` are taken."""
    order = [patient for group in _shuffle_groups(rarest, rng) for patient in group]
    picked = set(np.floor((np.arange(count) + 0.5) * len(order) / count).astype(int)) if count > 0 else set()
    taken = [patient for position, patient in enumerate(order) if position in picked]
    return sorted(taken), sorted(set(order) - set(taken))


def _shuffle_groups(rarest: pd.Series, rng: np.random.Generator) -> Sequence[list[str]]:
    """List the patients of each rarest label in random order, labels in alphabetical order."""
    return [
        list(rng.permutation(sorted(group.index)))
        for _, group in sorted(rarest.groupby(rarest), key=lambda pair: str(pair[0]))
    ]


def assign_specialist(
    found: pd.DataFrame, num_sites: int, lacking: int, rng: np.random.Generator
) -> tuple[list[list[str]], list[tuple[str, ...]], list[str]]:
    """Assign patients to sites that each lack `lacking` labels. Returns the patients and lacking labels of each site, and who has no site.

    `found` has 0 or 1 for each patient and label. A patient can go to the sites that lack none of its labels. Patients with the fewest such
    sites are assigned first, each to the smallest one, so patients without findings even out the sizes. Raises ValueError when a label would
    be lacking at every site.
    """
    labels, patients = list(found.columns), np.array(found.index, dtype=object)
    patterns, pattern = np.unique(found.to_numpy() == 1, axis=0, return_inverse=True)
    pattern = pattern.reshape(-1)  # numpy 2.0 returns a column
    lacks = _draw_lacking(patterns, np.bincount(pattern), num_sites, lacking, labels, rng)
    allowed = _find_allowed_sites(patterns, lacks)
    sites: list[list[str]] = [[] for _ in range(num_sites)]
    sizes = np.zeros(num_sites, dtype=np.int64)
    unplaced: list[str] = []
    for kind in np.argsort(allowed.sum(axis=1), kind="stable"):
        shuffled = patients[rng.permutation(np.flatnonzero(pattern == kind))]
        takers = np.flatnonzero(allowed[kind])
        if len(takers) == 0:
            unplaced.extend(shuffled)
        for patient in shuffled if len(takers) else ():
            site = takers[sizes[takers].argmin()]
            sites[site].append(patient)
            sizes[site] += 1
    without = [tuple(label for label, gone in zip(labels, row, strict=True) if gone) for row in lacks]
    return [sorted(site) for site in sites], without, sorted(unplaced)


def _draw_lacking(
    patterns: Flags,
    counts: NDArray[np.int64],
    num_sites: int,
    lacking: int,
    labels: Sequence[str],
    rng: np.random.Generator,
) -> Flags:
    """Draw the labels that each site lacks: [sites, labels], with `lacking` True in each row and at least one False in each column.

    Labels in random order are handed out in turn, so each is lacking at about the same number of sites. Of up to 200 orders the one that
    leaves the fewest patients without a site is taken. Raises ValueError when `lacking` is too large for that.
    """
    most = len(labels) * (num_sites - 1) // num_sites
    if lacking > most:
        raise ValueError(
            f"partition.lacking: expected at most {most} of {len(labels)} labels, so that each label is kept by one of "
            f"{num_sites} sites, got {lacking}; lower it or raise partition.num_sites"
        )
    turns = (np.arange(num_sites)[:, None] * lacking + np.arange(lacking)) % len(labels)
    best, fewest = np.zeros((num_sites, len(labels)), dtype=bool), len(patterns) + int(counts.sum())
    for _ in range(TRIES):
        lacks = np.zeros_like(best)
        np.put_along_axis(lacks, rng.permutation(len(labels))[turns], True, axis=1)
        homeless = int(counts[~_find_allowed_sites(patterns, lacks).any(axis=1)].sum())
        if homeless < fewest:
            best, fewest = lacks, homeless
        if fewest == 0:
            break
    return best


def _find_allowed_sites(patterns: Flags, lacks: Flags) -> Flags:
    """Find the sites that lack none of a pattern's labels: [patterns, sites] booleans."""
    allowed: Flags = np.logical_not(np.any(patterns[:, None, :] & lacks[None, :, :], axis=2))
    return allowed
