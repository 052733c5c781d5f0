"""Make the scorecard of one model on one set of patients: all scores of its slices and of its exams.

Calibration is measured by the expected calibration error (ECE), the Brier score and the reliability curve.
"""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics.bootstrap import (
    RESAMPLES,
    Drawn,
    Estimate,
    Floats,
    Scale,
    Support,
    by_patient,
    draw_patients,
    estimate,
    interval,
    patients,
    support,
    totals,
)
from fl_rsna.learning.metrics.classification import at_threshold, class_scores
from fl_rsna.learning.metrics.exams import Exams, aggregates, exam_probabilities, group_exams
from fl_rsna.learning.metrics.figures import (
    BinFigures,
    CalibrationFigures,
    ClassesFigures,
    ClassesInBrief,
    CurveFigures,
    EstimateFigures,
    PointFigures,
)
from fl_rsna.learning.metrics.metrics import label_losses, slice_losses
from fl_rsna.learning.metrics.operating_points import OperatingPoints, Thresholds, calibrate
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.task import LabelKind, Task

BINS = 15  # of equal width on [0, 1]

Labels = NDArray[np.float32]
Probabilities = NDArray[np.floating]


class LabelInBrief(TypedDict):
    """The scores of one label that summary.json keeps."""

    auroc: EstimateFigures
    average_precision: EstimateFigures


class LabelFigures(LabelInBrief):
    """The scores of one label on the slices, or on the exams, of one set of patients."""

    partial_auroc: EstimateFigures
    log_loss: EstimateFigures
    brier: EstimateFigures
    ece: EstimateFigures
    points: dict[str, PointFigures | None]
    calibration: CalibrationFigures
    temperature: float | None


class LevelsOfClasses(TypedDict):
    """Scores of classes over slices, and over exams where there are any."""

    slice: ClassesFigures
    exam: NotRequired[ClassesFigures]


class LevelsInBrief(TypedDict):
    """Scores over all classes by level, as summary.json keeps them."""

    slice: ClassesInBrief
    exam: NotRequired[ClassesInBrief]


class CountsFigures(TypedDict):
    """The counts at the head of a scorecard: slices, patients and exams that it rests on, and resamples of its intervals."""

    slices: int
    patients: int | None
    exams: int | None
    resamples: int


class CardFigures(CountsFigures):
    """The part that every scorecard has: its counts, and its labels at slice level and, by the aggregate of slices, at exam level."""

    slice: dict[str, LabelFigures]
    exam: dict[str, dict[str, LabelFigures]]
    classes: NotRequired[LevelsOfClasses]


class CardInBrief(CountsFigures):
    """The part that every scorecard in summary.json has."""

    slice: dict[str, LabelInBrief]
    exam: dict[str, dict[str, LabelInBrief]]
    classes: NotRequired[LevelsInBrief]


class ScorecardFigures(CardFigures):
    """The scorecard of a model at a site."""

    log_loss: EstimateFigures


class ScorecardInBrief(CardInBrief):
    """The scorecard of a model at a site, as summary.json keeps it."""

    log_loss: EstimateFigures


class AreaFigures(TypedDict):
    """The AUROC of a control, which has no other score."""

    auroc: EstimateFigures


class HeldOutFigures(CardFigures):
    """The scorecard of a model on the test site: its log loss as a number and as an estimate, and by control the AUROC of each label.

    `minus_controls` is, by control, the model's AUROC of what it is judged by minus the control's, paired over patients.
    """

    log_loss: float
    log_loss_interval: EstimateFigures
    controls: dict[str, dict[str, AreaFigures]]
    minus_controls: dict[str, EstimateFigures]


class HeldOutInBrief(CardInBrief):
    """The scorecard of a model on the test site, as summary.json keeps it."""

    log_loss: float
    log_loss_interval: EstimateFigures
    controls: dict[str, dict[str, AreaFigures]]
    minus_controls: dict[str, EstimateFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Log loss, Brier score and ECE of one label, and the bins of its reliability curve as plain values."""

    log_loss: Estimate
    brier: Estimate
    ece: Estimate
    bins: list[BinFigures]

    def to_json(self) -> CurveFigures:
        """Return ECE, Brier score and bins as plain values."""
        return {"ece": self.ece.to_json(), "brier": self.brier.to_json(), "bins": self.bins}


def calibration(
    labels: NDArray[np.float32], probabilities: NDArray[np.floating], drawn: Drawn, rests_on: Support
) -> Calibration:
    """Measure the calibration of one label's rows [N].

    The ECE is the mean of |share of positives - mean probability| over BINS bins, weighted by their rows (Naeini et al. 2015;
    Guo et al. 2017). It cannot be negative, so noise alone raises it where bins hold few patients.
    """
    found = probabilities.astype(np.float64)
    losses, squares = label_losses(labels, found), (found - labels) ** 2
    loss, square, rows = totals(drawn, by_patient(drawn, losses, squares, np.ones(len(found))))
    bins = np.minimum((found * BINS).astype(np.int64), BINS - 1)
    counts, means, positives = (
        totals(drawn, _by_patient_and_bin(drawn, bins, column)) for column in (np.ones(len(found)), found, labels)
    )
    return Calibration(
        log_loss=estimate(loss / rows, rests_on, rests_on.patients, Scale.positive),
        brier=estimate(square / rows, rests_on, rests_on.patients),
        ece=estimate(np.abs(positives - means).sum(0) / rows, rests_on, rests_on.patients),
        bins=_reliability_curve(drawn, bins, counts, means, positives),
    )


def _by_patient_and_bin(drawn: Drawn, bins: NDArray[np.int64], column: NDArray[np.floating]) -> Floats:
    sums = np.bincount(drawn.member * BINS + bins, column, minlength=drawn.patients * BINS)
    return sums.astype(np.float64, copy=False).reshape(drawn.patients, BINS)


def _reliability_curve(
    drawn: Drawn, bins: NDArray[np.int64], counts: Floats, means: Floats, positives: Floats
) -> list[BinFigures]:
    """Make the bins with the 95% interval of each share of positives; a bin of fewer than MIN_PATIENTS patients has no interval."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = positives / counts
    bands = [interval(share, patients(drawn, bins == i)) for i, share in enumerate(shares)]
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "count": int(counts[i, 0]),
            "mean": float(means[i, 0] / counts[i, 0]) if counts[i, 0] else None,
            "share": float(shares[i, 0]) if counts[i, 0] else None,
            "share_low": bands[i][0],
            "share_high": bands[i][1],
        }
        for i in range(BINS)
    ]


def scorecard(
    labels: Labels,
    probabilities: Probabilities,
    patients: NDArray[np.generic],
    exams: NDArray[np.generic] | None,
    *,
    task: Task,
    settings: OperatingPoints | None,
    seed: int,
    resamples: int = RESAMPLES,
) -> ScorecardFigures:
    """Score every label [N, L] at slice level and, where `exams` [N] names each slice's exam, at exam level, as plain values.

    All scores use the same draws of `patients` [N]. Thresholds and temperatures come from `settings` and are applied as they are;
    without settings there are none. Exams after calibration are made of calibrated slices. Classes are scored each against the
    rest and, in "classes", together. Slices and exams whose label is unknown, NaN, are left out of that label's scores, but an
    exam's probability is made of all its slices. Scores of a label that is unknown everywhere mean nothing.
    """
    known: NDArray[np.bool_] = np.any(~np.isnan(labels), axis=1)
    whose = np.isin(patients, np.unique(patients[known]))  # a patient without a known label has no score
    if not whose.all():
        labels, probabilities, patients, known = labels[whose], probabilities[whose], patients[whose], known[whose]
        exams = None if exams is None else exams[whose]
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    temperatures = settings.temperatures if settings else {}
    divisors = np.array([temperatures.get(label) or 1.0 for label in task.labels])
    after = calibrate(probabilities, divisors, task.kind)
    thresholds = settings.slice if settings else {}
    found: ScorecardFigures = {
        "slices": int(known.sum()),
        "patients": drawn.patients,
        "exams": 0,
        "resamples": resamples,
        "log_loss": _log_loss(labels[known], probabilities[known], task, drawn.among(known)),
        "slice": _cards(labels, probabilities, after, drawn, task, thresholds, temperatures, exams=False),
        "exam": {},
    }
    grouped = None if exams is None else group_exams(labels, patients, exams, task.kind)
    if grouped is not None:
        of_exams = drawn.of_rows(grouped.patients)
        found["exams"] = int(np.any(~np.isnan(grouped.labels), axis=1).sum())
        for aggregate in aggregates(task.kind):
            before, then = (exam_probabilities(rows, grouped, aggregate) for rows in (probabilities, after))
            thresholds = settings.exam[aggregate.value] if settings else {}
            found["exam"][aggregate.value] = _cards(
                grouped.labels, before, then, of_exams, task, thresholds, temperatures, exams=True
            )
    if task.kind is LabelKind.multi_class:
        found["classes"] = _classes(labels, probabilities, drawn, grouped, task)
    return found


def _classes(
    labels: Labels, probabilities: Probabilities, drawn: Drawn, exams: Exams | None, task: Task
) -> LevelsOfClasses:
    """Score all classes together over slices and, where there are any, exams; only rows with every class known count."""

    def scores(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> ClassesFigures:
        known: NDArray[np.bool_] = np.all(~np.isnan(labels), axis=1)
        return class_scores(labels[known], probabilities[known], drawn.among(known), task.labels)

    found: LevelsOfClasses = {"slice": scores(labels, probabilities, drawn)}
    if exams is not None:
        (how,) = aggregates(task.kind)
        of_exams = drawn.of_rows(exams.patients)
        mean = exam_probabilities(probabilities, exams, how)
        found["exam"] = scores(exams.labels, mean, of_exams)
    return found


def _log_loss(labels: Labels, probabilities: Probabilities, task: Task, drawn: Drawn) -> EstimateFigures:
    """Estimate the task's log loss; it rests on the counts of the headline label, so its interval is withheld with that label's."""
    loss, rows = totals(drawn, by_patient(drawn, slice_losses(labels, probabilities, task), np.ones(len(labels))))
    rests_on = support(drawn, np.nan_to_num(labels[:, task.labels.index(task.headline)]))
    return estimate(loss / rows, rests_on, rests_on.patients, Scale.positive).to_json()


def _cards(
    labels: Labels,
    before: Probabilities,
    after: NDArray[np.float64],
    drawn: Drawn,
    task: Task,
    thresholds: Thresholds,
    temperatures: dict[str, float | None],
    *,
    exams: bool,
) -> dict[str, LabelFigures]:
    """Score each label over the rows where it is known; a label that is known nowhere is scored as negative everywhere."""
    found = dict[str, LabelFigures]()
    for i, label in enumerate(task.labels):
        known = ~np.isnan(labels[:, i])
        if not known.any():
            known = np.ones_like(known)
        truth = np.nan_to_num(labels[known, i])
        points, temperature = thresholds.get(label, {}), temperatures.get(label)
        found[label] = _card(
            truth, before[known, i], after[known, i], drawn.among(known), points, temperature, exams=exams
        )
    return found


def _card(
    labels: Labels,
    before: Probabilities,
    after: NDArray[np.float64],
    drawn: Drawn,
    thresholds: dict[str, float | None],
    temperature: float | None,
    *,
    exams: bool,
) -> LabelFigures:
    """Score one label's rows [N]; where no interval is possible nothing is resampled."""
    rests_on = support(drawn, labels)
    drawn = drawn if rests_on.enough else drawn.point_only()
    ranking = rests_on.patients if exams else rests_on.fewest  # exams compare all patients; positive slices are of few
    ranked = rank(labels, before, drawn)
    as_is = calibration(labels, before, drawn, rests_on)
    scaled = calibration(labels, after, drawn, rests_on) if temperature else None
    return {
        "auroc": _estimate_area(ranked.auroc, rests_on, ranking),
        "average_precision": _estimate_area(ranked.average_precision, rests_on, rests_on.patients),
        "partial_auroc": _estimate_area(ranked.partial_auroc, rests_on, ranking),
        "log_loss": as_is.log_loss.to_json(),
        "brier": as_is.brier.to_json(),
        "ece": as_is.ece.to_json(),
        "points": {
            point: None if threshold is None else at_threshold(labels, before, threshold, drawn, rests_on)
            for point, threshold in thresholds.items()
        },
        "calibration": {"before": as_is.to_json(), "after": scaled.to_json() if scaled else None},
        "temperature": temperature,
    }


def _estimate_area(values: Floats, rests_on: Support, carriers: int) -> EstimateFigures:
    """Estimate an area under a curve; a perfect ranking rests on the smaller of the numbers of patients with and without positives."""
    return estimate(values, rests_on, rests_on.fewest if values[0] == 1 else carriers).to_json()
