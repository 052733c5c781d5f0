"""Group slices by series in anatomical order: the neighbours of each slice, and its place in the head.

A place is all that a series head knows of geometry. It holds nothing of the scanner: no vendor, no kernel, no tag. A head that
could recognise a site by its scanner would learn how often that site has a finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.series import find_placed_rows

PIECE = ("patient_id", "series_id", "split")  # columns in which neighbours agree; a new scan has no split
KEYS = ["patient_id", "series_id"]
STEPS = ("step_below_mm", "step_above_mm")
PLACES = 5  # numbers in the place of a slice
THICK_MM, MANY = 10.0, 64.0  # a thick step and a long series; places are divided by them and stay near 1


class Images(Protocol):
    """Packed slices, [N, S, S] or [N, S, S, 3], that can be taken by row."""

    def take(self, rows: NDArray[np.intp], axis: int = 0) -> NDArray[np.generic]: ...


@dataclass(frozen=True, slots=True)
class Stacked:
    """Packed slices with their neighbours: row i is the stack of the slices `table[i]`, lowest first."""

    images: Images
    table: NDArray[np.intp]  # [N, 2 k + 1]

    def take(self, rows: NDArray[np.intp], axis: int = 0) -> NDArray[np.generic]:
        """Return the stacks [len(rows), 2 k + 1, S, S(, 3)], read by one take of all their slices."""
        wanted = self.table[rows]
        found = self.images.take(wanted.reshape(-1), axis=0)
        return found.reshape(*wanted.shape, *found.shape[1:])

    def __len__(self) -> int:
        return len(self.table)


def neighbour_table(index: pd.DataFrame, neighbours: int) -> NDArray[np.intp]:
    """Return the rows [N, 2 k + 1] of the slices i-k..i+k of each slice i, lowest first, where k is `neighbours`.

    Neighbours are the next slices by rank of the same series that the site has in the same part (train, validation or test).
    Beyond an end of the series, the last slice is repeated. The neighbours of a slice of unknown order are the slice itself.
    Raises ValueError without ranks.
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
    """Join the neighbour tables of several sites whose slices follow one another; no neighbour is at another site."""
    starts = np.cumsum([0, *map(len, tables)])
    return np.concatenate([table + start for table, start in zip(tables, starts, strict=False)])


def series_of(index: pd.DataFrame, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split `rows` of an index into series, each from the lowest slice up; series are sorted by patient and series id."""
    if not len(rows):
        return []
    table = index.iloc[rows][[*KEYS, "rank", "image_id"]]
    order = np.lexsort((table["image_id"], table["rank"], table["series_id"], table["patient_id"]))
    names = table[KEYS].to_numpy(str)[order]
    starts = np.flatnonzero((names[1:] != names[:-1]).any(axis=1)) + 1
    return np.split(rows[order], starts)


def places_of(index: pd.DataFrame, series: list[NDArray[np.intp]]) -> NDArray[np.float32]:
    """Return the places of slices, float32 [len(index), PLACES]; zeros for slices in none of `series`.

    The five numbers are: the position from -1 (lowest slice of the series) to 1 (highest), 0 where the order is unknown;
    log2(1 + slices of the series) / log2(1 + MANY); the steps to the next slice below and above in units of THICK_MM, at most 5,
    0 where the index does not state them; and 1 where it states a step, else 0.
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
