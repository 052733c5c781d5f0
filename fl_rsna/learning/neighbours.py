"""Which slices are seen together: a slice with its neighbours along its series, as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.slice_places import known_places

PIECE = ("patient_id", "series_id", "split")  # what neighbours never leave; a fresh scan has no split


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
    piece, placed = pd.MultiIndex.from_arrays(pieces).factorize()[0], known_places(index)
    piece[~placed] = len(index) + np.arange(len(index) - placed.sum())
    order = np.lexsort((index["image_id"].astype(str).to_numpy(), index["rank"].to_numpy(), piece))
    _, first, inverse, counts = np.unique(piece[order], return_index=True, return_inverse=True, return_counts=True)
    start, end = first[inverse], (first + counts - 1)[inverse]
    steps = np.arange(-neighbours, neighbours + 1)
    places = np.clip(np.arange(len(order))[:, None] + steps, start[:, None], end[:, None])
    table = np.empty((len(index), len(steps)), np.intp)
    table[order] = order[places]
    return table


def joined_tables(tables: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """The table of several sites' slices one after the other: nobody's neighbour is at another site."""
    starts = np.cumsum([0, *map(len, tables)])
    return np.concatenate([table + start for table, start in zip(tables, starts, strict=False)])
