"""Build the targets of a batch: hard labels, labels softened by neighbouring slices, and the weight of each label.

Only training slices get soft labels. Their neighbours are the training slices of the same series at this site; a slice of unknown order
has none. Soft labels make the model's probabilities less extreme on purpose.

Training for a stated prevalence weights a label's positive and negative slices by how often each occurs at the target: importance
weights of a label shift. Where P(x|y) is the same, the weighted loss over the sites' slices is, in expectation, the loss over the
target's slices, so the model's probabilities are calibrated for the target's prevalence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.series import SERIES, find_placed_rows
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import LabelKind

Weights = NDArray[np.float32]


def build_train_labels(
    index: pd.DataFrame, labels: NDArray[np.float32], config: TrainConfig, kind: LabelKind
) -> NDArray[np.float32]:
    """Apply soft_between, smooth_z and label_smoothing of the training settings to the training rows of `labels` [N, L].

    A union label stays at least each of the others, and classes still add up to 1. NaN, an unknown label, stays NaN.
    """
    found, train = labels, index["split"].to_numpy() == "train"
    if config.soft_between > 0 or config.smooth_z > 1:
        rows = np.flatnonzero(train)
        series = index.iloc[rows].groupby(SERIES, sort=False).ngroup().to_numpy().astype(np.int64)
        placed = find_placed_rows(index.iloc[rows])
        series[~placed] = len(rows) + np.arange(len(rows) - placed.sum())
        rank = index["rank"].to_numpy()[rows].astype(np.int64)
        soft = soften_between(labels[rows], series, rank, config.soft_between)
        found = labels.copy()
        found[rows] = smooth_along_series(soft, series, rank, config.smooth_z)
    if config.label_smoothing > 0:  # Szegedy et al. 2016 (arXiv:1512.00567), section 7
        share, even = config.label_smoothing, 0.5 if kind is LabelKind.multi_label else 1 / labels.shape[1]
        found = np.where(train[:, None], ((1 - share) * found + share * even).astype(np.float32), found)
    return found


def soften_between(
    labels: NDArray[np.float32], series: NDArray[np.int64], rank: NDArray[np.int64], value: float
) -> NDArray[np.float32]:
    """Replace 0 in hard labels [N, L] by `value` between the first and the last positive slice of a series.

    `series` [N] is the number of a slice's series, from 0; `rank` [N] is its place in the series.
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


def smooth_along_series(
    labels: NDArray[np.float32], series: NDArray[np.int64], rank: NDArray[np.int64], width: int
) -> NDArray[np.float32]:
    """Replace each row of [N, L] by the mean of the rows of its series whose ranks are at most width // 2 from its own."""
    half = width // 2
    key = series * (rank.max(initial=0) + 2 * half + 1) + rank + half  # keys of two series are farther apart than half
    order = np.argsort(key)
    ordered, total, count = key[order], np.zeros(labels.shape), np.zeros(len(labels))
    for step in range(-half, half + 1):
        place = np.minimum(np.searchsorted(ordered, key + step), max(0, len(key) - 1))
        there = ordered[place] == key + step
        total[there] += labels[order[place[there]]]
        count += there
    means: NDArray[np.float32] = (total / count[:, None]).astype(np.float32)
    return means


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Labels [B, L] between 0 and 1, and their weights [B, L], 0 where a label is unknown; None means that all are 1."""

    labels: torch.Tensor
    weights: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTargets:
    """Labels and weights of all slices of a site, [N, L], in the order of its index; weights of None are all 1."""

    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None

    def of(self, batch: NDArray[np.intp], device: torch.device) -> Targets:
        """Return the targets of the rows `batch` on the device."""
        labels = torch.from_numpy(self.labels[batch]).to(device)
        if self.weights is None:
            return Targets(labels=labels)
        return Targets(labels=labels, weights=torch.from_numpy(self.weights[batch]).to(device))


def build_targets(labels: NDArray[np.float32], odds: NDArray[np.float32] | None = None) -> SiteTargets:
    """Build targets of labels [N, L] in which NaN is unknown; `odds` [N] is the expected number of draws of a slice in a pass.

    A slice gets the weight 1/odds, so that a batch's expected loss is the mean over all slices: importance sampling.
    """
    unknown = np.isnan(labels)
    if odds is None and not unknown.any():
        return SiteTargets(labels=labels)
    weights = np.where(unknown, 0, 1 if odds is None else 1 / odds[:, None]).astype(np.float32)
    return SiteTargets(labels=np.nan_to_num(labels), weights=weights)


def compute_prevalence_odds(prior: Sequence[float], target: Sequence[float]) -> NDArray[np.float64]:
    """Return the weights [2, L] of each label's negatives (row 0), (1 - t) / (1 - p), and positives (row 1), t / p.

    `prior` p and `target` t are shares of positive slices, strictly between 0 and 1. Over slices of share p the mean weight is 1.
    """
    before, after = np.array(prior, np.float64), np.array(target, np.float64)
    return np.stack([(1 - after) / (1 - before), after / before])


def label_weights(labels: NDArray[np.floating], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights [N, L] of labels [N, L], interpolated between `odds` [2, L]; that of an unknown label is of no effect."""
    weights: NDArray[np.float64] = odds[0] + np.nan_to_num(labels) * (odds[1] - odds[0])
    return weights


def reweight_to_prevalence(known: SiteTargets, prior: Sequence[float], target: Sequence[float]) -> SiteTargets:
    """Multiply the weights of a site's targets for the prevalence `target`; no change where `target` is empty or equals `prior`."""
    if not target or tuple(target) == tuple(prior):
        return known
    weights = label_weights(known.labels, compute_prevalence_odds(prior, target)).astype(np.float32)
    return replace(known, weights=weights if known.weights is None else known.weights * weights)
