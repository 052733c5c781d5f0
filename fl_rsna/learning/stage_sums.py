"""What sites add up so that all together choose a blend of slice model and head, and how far to smooth the slice model."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.slice_places import known_places
from fl_rsna.learning.blend import WEIGHTS, blend_sums, choose_weights
from fl_rsna.learning.series import KEYS
from fl_rsna.learning.smoothing import SIGMAS, choose_sigmas, smooth_series, smoothing_sums

BY_SIGMA, BY_WEIGHT = "loss_by_sigma", "loss_by_weight"
GRIDS = {BY_SIGMA: len(SIGMAS), BY_WEIGHT: len(WEIGHTS)}


def stage_sums(
    labels: NDArray[np.float32], slices: NDArray[np.float32], head: NDArray[np.float32], index: pd.DataFrame
) -> dict[str, NDArray[np.float64]]:
    """Log loss of [N, L] summed over rows: of the slice model at each of SIGMAS, of its blend with the head at each of WEIGHTS."""
    series, rank = series_names(index), index["rank"].to_numpy()
    return {BY_SIGMA: smoothing_sums(labels, slices, series, rank), BY_WEIGHT: blend_sums(labels, slices, head)}


def series_names(index: pd.DataFrame) -> NDArray[np.str_]:
    """A name [N] for the series of each row, no two patients' alike; a slice of unknown order, which has no neighbours, has its own."""
    names, placed = index[KEYS].to_numpy(str), known_places(index)
    told = (keys if known else (*keys, str(row)) for row, (keys, known) in enumerate(zip(names, placed, strict=True)))
    return np.array(["\0".join(keys) for keys in told], dtype=str)


def smoothed(logits: NDArray[np.float32], index: pd.DataFrame, sigmas: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits [N, L] of the rows of an index, smoothed along their series."""
    return smooth_series(logits, series_names(index), index["rank"].to_numpy(), sigmas)


def choose_stages(
    sums: Mapping[str, NDArray[np.generic]], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sigmas and the head's weights [L]; both 0, the slice model as it is, for a label not `known` [L] or of no sums."""
    by_sigma, by_weight = (sums[name].astype(np.float64) for name in (BY_SIGMA, BY_WEIGHT))
    told = known & (by_weight.sum(axis=1) > 0)
    return np.where(told, choose_sigmas(by_sigma), 0.0), np.where(told, choose_weights(by_weight), 0.0)
