"""What a stacker sees of a slice: what slice models say of it, of its neighbours and of its whole series.

Probabilities and the place in the series, nothing else: no id, no header, nothing of another series. Values lie on a
public grid, so that a tree's threshold, which leaves a site, is never the very value of one slice.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.slice_places import known_places
from fl_rsna.learning.saturated import finite_logits
from fl_rsna.learning.trees import Floats

NEIGHBOURS = (-3, -2, -1, 1, 2, 3)  # slices away, in anatomical order
WINDOWS = (3, 5, 7, 9)  # slices, centred
ROLLING = ("mean", "min", "max", "std")
SERIES = ("mean", "max", "std", "quantile_75")
LOGIT = 10.0  # logits end here, on either side
GRID = 64  # steps a unit


def stack_features(index: pd.DataFrame, probabilities: NDArray[np.floating]) -> Floats:
    """float32 [N, F], a row a slice of `index` in its order, of its probabilities [N, L]; columns as `feature_names` has them.

    `index` needs series_id and rank, and patient_id where a series' name is not its own. Beyond the ends of a series its
    last slice stands in, also inside the windows; a slice of unknown order is its own neighbour, and lies in the middle.
    """
    logits = clipped_logits(probabilities)
    found = np.empty((len(index), len(feature_names([""] * logits.shape[1]))), np.float32)
    known = known_places(index)
    for rows in in_order(index):
        found[rows] = _of_series(logits[rows], known[rows])
    return np.asarray(np.rint(found * GRID) / GRID, np.float32)


def clipped_logits(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits of [N, L], at most LOGIT on either side of 0."""
    return np.clip(finite_logits(probabilities), -LOGIT, LOGIT)


def in_order(index: pd.DataFrame) -> list[NDArray[np.intp]]:
    """Positions of each series' slices, from one end of the head to the other."""
    keys = [name for name in ("patient_id", "series_id") if name in index]
    table = index.reset_index(drop=True)
    return [
        np.asarray(rows.index.to_numpy(), np.intp) for _, rows in table.sort_values("rank", kind="stable").groupby(keys)
    ]


def feature_names(labels: list[str] | tuple[str, ...]) -> list[str]:
    """Names of the columns, in their order."""
    return [
        *(f"logit/{label}" for label in labels),
        *(f"neighbour{step:+d}/{label}" for step in NEIGHBOURS for label in labels),
        *(f"rolling{width}_{how}/{label}" for width in WINDOWS for how in ROLLING for label in labels),
        *(f"series_{how}/{label}" for how in SERIES for label in labels),
        "relative_position",
    ]


def _of_series(logits: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[n, F] of one series' logits [n, L] in order; `known` [n] says which slices have a place, and these come first."""
    n, placed, place = len(logits), int(known.sum()), np.arange(len(logits))
    steps = np.clip(place[:, None] + np.arange(-4, 5), 0, placed - 1)
    around = logits[np.where(known[:, None], steps, place[:, None])]  # [n, 9, L]
    windows = [around[:, 4 - width // 2 : 5 + width // 2] for width in WINDOWS]
    rolled = [
        how for part in windows for how in (part.mean(1), part.min(1), part.max(1), part.std(1))
    ]  # in the order of ROLLING
    whole = [logits.mean(0), logits.max(0), logits.std(0), np.quantile(logits, 0.75, axis=0)]
    position = np.where(known, place / max(1, placed - 1), 0.5) if placed > 1 else np.full(n, 0.5)
    return np.concatenate(
        [
            logits,
            *(around[:, 4 + step] for step in NEIGHBOURS),
            *rolled,
            *(np.broadcast_to(row, logits.shape) for row in whole),
            position[:, None],
        ],
        axis=1,
    )
