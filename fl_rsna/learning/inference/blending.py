"""Blend the logits of two models by label, and smooth a slice's logits over its neighbours in the series.

Weights and widths are chosen from sums that sites add up. Logits are blended, not probabilities: the log loss is convex in either
weight, and logits go on to smoothing and temperatures as they are. Probabilities are kept in bounds. Blood seldom shows on one
slice alone, so a slice's neighbours say something about it.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.cohort.prepared.series import find_placed_rows
from fl_rsna.learning.data.series import KEYS
from fl_rsna.learning.metrics.metrics import label_losses
from fl_rsna.learning.metrics.saturation import clip_probabilities
from fl_rsna.learning.models.series_head import blend_logits
from fl_rsna.task import Task

SIGMAS = np.array([0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0])  # in slices; 0 leaves all as it is
REACH = 3.0  # sigmas to each side: what lies beyond weighs 1% of the middle and less
WEIGHTS = np.linspace(0, 1, 21)  # of the second model
FAR, HALVINGS = 60.0, 70  # log-odds by which the union label may be moved, found by halving
BY_SIGMA, BY_WEIGHT = "loss_by_sigma", "loss_by_weight"
GRIDS = {BY_SIGMA: len(SIGMAS), BY_WEIGHT: len(WEIGHTS)}


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


def sum_by_sigma(
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


def blend_sums(
    labels: NDArray[np.floating], logits_a: NDArray[np.floating], logits_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Log loss of blended logits [N, L] summed over slices, at each of WEIGHTS: [L, W]. Labels that are NaN count nothing; sums of sites add."""
    width = np.ones(logits_a.shape[1])
    return np.stack([loss_sums(labels, blend_logits(logits_a, logits_b, weight * width)) for weight in WEIGHTS], axis=1)


def choose_weights(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The second model's weight [L] of least summed loss; of equal ones, as of a label nobody knows, the least."""
    chosen: NDArray[np.float64] = WEIGHTS[first_least(sums)]
    return chosen


def enforce_union(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Probabilities [N, L] in which the task's union label, if it has one, is no less likely than any other."""
    values = found.astype(np.float64)
    if task.union is not None:
        union = task.labels.index(task.union)
        values[:, union] = values.max(axis=1)
    return values


def enforce_union_at_mean(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """As `enforce_union`, but the union label keeps its mean: what is raised in some rows is taken from the odds of the others.

    Where already the greatest of the others has a larger mean that cannot be, and the union label is just that.
    """
    values = found.astype(np.float64)
    if task.union is None or not len(values):
        return values
    union = task.labels.index(task.union)
    own, least = clip_probabilities(values[:, union]), np.delete(values, union, axis=1).max(axis=1)
    mean, odds = values[:, union].mean(), np.log(own / (1 - own))
    low, high = -FAR, FAR
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(expit(odds + middle), least).mean() < mean else (low, middle)
    if (values[:, union] >= least).all():
        return values
    values[:, union] = np.maximum(expit(odds + (low + high) / 2), least)
    return values


def stage_sums(
    labels: NDArray[np.float32], slices: NDArray[np.float32], head: NDArray[np.float32], index: pd.DataFrame
) -> dict[str, NDArray[np.float64]]:
    """Log loss of [N, L] summed over rows: of the slice model at each of SIGMAS, of its blend with the head at each of WEIGHTS."""
    series, rank = series_names(index), index["rank"].to_numpy()
    return {BY_SIGMA: sum_by_sigma(labels, slices, series, rank), BY_WEIGHT: blend_sums(labels, slices, head)}


def series_names(index: pd.DataFrame) -> NDArray[np.str_]:
    """A name [N] for the series of each row, no two patients' alike; a slice of unknown order, which has no neighbours, has its own."""
    names, placed = index[KEYS].to_numpy(str), find_placed_rows(index)
    told = (keys if known else (*keys, str(row)) for row, (keys, known) in enumerate(zip(names, placed, strict=True)))
    return np.array(["\0".join(keys) for keys in told], dtype=str)


def smooth_logits(
    logits: NDArray[np.float32], index: pd.DataFrame, sigmas: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Logits [N, L] of the rows of an index, smoothed along their series."""
    return smooth_series(logits, series_names(index), index["rank"].to_numpy(), sigmas)


def choose_stages(
    sums: Mapping[str, NDArray[np.generic]], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sigmas and the head's weights [L]; both 0, the slice model as it is, for a label not `known` [L] or of no sums."""
    by_sigma, by_weight = (sums[name].astype(np.float64) for name in (BY_SIGMA, BY_WEIGHT))
    told = known & (by_weight.sum(axis=1) > 0)
    return np.where(told, choose_sigmas(by_sigma), 0.0), np.where(told, choose_weights(by_weight), 0.0)
