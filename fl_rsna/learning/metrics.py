"""How good probabilities are: weighted log loss, AUROC and average precision a label, with patient-bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.task import LabelKind, Task

CLIP = 1e-6  # probabilities are kept this far from 0 and 1 in the log loss
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with its 95% interval and what it rests on; None where the data cannot define it."""

    value: float | None
    low: float | None
    high: float | None
    positives: int
    negatives: int


def log_loss(labels: NDArray[np.float32], probabilities: NDArray[np.float32], task: Task) -> float:
    """Mean log loss of [N, L]: weighted over labels (sum w * loss / sum w), or of the true class."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    if task.kind is LabelKind.multi_class:
        return float(-np.log(clipped[labels == 1]).mean())
    by_label = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)).mean(0)
    return float(np.average(by_label, weights=task.label_weights))


def auroc(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
    """Area under the ROC curve of one label [N], ties counted half; None with one class only."""
    value = weighted_auroc(labels, scores, np.ones((1, len(labels))))[0]
    return None if np.isnan(value) else float(value)


def average_precision(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
    """Average precision of one label [N]; None without a positive."""
    from sklearn.metrics import average_precision_score  # 0.8 s to import, and needed at the end of a run only

    return float(average_precision_score(labels, scores)) if labels.any() else None


def auroc_with_interval(
    labels: NDArray[np.float32],
    scores: NDArray[np.float32],
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """AUROC of one label with a 95% percentile interval from resampling whole patients.

    Resamples that hold one class only are left out; with fewer than half of them left there is no interval.
    """
    names, member = np.unique(patients, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = weighted_auroc(labels, scores, draws[:, member].astype(np.float64))
    values = values[~np.isnan(values)]
    low, high = (
        (float(q) for q in np.quantile(values, [0.025, 0.975])) if len(values) >= resamples / 2 else (None, None)
    )
    positives = int(labels.sum())
    return Estimate(
        value=auroc(labels, scores), low=low, high=high, positives=positives, negatives=len(labels) - positives
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """AUROC of one model beside another's on the same slices: their difference and ratio with 95% intervals."""

    difference: Estimate
    ratio: Estimate


def compare_aurocs(
    labels: NDArray[np.float32],
    scores: NDArray[np.float32],
    references: Sequence[NDArray[np.float32]],
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Comparison:
    """AUROC of `scores` against the mean AUROC of `references`, paired: every resample draws the same patients for all."""
    names, member = np.unique(patients, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = np.concatenate([np.ones((1, len(labels))), draws[:, member]]).astype(np.float64)
    ours = weighted_auroc(labels, scores, weights)
    theirs = np.mean([weighted_auroc(labels, other, weights) for other in references], axis=0)
    positives = int(labels.sum())

    def estimate(values: NDArray[np.float64]) -> Estimate:
        drawn = values[1:][np.isfinite(values[1:])]
        enough = len(drawn) >= resamples / 2
        low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975])) if enough else (None, None)
        value = float(values[0]) if np.isfinite(values[0]) else None
        return Estimate(value=value, low=low, high=high, positives=positives, negatives=len(labels) - positives)

    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(difference=estimate(ours - theirs), ratio=estimate(ours / theirs))


def weighted_auroc(
    labels: NDArray[np.float32], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC under each row of example weights [R, N]; NaN where a row has weight on one class only.

    The Mann-Whitney form: the weight share of (positive, negative) pairs ranked right, ties half.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # first of each group of equal scores
    positive = np.add.reduceat(weights[:, order] * labels[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * (1 - labels[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (positive * below).sum(1) / pairs, np.nan)
