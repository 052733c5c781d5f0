"""A slice's logits smoothed over its neighbours in the series, and the width chosen from sums that sites add up.

Blood seldom shows on one slice alone, so a slice's neighbours tell about it.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.learning.metrics import label_losses

SIGMAS = np.array([0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0])  # in slices; 0 leaves all as it is
REACH = 3.0  # sigmas to each side: what lies beyond weighs 1% of the middle and less


def smooth_series(
    logits: NDArray[np.floating], series: NDArray[np.generic], rank: NDArray[np.generic], sigmas: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Finite logits [N, L], each the Gaussian mean of its series around it, of width `sigmas` [L] in slices.

    Neighbours are those in the order of `rank` [N] within `series` [N], whose names must differ between patients; the
    kernel is renormalised at a series' ends, and never reaches into another series.
    """
    member = np.unique(series, return_inverse=True)[1]
    order = np.lexsort((rank, member))
    own, member = logits[order].astype(np.float64), member[order]
    total, weight = own.copy(), np.ones_like(own)
    for apart in range(1, min(math.ceil(REACH * float(np.max(sigmas, initial=0))), len(own) - 1) + 1):
        near = (member[apart:] == member[:-apart])[:, None] * _kernel(sigmas, apart)
        total[:-apart] += near * own[apart:]
        total[apart:] += near * own[:-apart]
        weight[:-apart] += near
        weight[apart:] += near
    smoothed = np.empty_like(own)
    smoothed[order] = total / weight
    return smoothed


def _kernel(sigmas: NDArray[np.floating], apart: int) -> NDArray[np.float64]:
    """Weight [L] of a slice so many slices away, against 1 for the slice itself."""
    wide = np.asarray(sigmas, np.float64)
    reached = apart <= REACH * wide
    found: NDArray[np.float64] = np.where(reached, np.exp(-0.5 * (apart / np.where(reached, wide, 1.0)) ** 2), 0.0)
    return found


def smoothing_sums(
    labels: NDArray[np.floating], logits: NDArray[np.floating], series: NDArray[np.generic], rank: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Log loss of logits [N, L] summed over slices, at each of SIGMAS: [L, S]. Labels that are NaN count nothing; sums of sites add."""
    width = np.ones(logits.shape[1])
    return np.stack([loss_sums(labels, smooth_series(logits, series, rank, s * width)) for s in SIGMAS], axis=1)


def loss_sums(labels: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log loss [L] of logits [N, L], summed over the slices whose label is known (not NaN)."""
    losses = label_losses(labels.astype(np.float32), expit(logits.astype(np.float64)))
    summed: NDArray[np.float64] = np.where(np.isnan(labels), 0.0, losses).sum(axis=0)
    return summed


def choose_sigmas(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The width [L] of least summed loss; of equal ones, as of a label nobody knows, the narrowest."""
    chosen: NDArray[np.float64] = SIGMAS[first_least(sums)]
    return chosen


def first_least(sums: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where each row [L] of sums [L, G] is least; of those that rounding alone tells apart, the first."""
    at: NDArray[np.intp] = np.argmax(sums <= sums.min(axis=1, keepdims=True) * (1 + 1e-12), axis=1)
    return at
