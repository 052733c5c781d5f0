"""Blend the logits of two models for each label, and smooth a slice's logits over its neighbours in the series.

Weights and widths are chosen from sums that are added over sites. Logits are blended, not probabilities: the log loss is convex in the
weight either way, and smoothing and temperatures take logits. Blood seldom shows on one slice alone, so a slice's neighbours are
informative.
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

SIGMAS = np.array([0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0])  # in slices; 0 smooths nothing
REACH = 3.0  # sigmas to each side; slices beyond would weigh about 1% of the middle, or less
WEIGHTS = np.linspace(0, 1, 21)  # weights of the second model
FAR, HALVINGS = 60.0, 70  # greatest shift of the union label's log-odds, and the halvings that find the shift
BY_SIGMA, BY_WEIGHT = "loss_by_sigma", "loss_by_weight"
GRIDS = {BY_SIGMA: len(SIGMAS), BY_WEIGHT: len(WEIGHTS)}


def smooth_series(
    logits: NDArray[np.floating], series: NDArray[np.generic], rank: NDArray[np.generic], sigmas: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Smooth finite logits [N, L] along their series by a Gaussian mean of width `sigmas` [L] in slices.

    Neighbours are adjacent in the order of `rank` [N] within `series` [N], whose names must differ between patients. The
    kernel is renormalised at the ends of a series and never reaches into another series.
    """
    member = np.unique(series, return_inverse=True)[1]
    order = np.lexsort((rank, member))
    own, member = logits[order].astype(np.float64), member[order]
    total, weight, wide = own.copy(), np.ones_like(own), np.asarray(sigmas, np.float64)
    for apart in range(1, min(math.ceil(REACH * float(np.max(sigmas, initial=0))), len(own) - 1) + 1):
        reached = apart <= REACH * wide
        kernel = np.where(reached, np.exp(-0.5 * (apart / np.where(reached, wide, 1.0)) ** 2), 0.0)  # [L]
        near = (member[apart:] == member[:-apart])[:, None] * kernel
        total[:-apart] += near * own[apart:]
        total[apart:] += near * own[:-apart]
        weight[:-apart] += near
        weight[apart:] += near
    smoothed = np.empty_like(own)
    smoothed[order] = total / weight
    return smoothed


def sum_by_sigma(
    labels: NDArray[np.floating], logits: NDArray[np.floating], series: NDArray[np.generic], rank: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Sum the log loss of logits [N, L] over slices with known labels (not NaN), smoothed at each of SIGMAS: [L, S]."""
    width = np.ones(logits.shape[1])
    return np.stack([loss_sums(labels, smooth_series(logits, series, rank, s * width)) for s in SIGMAS], axis=1)


def loss_sums(labels: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum the log loss of logits [N, L] over the slices whose label is known (not NaN): [L]."""
    losses = label_losses(labels.astype(np.float32), expit(logits.astype(np.float64)))
    summed: NDArray[np.float64] = np.where(np.isnan(labels), 0.0, losses).sum(axis=0)
    return summed


def choose_sigmas(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose the width [L] of least summed loss from `sums` [L, S]; the narrowest of equals, as for a label never known."""
    chosen: NDArray[np.float64] = SIGMAS[first_least(sums)]
    return chosen


def first_least(sums: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the position [L] of the least value in each row of sums [L, G]; the first of those that differ by rounding alone."""
    at: NDArray[np.intp] = np.argmax(sums <= sums.min(axis=1, keepdims=True) * (1 + 1e-12), axis=1)
    return at


def blend_sums(
    labels: NDArray[np.floating], logits_a: NDArray[np.floating], logits_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Sum the log loss of logits [N, L] over slices with known labels (not NaN), blended at each of WEIGHTS: [L, W]."""
    width = np.ones(logits_a.shape[1])
    return np.stack([loss_sums(labels, blend_logits(logits_a, logits_b, weight * width)) for weight in WEIGHTS], axis=1)


def choose_weights(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose the second model's weight [L] of least summed loss from `sums` [L, W]; the least of equals, as for a label never known."""
    chosen: NDArray[np.float64] = WEIGHTS[first_least(sums)]
    return chosen


def enforce_union(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Raise the task's union label, if there is one, to the maximum of the labels in each row of probabilities [N, L]."""
    values = found.astype(np.float64)
    if task.union is not None:
        union = task.labels.index(task.union)
        values[:, union] = values.max(axis=1)
    return values


def enforce_union_at_mean(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Raise the union label to at least the others in each row of probabilities [N, L], and keep its mean over the rows.

    To keep the mean, the union label's odds are multiplied by one factor in all rows. Where the row maximum of the other labels
    already has a larger mean, this cannot be, and the union label becomes that maximum.
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
    """Sum the log loss of logits [N, L]: of the slice model at each of SIGMAS, and of its blend with the head at each of WEIGHTS."""
    series, rank = series_names(index), index["rank"].to_numpy()
    return {BY_SIGMA: sum_by_sigma(labels, slices, series, rank), BY_WEIGHT: blend_sums(labels, slices, head)}


def series_names(index: pd.DataFrame) -> NDArray[np.str_]:
    """Name the series of each row, [N], differently for each patient; a slice of unknown order has no neighbours and gets its own name."""
    names, placed = index[KEYS].to_numpy(str), find_placed_rows(index)
    told = (keys if known else (*keys, str(row)) for row, (keys, known) in enumerate(zip(names, placed, strict=True)))
    return np.array(["\0".join(keys) for keys in told], dtype=str)


def smooth_logits(
    logits: NDArray[np.float32], index: pd.DataFrame, sigmas: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Smooth logits [N, L] of the rows of an index along their series."""
    return smooth_series(logits, series_names(index), index["rank"].to_numpy(), sigmas)


def choose_stages(
    sums: Mapping[str, NDArray[np.generic]], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose sigmas and the head's weights [L]; both are 0, the slice model alone, for a label not `known` [L] or without sums."""
    by_sigma, by_weight = (sums[name].astype(np.float64) for name in (BY_SIGMA, BY_WEIGHT))
    told = known & (by_weight.sum(axis=1) > 0)
    return np.where(told, choose_sigmas(by_sigma), 0.0), np.where(told, choose_weights(by_weight), 0.0)
