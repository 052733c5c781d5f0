"""Choose thresholds, temperatures and Platt scaling from sums of counts and losses over the sites' validation parts.

Every choice sees sums only, and no single slice. The sums of sites add, so the choice is the same as on the pooled slices.
Platt scaling (Platt 1999) corrects a label's probabilities by a slope and an intercept of their logits; both are fitted by Newton's
method over bins of logits. A temperature keeps probabilities of 1/2 unchanged. An intercept also makes the mean probability equal the
share of positives, without which a prevalence cannot be estimated elsewhere (Alexandari, Kundaje and Shrikumar 2020,
arXiv:1901.06852).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS
from fl_rsna.learning.metrics.exams import aggregates, exam_probabilities, group_exams
from fl_rsna.learning.metrics.figures import ThresholdFigures
from fl_rsna.learning.metrics.metrics import label_losses, slice_losses
from fl_rsna.learning.metrics.saturation import clip_probabilities, finite_logits
from fl_rsna.task import LabelKind, Task

BINS = 1024  # of logits, evenly on [-LOGITS, LOGITS]
LOGITS = 16.0
EDGES = np.r_[0.0, 1 / (1 + np.exp(-np.linspace(-LOGITS, LOGITS, BINS + 1)[1:-1]))]  # lower edge of every bin, [BINS]
TEMPERATURES = np.geomspace(0.1, 10, 101)  # 1 is in the middle; neighbours differ by 4.7%
SENSITIVITY, SPECIFICITY = 0.95, 0.90
Thresholds = dict[str, dict[str, float | None]]  # label -> point -> threshold
CENTRES = -LOGITS + (np.arange(BINS) + 0.5) * (2 * LOGITS / BINS)  # logit in the middle of every bin
SLOPES = (0.1, 10.0)  # the range of the temperatures
LOOSE = np.array([0.5, 1.0])  # prior standard deviations of slope and intercept, about 1 and 0
SLICE, LOSS = "slice", "loss_by_temperature"


class Point(StrEnum):
    """The criterion by which an operating point is chosen."""

    sensitivity_95 = "sensitivity_95"  # the highest threshold that still finds 95% of positives
    specificity_90 = "specificity_90"  # the lowest threshold that clears 90% of negatives
    youden = "youden"  # sensitivity + specificity at its highest (Youden 1950); of equal thresholds the lowest


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """Chosen thresholds by label and point, for slices and for exams by aggregate, and temperatures by label."""

    slice: Thresholds
    exam: dict[str, Thresholds]
    temperatures: dict[str, float | None]

    def to_json(self) -> ThresholdFigures:
        """Return the operating points as plain values."""
        return {"slice": self.slice, "exam": self.exam, "temperatures": self.temperatures}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "OperatingPoints":
        """Read operating points from the JSON that `to_json` gave; other keys are ignored. Raises KeyError where one is missing."""
        return cls(slice=found["slice"], exam=found["exam"], temperatures=found["temperatures"])


def score_counts(labels: NDArray[np.float32], probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count negatives (0) and positives (1) of [N, L] by the bin of their probability: [L, 2, BINS].

    Bin i holds EDGES[i] <= p < EDGES[i + 1], about 1/32 of a logit. Counts of sites add; an unknown label, NaN, is not counted.
    """
    bins = np.searchsorted(EDGES, probabilities.astype(np.float64), side="right") - 1
    places = bins + BINS * (labels > 0) + 2 * BINS * np.arange(labels.shape[1])
    return np.bincount(places[~np.isnan(labels)], minlength=2 * BINS * labels.shape[1]).reshape(-1, 2, BINS)


def choose_points(counts: NDArray[np.int64], labels: Sequence[str]) -> Thresholds:
    """Choose thresholds by label and point from summed counts [L, 2, BINS]; p >= threshold is predicted positive.

    A threshold is None where a label has no positives or no negatives, or where no threshold meets the criterion.
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
    """Divide the logits of probabilities (or, for classes [N, L], the log-probabilities) by a temperature (Guo et al. 2017).

    A temperature above 1 makes probabilities less extreme, one below 1 more extreme; the order within a label stays.
    """
    found = clip_probabilities(probabilities)
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
    """Sum the log loss of [N, L] over rows at each of TEMPERATURES: [L, T], or [1, T] where labels are classes. Sums of sites add.

    `weights` [N, L] weigh each label of each slice; they are ignored for classes.
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
    """Choose by label the temperature of least summed loss from `sums` [L, T]; classes share the one of [1, T].

    It is None for a label without positives or without negatives in `counts` [L, 2, BINS], and where the least loss is at an end
    of TEMPERATURES: then the data do not bound the temperature.
    """
    best = np.broadcast_to(np.argmin(sums, axis=1), len(labels))
    known = (counts.sum(axis=2) > 0).all(axis=1) & (best > 0) & (best < len(TEMPERATURES) - 1)
    return {label: float(TEMPERATURES[at]) if ok else None for label, at, ok in zip(labels, best, known, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """Platt scaling of one label, sigmoid(slope * logit + intercept); `prevalence` is its mean on the slices it was fitted on."""

    slope: float
    intercept: float
    prevalence: float

    def to_json(self) -> dict[str, float]:
        """Return slope, intercept and prevalence as plain values."""
        return {"slope": self.slope, "intercept": self.intercept, "prevalence": self.prevalence}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Platt":
        """Read Platt scaling from the JSON that `to_json` gave. Raises KeyError where a value is missing."""
        return cls(**{name: float(found[name]) for name in ("slope", "intercept", "prevalence")})


def fit_platt(counts: NDArray[np.integer] | NDArray[np.floating]) -> Platt:
    """Fit Platt scaling on one label's counts [2, BINS] of negatives and positives by the bin of their logit; both must have some.

    The normal prior LOOSE bounds the slope where positives are few, and where the scores separate the classes perfectly.
    """
    negatives, positives = counts.astype(np.float64)
    weights = negatives + positives
    slope, intercept = 1.0, 0.0
    for _ in range(100):
        found = expit(slope * CENTRES + intercept)
        error, spread = weights * found - positives, weights * found * (1 - found) + 1e-12
        away = np.array([slope - 1, intercept])
        gradient = np.array([error @ CENTRES, error.sum()]) + away / LOOSE**2
        bend = np.array([[spread @ CENTRES**2, spread @ CENTRES], [spread @ CENTRES, spread.sum()]])
        step = np.linalg.solve(bend + np.diag(1 / LOOSE**2), gradient)
        step *= min(1.0, 1.0 / np.abs(step).max()) if step.any() else 1.0
        slope, intercept = float(np.clip(slope - step[0], *SLOPES)), float(intercept - step[1])
        if np.abs(step).max() < 1e-9:
            break
    prevalence = float(weights @ expit(slope * CENTRES + intercept) / weights.sum())
    return Platt(slope=slope, intercept=intercept, prevalence=prevalence)


def honest(probabilities: NDArray[np.floating], fitted: Platt) -> NDArray[np.float64]:
    """Correct one label's probabilities [N] by Platt scaling."""
    made: NDArray[np.float64] = expit(fitted.slope * finite_logits(probabilities) + fitted.intercept)
    return made


def site_sums(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    patients: NDArray[np.generic],
    series: NDArray[np.generic],
    task: Task,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Compute one site's sums: score counts of slices [N, L] and of exams by aggregate, and losses by temperature.

    The sums of sites add, key by key. `weights` [N, L] weigh each label of each slice in the losses.
    """
    exams = group_exams(labels, patients, series, task.kind)
    of_exams = {
        how.value: score_counts(exams.labels, exam_probabilities(probabilities, exams, how))
        for how in aggregates(task.kind)
    }
    return {
        SLICE: score_counts(labels, probabilities),
        **of_exams,
        LOSS: loss_by_temperature(labels, probabilities, task, weights),
    }


def choose(sums: Mapping[str, NDArray[np.generic]], task: Task) -> OperatingPoints:
    """Choose thresholds and temperatures from the added sums of all sites."""
    exams = aggregates(task.kind)
    counts = {name: sums[name].astype(np.int64) for name in (SLICE, *exams)}
    return OperatingPoints(
        slice=choose_points(counts[SLICE], task.labels),
        exam={how.value: choose_points(counts[how], task.labels) for how in exams},
        temperatures=choose_temperature(sums[LOSS].astype(np.float64), task.labels, counts[SLICE]),
    )


def choose_platt(
    sums: Mapping[str, NDArray[np.generic]], task: Task, odds: NDArray[np.float64] | None = None
) -> dict[str, Platt | None]:
    """Fit Platt scaling of each label on the added sums of all sites; `odds` [2, L] weigh negatives and positives.

    It is None for a label with fewer than MIN_PATIENTS positive or negative exams, which are too few to fit, and for classes:
    correcting one of them alone would change the sum of all.
    """
    plainest = aggregates(task.kind)[0]
    slices, exams = sums[SLICE].astype(np.int64), sums[plainest].astype(np.int64).sum(axis=2)
    enough = (exams.min(axis=1) >= MIN_PATIENTS) & (task.kind is LabelKind.multi_label)
    weights = np.ones((2, len(task.labels))) if odds is None else odds
    return {
        label: fit_platt(slices[i] * weights[:, i, None]) if enough[i] else None for i, label in enumerate(task.labels)
    }
