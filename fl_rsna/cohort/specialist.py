"""Sites that lack some labels entirely: a patient goes only where none of its findings is lacking."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TRIES = 200

Flags = NDArray[np.bool_]


def deal_specialist(
    found: pd.DataFrame, num_sites: int, lacking: int, rng: np.random.Generator
) -> tuple[list[list[str]], list[tuple[str, ...]], list[str]]:
    """Patients of each site, the labels each lacks, and the patients no site can take.

    `found` has 0 or 1 for each patient and label. Patients with the fewest sites to go to are dealt first, each to the
    smallest of its sites, so those without findings even out the sizes. Raises ValueError when a label would be
    lacking everywhere.
    """
    labels, patients = list(found.columns), np.array(found.index, dtype=object)
    patterns, pattern = np.unique(found.to_numpy() == 1, axis=0, return_inverse=True)
    pattern = pattern.reshape(-1)  # numpy 2.0 returns a column
    lacks = _draw_lacking(patterns, np.bincount(pattern), num_sites, lacking, labels, rng)
    allowed = _allowed(patterns, lacks)
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
    """[sites, labels], `lacking` true in each row and one false or more in each column.

    Labels in random order are handed out in turn, so each is lacking at about as many sites. Of up to 200 orders the
    one that leaves the fewest patients without a site is taken.
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
        homeless = int(counts[~_allowed(patterns, lacks).any(axis=1)].sum())
        if homeless < fewest:
            best, fewest = lacks, homeless
        if fewest == 0:
            break
    return best


def _allowed(patterns: Flags, lacks: Flags) -> Flags:
    """[patterns, sites]: whether none of a pattern's labels is lacking at a site."""
    allowed: Flags = np.logical_not(np.any(patterns[:, None, :] & lacks[None, :, :], axis=2))
    return allowed
