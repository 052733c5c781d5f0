"""Slices as the series they are of, in anatomical order, and where in the head each lies: all a head knows of geometry.

Nothing of the scanner is among it: no vendor, no kernel, no tag. A head that could tell a site by its scanner would learn
how often that site has a finding.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.slice_places import known_places

KEYS = ["patient_id", "series_id"]
STEPS = ("step_below_mm", "step_above_mm")
PLACES = 5  # numbers that say where a slice lies
THICK_MM, MANY = 10.0, 64.0  # of a step and of a series, by which the numbers stay near 1


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
    known = known_places(index)
    for rows in series:
        placed = rows[known[rows]]
        found[placed, 0] = np.linspace(-1, 1, len(placed)) if len(placed) > 1 else 0.0
        found[rows, 1] = np.log2(1 + len(rows)) / np.log2(1 + MANY)
    told = np.concatenate(series or [np.zeros(0, np.intp)])
    found[told, 2:4] = np.nan_to_num(np.clip(steps[told], 0, 5 * THICK_MM) / THICK_MM)
    found[told, 4] = np.isfinite(steps[told]).any(axis=1)
    return found
