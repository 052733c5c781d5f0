"""Training labels that are less than sure: of a slice's neighbours along z, with no hard 0 between two positive ones.

Of training slices only. Neighbours are those of the same series that train here, too: in a cohort dealt by slice, those at
hand; a slice of unknown order has none. Both make probabilities less sure than the labels are, which is what they are for.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.series import SERIES
from fl_rsna.cohort.slice_places import known_places
from fl_rsna.config import TrainConfig
from fl_rsna.task import LabelKind


def training_labels(
    index: pd.DataFrame, labels: NDArray[np.float32], config: TrainConfig, kind: LabelKind
) -> NDArray[np.float32]:
    """`labels` [N, L] of an index with what soft_between, smooth_z and label_smoothing of train make of the training rows.

    A union label stays at least each of the others, and classes still add up to 1. NaN, an unknown label, stays NaN.
    """
    found = _along_z(index, labels, config) if config.soft_between > 0 or config.smooth_z > 1 else labels
    if config.label_smoothing == 0:
        return found
    train = (index["split"].to_numpy() == "train")[:, None]
    return np.where(train, smoothed_over_labels(found, kind, config.label_smoothing), found)


def smoothed_over_labels(labels: NDArray[np.float32], kind: LabelKind, share: float) -> NDArray[np.float32]:
    """Labels [N, L] of which a share says nothing: of classes spread over all of them, of labels over yes and no.

    Szegedy et al. 2016 (arXiv:1512.00567), section 7.
    """
    even = 0.5 if kind is LabelKind.multi_label else 1 / labels.shape[1]
    return ((1 - share) * labels + share * even).astype(np.float32)


def _along_z(index: pd.DataFrame, labels: NDArray[np.float32], config: TrainConfig) -> NDArray[np.float32]:
    rows = np.flatnonzero(index["split"].to_numpy() == "train")
    series = index.iloc[rows].groupby(SERIES, sort=False).ngroup().to_numpy().astype(np.int64)
    placed = known_places(index.iloc[rows])
    series[~placed] = len(rows) + np.arange(len(rows) - placed.sum())
    rank = index["rank"].to_numpy()[rows].astype(np.int64)
    soft = softened(labels[rows], series, rank, config.soft_between)
    found = labels.copy()
    found[rows] = smoothed(soft, series, rank, config.smooth_z)
    return found


def softened(
    labels: NDArray[np.float32], series: NDArray[np.int64], rank: NDArray[np.int64], value: float
) -> NDArray[np.float32]:
    """Hard labels [N, L] with `value` in place of 0 between the first and the last positive slice of a series.

    `series` [N] numbers series from 0, `rank` [N] is the place in it.
    """
    found = labels.copy()
    for label in range(labels.shape[1]):
        positive = np.flatnonzero(labels[:, label] > 0)
        first = np.full(series.max(initial=0) + 1, np.iinfo(np.int64).max)
        last = np.full_like(first, -1)
        np.minimum.at(first, series[positive], rank[positive])
        np.maximum.at(last, series[positive], rank[positive])
        between = (rank > first[series]) & (rank < last[series]) & (labels[:, label] == 0)
        found[between, label] = value
    return found


def smoothed(
    labels: NDArray[np.float32], series: NDArray[np.int64], rank: NDArray[np.int64], width: int
) -> NDArray[np.float32]:
    """Each row of [N, L] as the mean of the rows of its series whose ranks are at most width // 2 from its own."""
    half = width // 2
    key = series * (rank.max(initial=0) + 2 * half + 1) + rank + half  # neighbours of two series never meet
    order = np.argsort(key)
    ordered, total, count = key[order], np.zeros(labels.shape), np.zeros(len(labels))
    for step in range(-half, half + 1):
        place = np.minimum(np.searchsorted(ordered, key + step), max(0, len(key) - 1))
        there = ordered[place] == key + step
        total[there] += labels[order[place[there]]]
        count += there
    means: NDArray[np.float32] = (total / count[:, None]).astype(np.float32)
    return means
