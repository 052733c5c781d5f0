"""Slices as the series they are of, in anatomical order: which are seen together, and where in the head each lies.

A place is all that a series head knows of geometry. Nothing of the scanner is among it: no vendor, no kernel, no tag. A head that
could recognise a site by its scanner would learn how often that site has a finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.series import find_placed_rows

PIECE = ("patient_id", "series_id", "split")  # what neighbours never leave; a fresh scan has no split
KEYS = ["patient_id", "series_id"]
STEPS = ("step_below_mm", "step_above_mm")
PLACES = 5  # numbers that say where a slice lies
THICK_MM, MANY = 10.0, 64.0  # of a step and of a series, by which the numbers stay near 1


class Images(Protocol):
    """Packed slices, [N, S, S] or [N, S, S, 3]."""

    def take(self, rows: NDArray[np.intp], axis: int = 0) -> NDArray[np.generic]: ...


@dataclass(frozen=True, slots=True)
class Stacked:
    """Packed slices that are seen with their neighbours: row i is the stack of slices `table[i]`, lowest first."""

    images: Images
    table: NDArray[np.intp]  # [N, 2 k + 1]

    def take(self, rows: NDArray[np.intp], axis: int = 0) -> NDArray[np.generic]:
        """Stacks [len(rows), 2 k + 1, S, S(, 3)]: one take of all their slices."""
        wanted = self.table[rows]
        found = self.images.take(wanted.reshape(-1), axis=0)
        return found.reshape(*wanted.shape, *found.shape[1:])

    def __len__(self) -> int:
        return len(self.table)


def neighbour_table(index: pd.DataFrame, neighbours: int) -> NDArray[np.intp]:
    """Rows [N, 2 k + 1] of the slices i-k..i+k of each slice i, lowest first, in the order of `index`.

    Neighbours are the next slices of the same series by rank that are at hand in the same part (train, validation or
    test) of the site; beyond an end of the series they are its end. A slice of unknown order is seen
    alone. Raises ValueError without ranks.
    """
    if "rank" not in index or index["rank"].isna().any():
        raise ValueError(
            "model.neighbours: expected the rank of every slice in its series in index.csv, got none; prepare the data again"
        )
    pieces = [index[name].astype(str).to_numpy() for name in PIECE if name in index]
    piece, placed = pd.MultiIndex.from_arrays(pieces).factorize()[0], find_placed_rows(index)
    piece[~placed] = len(index) + np.arange(len(index) - placed.sum())
    order = np.lexsort((index["image_id"].astype(str).to_numpy(), index["rank"].to_numpy(), piece))
    _, first, inverse, counts = np.unique(piece[order], return_index=True, return_inverse=True, return_counts=True)
    start, end = first[inverse], (first + counts - 1)[inverse]
    steps = np.arange(-neighbours, neighbours + 1)
    places = np.clip(np.arange(len(order))[:, None] + steps, start[:, None], end[:, None])
    table = np.empty((len(index), len(steps)), np.intp)
    table[order] = order[places]
    return table


def join_tables(tables: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """The table of several sites' slices one after the other: nobody's neighbour is at another site."""
    starts = np.cumsum([0, *map(len, tables)])
    return np.concatenate([table + start for table, start in zip(tables, starts, strict=False)])


def series_of(index: pd.DataFrame, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The series among `rows` of an index, each as its rows from the lowest slice up; sorted by patient and series."""
    if not len(rows):
        return []
    table = index.iloc[rows][[*KEYS, "rank", "image_id"]]
    order = np.lexsort((table["image_id"], table["rank"], table["series_id"], table["patient_id"]))
    names = table[KEYS].to_numpy(str)[order]
    starts = np.flatnonzero((names[1:] != names[:-1]).any(axis=1)) + 1
    return np.split(rows[order], starts)


def places_of(index: pd.DataFrame, series: list[NDArray[np.intp]]) -> NDArray[np.float32]:
    """Where slices lie, float32 [len(index), PLACES]; zeros for those of no series given.

    From the lowest (-1) to the highest (1) slice of the series, 0 where the order is unknown; how many there are; the steps
    down and up in mm, 0 where the index does not say; and whether it does.
    """
    found = np.zeros((len(index), PLACES), np.float32)
    steps = np.full((len(index), len(STEPS)), np.nan)
    for i, name in enumerate(STEPS):
        if name in index:
            steps[:, i] = pd.to_numeric(index[name], errors="coerce")
    known = find_placed_rows(index)
    for rows in series:
        placed = rows[known[rows]]
        found[placed, 0] = np.linspace(-1, 1, len(placed)) if len(placed) > 1 else 0.0
        found[rows, 1] = np.log2(1 + len(rows)) / np.log2(1 + MANY)
    told = np.concatenate(series or [np.zeros(0, np.intp)])
    found[told, 2:4] = np.nan_to_num(np.clip(steps[told], 0, 5 * THICK_MM) / THICK_MM)
    found[told, 4] = np.isfinite(steps[told]).any(axis=1)
    return found
