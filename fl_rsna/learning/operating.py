"""Thresholds and temperatures, chosen on what sites add up about their validation parts: counts and losses, no slice.

Every choice here sees sums only. The sums of sites add, so the choice is that of the pooled slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics import label_losses, slice_losses
from fl_rsna.learning.saturated import kept_inside
from fl_rsna.task import LabelKind, Task

BINS = 1024  # of logits, evenly on [-LOGITS, LOGITS]
LOGITS = 16.0
EDGES = np.r_[0.0, 1 / (1 + np.exp(-np.linspace(-LOGITS, LOGITS, BINS + 1)[1:-1]))]  # lower edge of every bin, [BINS]
TEMPERATURES = np.geomspace(0.1, 10, 101)  # holds 1 in its middle; neighbours are 4.7% apart
SENSITIVITY, SPECIFICITY = 0.95, 0.90


class Point(StrEnum):
    """What an operating point is chosen for."""

    sensitivity_95 = "sensitivity_95"  # the highest threshold that still finds 95% of positives
    specificity_90 = "specificity_90"  # the lowest threshold that clears 90% of negatives
    youden = "youden"  # sensitivity + specificity at its highest (Youden 1950); of equal thresholds the lowest


Thresholds = dict[str, dict[str, float | None]]  # label -> point -> threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """Chosen thresholds by label and point, for slices and for exams by aggregate, and temperatures by label."""

    slice: Thresholds
    exam: dict[str, Thresholds]
    temperatures: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"slice": self.slice, "exam": self.exam, "temperatures": self.temperatures}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "OperatingPoints":
        """From what `to_json` gave; other keys are left alone."""
        return cls(slice=found["slice"], exam=found["exam"], temperatures=found["temperatures"])


def score_counts(labels: NDArray[np.float32], probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Counts [L, 2, BINS] of negatives (0) and positives (1) of [N, L] by the bin their probability falls in.

    Bin i holds EDGES[i] <= p < EDGES[i + 1]: about 1/32 of a logit. Counts of sites add; an unknown label, NaN, has none.
    """
    bins = np.searchsorted(EDGES, probabilities.astype(np.float64), side="right") - 1
    places = bins + BINS * (labels > 0) + 2 * BINS * np.arange(labels.shape[1])
    return np.bincount(places[~np.isnan(labels)], minlength=2 * BINS * labels.shape[1]).reshape(-1, 2, BINS)


def choose_points(counts: NDArray[np.int64], labels: Sequence[str]) -> Thresholds:
    """Thresholds by label and point from summed counts [L, 2, BINS]; p >= threshold is predicted positive.

    None where a label has no positives or no negatives, or where no threshold reaches what is asked.
    """
    return {label: _points(*counts[i]) for i, label in enumerate(labels)}


def _points(negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> dict[str, float | None]:
    if not negatives.any() or not positives.any():
        return {point.value: None for point in Point}
    sensitivity = np.cumsum(positives[::-1])[::-1] / positives.sum()  # at each edge as the threshold
    specificity = (np.cumsum(negatives) - negatives) / negatives.sum()
    cleared = np.flatnonzero(specificity >= SPECIFICITY)
    return {
        Point.sensitivity_95.value: float(EDGES[np.flatnonzero(sensitivity >= SENSITIVITY)[-1]]),
        Point.specificity_90.value: float(EDGES[cleared[0]]) if len(cleared) else None,
        Point.youden.value: float(EDGES[np.argmax(sensitivity + specificity)]),
    }


def calibrate(
    probabilities: NDArray[np.floating],
    temperature: float | NDArray[np.float64],
    kind: LabelKind = LabelKind.multi_label,
) -> NDArray[np.float64]:
    """Probabilities with their logits (or, for classes [N, L], log-probabilities) divided by a temperature.

    Guo et al. 2017. Above 1 makes them less sure, below 1 surer; order within a label stays.
    """
    found = kept_inside(probabilities)
    match kind:
        case LabelKind.multi_label:
            odds_against: NDArray[np.float64] = ((1 - found) / found) ** (1 / temperature)
            return 1 / (1 + odds_against)
        case LabelKind.multi_class:
            powers: NDArray[np.float64] = found ** (1 / temperature)
            total: NDArray[np.float64] = powers.sum(1, keepdims=True)
            return powers / total


def loss_by_temperature(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    task: Task,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Log loss of [N, L] summed over rows, at each of TEMPERATURES: [L, T], or [1, T] where labels are classes. Sums of sites add.

    `weights` [N, L] are what each label of each slice counts; classes take none.
    """
    match task.kind:
        case LabelKind.multi_label:
            counts = 1.0 if weights is None else weights
            losses = [(counts * label_losses(labels, calibrate(probabilities, t))).sum(0) for t in TEMPERATURES]
        case LabelKind.multi_class:
            losses = [[slice_losses(labels, calibrate(probabilities, t, task.kind), task).sum()] for t in TEMPERATURES]
    return np.array(losses).T


def choose_temperature(
    sums: NDArray[np.float64], labels: Sequence[str], counts: NDArray[np.int64]
) -> dict[str, float | None]:
    """The temperature of least summed loss by label, [L, T]; classes share the one of [1, T].

    None for a label without positives or without negatives in `counts` [L, 2, BINS], and where the loss still falls at
    an end of the grid: nothing in the data holds it.
    """
    best = np.broadcast_to(np.argmin(sums, axis=1), len(labels))
    known = (counts.sum(axis=2) > 0).all(axis=1) & (best > 0) & (best < len(TEMPERATURES) - 1)
    return {label: float(TEMPERATURES[at]) if ok else None for label, at, ok in zip(labels, best, known, strict=True)}
