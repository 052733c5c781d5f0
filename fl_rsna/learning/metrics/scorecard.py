"""Score one model on one set of patients, by slice and by exam: rankings, losses, calibration and operating points.

Calibration is measured by expected calibration error, Brier score and the reliability curve.
"""

from dataclasses import asdict, dataclass
from typing import Any

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
from fl_rsna.learning.metrics.metrics import label_losses, slice_losses
from fl_rsna.learning.metrics.operating_points import OperatingPoints, Thresholds, calibrate
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.task import LabelKind, Task

BINS = 15  # bins of equal width on [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Log loss, Brier score and ECE of one label, and the bins of its reliability curve as plain values."""

    log_loss: Estimate
    brier: Estimate
    ece: Estimate
    bins: list[dict[str, Any]]


def calibration(
    labels: NDArray[np.float32], probabilities: NDArray[np.floating], drawn: Drawn, rests_on: Support
) -> Calibration:
    """Measure the calibration of one label's rows [N].

    The expected calibration error is the mean of |share of positives - mean probability| over BINS bins, weighted by their rows (Naeini
    et al. 2015; Guo et al. 2017). It cannot be negative, so noise alone raises it where bins hold few patients.
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
) -> list[dict[str, Any]]:
    """Return the bins, each with the 95% interval of its share of positives; bins of fewer than MIN_PATIENTS patients have none."""
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


Labels = NDArray[np.float32]
Probabilities = NDArray[np.floating]


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
) -> dict[str, Any]:
    """Score every label [N, L] at slice level and, with the exam of each slice [N], at exam level, as plain values.

    All scores are over the same draws of patients. Thresholds and temperatures come from `settings`; without it there are none.
    The probabilities of exams after calibration come from calibrated slices. Classes are scored each against the rest and, in
    "classes", together. Slices and exams whose label is unknown (NaN) are left out of that label's scores, but an exam's
    probability takes all its slices. The card of a label that is unknown for all slices means nothing.
    """
    known: NDArray[np.bool_] = np.any(~np.isnan(labels), axis=1)
    whose = np.isin(patients, np.unique(patients[known]))  # patients without any known label cannot be scored
    if not whose.all():
        labels, probabilities, patients, known = labels[whose], probabilities[whose], patients[whose], known[whose]
        exams = None if exams is None else exams[whose]
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    after = _apply_temperatures(probabilities, task, settings)
    temperatures = settings.temperatures if settings else {}
    thresholds = settings.slice if settings else {}
    found: dict[str, Any] = {
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
) -> dict[str, Any]:
    """Score the classes together, at slice and at exam level, over the rows where all classes are known."""

    def scores(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> dict[str, Any]:
        known: NDArray[np.bool_] = np.all(~np.isnan(labels), axis=1)
        return class_scores(labels[known], probabilities[known], drawn.among(known), task.labels)

    found = {"slice": scores(labels, probabilities, drawn), "exam": {}}
    if exams is not None:
        (how,) = aggregates(task.kind)
        of_exams = drawn.of_rows(exams.patients)
        mean = exam_probabilities(probabilities, exams, how)
        found["exam"] = scores(exams.labels, mean, of_exams)
    return found


def _apply_temperatures(
    probabilities: Probabilities, task: Task, settings: OperatingPoints | None
) -> NDArray[np.float64]:
    """Calibrate probabilities by each label's temperature; a label without one does not change."""
    chosen = settings.temperatures if settings else {}
    return calibrate(probabilities, np.array([chosen.get(label) or 1.0 for label in task.labels]), task.kind)


def _log_loss(labels: Labels, probabilities: Probabilities, task: Task, drawn: Drawn) -> dict[str, Any]:
    """Estimate the task's log loss; it has an interval where the headline label has enough patients."""
    loss, rows = totals(drawn, by_patient(drawn, slice_losses(labels, probabilities, task), np.ones(len(labels))))
    rests_on = support(drawn, np.nan_to_num(labels[:, task.labels.index(task.headline)]))
    return asdict(estimate(loss / rows, rests_on, rests_on.patients, Scale.positive))


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
) -> dict[str, Any]:
    return {
        label: _card(
            *_where_known(labels[:, i], before[:, i], after[:, i], drawn),
            thresholds.get(label, {}),
            temperatures.get(label),
            exams=exams,
        )
        for i, label in enumerate(task.labels)
    }


def _where_known(
    labels: Labels, before: Probabilities, after: NDArray[np.float64], drawn: Drawn
) -> tuple[Labels, Probabilities, NDArray[np.float64], Drawn]:
    """Select the rows [N] where a label is known; where it is known for none, return all rows as if negative."""
    known = ~np.isnan(labels)
    if not known.any():
        return np.nan_to_num(labels), before, after, drawn
    return labels[known], before[known], after[known], drawn.among(known)


def _card(
    labels: Labels,
    before: Probabilities,
    after: NDArray[np.float64],
    drawn: Drawn,
    thresholds: dict[str, float | None],
    temperature: float | None,
    *,
    exams: bool,
) -> dict[str, Any]:
    """Score one label; a label that can have no interval is not resampled."""
    rests_on = support(drawn, labels)
    drawn = drawn if rests_on.enough else drawn.point_only()
    # Few patients have the positive slices; a ranking of exams compares all patients.
    ranking = rests_on.patients if exams else rests_on.fewest
    ranked = rank(labels, before, drawn)
    as_is = calibration(labels, before, drawn, rests_on)
    scaled = calibration(labels, after, drawn, rests_on) if temperature else None
    return {
        "auroc": asdict(_estimate_area(ranked.auroc, rests_on, ranking)),
        "average_precision": asdict(_estimate_area(ranked.average_precision, rests_on, rests_on.patients)),
        "partial_auroc": asdict(_estimate_area(ranked.partial_auroc, rests_on, ranking)),
        "log_loss": asdict(as_is.log_loss),
        "brier": asdict(as_is.brier),
        "ece": asdict(as_is.ece),
        "points": {
            point: None if threshold is None else at_threshold(labels, before, threshold, drawn, rests_on)
            for point, threshold in thresholds.items()
        },
        "calibration": {"before": _curve(as_is), "after": _curve(scaled) if scaled else None},
        "temperature": temperature,
    }


def _estimate_area(values: Floats, rests_on: Support, carriers: int) -> Estimate:
    """Estimate an area; that of a perfect ranking is based on the fewer of positive and negative patients."""
    return estimate(values, rests_on, rests_on.fewest if values[0] == 1 else carriers)


def _curve(found: Calibration) -> dict[str, Any]:
    return {"ece": asdict(found.ece), "brier": asdict(found.brier), "bins": found.bins}
