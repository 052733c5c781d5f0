"""Score a classification: confusion counts at a threshold, and accuracies and mean rankings of classes that exclude each other.

Every figure is computed in all draws of patients at once. The interval of a class's figure is based on the patients of that class. A
mean over classes is based on the rarest class, and is undefined without a row of each class, as a mean over fewer classes would be
another figure. An interpolated average precision takes the maximum of noisy precisions, so it is biased upwards for few patients, and so
are its intervals.
"""

from collections.abc import Sequence
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
    patients,
    support,
    totals,
)
from fl_rsna.learning.metrics.metrics import Comparison
from fl_rsna.learning.metrics.ranking import rank

ACCURACIES = ("accuracy", "balanced_accuracy")  # figures of all classes together in `class_scores`
RANKINGS = ("macro_auroc", "mean_average_precision")

Labels = NDArray[np.float32]
Probabilities = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resting:
    """Numbers of rows and patients behind the figures of each class [L], of the rarest class, and of all rows."""

    classes: list[Support]
    rarest: Support
    rows: Support


def class_scores(labels: Labels, probabilities: Probabilities, drawn: Drawn, names: Sequence[str]) -> dict[str, Any]:
    """Score the classes `names` from one-hot labels and probabilities [N, L], as plain values.

    accuracy: share of rows whose likeliest class is the true one; balanced_accuracy: mean of the classes' accuracies;
    macro_auroc: mean of AUROCs, each of one class against the rest; mean_average_precision: mean of the average precisions of
    PASCAL VOC 2010, by which SIIM-FISABIO-RSNA COVID-19 scored its classes of studies. `classes` has the accuracy and average
    precision of each class. `confusion` has counts by true and by predicted class, and their shares of the true class.
    """
    rests_on = _count_support(labels, drawn)
    cells = confusion(labels, probabilities, drawn)
    areas, precisions = _rank_classes(labels, probabilities, drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = cells / cells.sum(1, keepdims=True)
        right = np.trace(cells) / cells.sum((0, 1))
    own, rarest = np.einsum("iir->ir", rates), rests_on.rarest
    return {
        "accuracy": asdict(estimate(right, rests_on.rows, drawn.patients)),
        "balanced_accuracy": asdict(estimate(own.mean(0), rarest, rarest.positive_patients)),
        "macro_auroc": asdict(estimate(areas.mean(0), rarest, rarest.fewest)),
        "mean_average_precision": asdict(estimate(precisions.mean(0), rarest, rarest.fewest)),
        "classes": {
            name: {
                "accuracy": asdict(estimate(own[i], of, of.positive_patients)),
                "voc_average_precision": asdict(estimate(precisions[i], of, of.fewest)),
            }
            for i, (name, of) in enumerate(zip(names, rests_on.classes, strict=True))
        },
        "confusion": {
            name: {
                other: {"count": int(cells[i, j, 0]), "share": asdict(estimate(rates[i, j], of, of.positive_patients))}
                for j, other in enumerate(names)
            }
            for i, (name, of) in enumerate(zip(names, rests_on.classes, strict=True))
        },
    }


def confusion(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> Floats:
    """Count rows by true and by likeliest class, [L, L, 1 + R], in every draw; the first of equally likely classes is taken."""
    count = labels.shape[1]
    cells = labels.argmax(1) * count + probabilities.argmax(1)
    places = drawn.member * count**2 + cells
    sums = np.bincount(places, minlength=drawn.patients * count**2).reshape(drawn.patients, count**2)
    return totals(drawn, sums.astype(np.float64)).reshape(count, count, -1)


def macro_auroc(
    labels: Labels,
    scores: Probabilities,
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate the macro AUROC of `scores` [N, L] with a 95% interval over whole patients, based on those of the rarest class."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    rarest = _count_support(labels, drawn).rarest
    return estimate(_rank_classes(labels, scores, drawn)[0].mean(0), rarest, rarest.fewest)


def compare_macro_aurocs(
    labels: Labels,
    scores: Probabilities,
    references: Sequence[Probabilities],
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the macro AUROC of `scores` [N, L] with the mean macro AUROC of `references`; resamples are paired by patient."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    rarest = _count_support(labels, drawn).rarest
    ours = _rank_classes(labels, scores, drawn)[0].mean(0)
    theirs = np.mean([_rank_classes(labels, other, drawn)[0].mean(0) for other in references], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(
            difference=estimate(ours - theirs, rarest, rarest.fewest, Scale.difference),
            ratio=estimate(ours / theirs, rarest, rarest.fewest, Scale.positive),
        )


def _count_support(labels: Labels, drawn: Drawn) -> _Resting:
    of_classes = [support(drawn, column) for column in labels.T]
    rows = Support(
        positives=len(labels),
        negatives=0,
        patients=drawn.patients,
        positive_patients=drawn.patients,
        negative_patients=drawn.patients,  # an accuracy over all rows has no second group of rows
    )
    return _Resting(classes=of_classes, rarest=min(of_classes, key=lambda of: of.fewest), rows=rows)


def _rank_classes(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> tuple[Floats, Floats]:
    """Compute AUROC and average precision of each class against the rest, in every draw: two arrays [L, 1 + R]."""
    ranked = [rank(labels[:, i], probabilities[:, i], drawn, interpolated=True) for i in range(labels.shape[1])]
    return np.stack([of.auroc for of in ranked]), np.stack([of.average_precision for of in ranked])


def predict_positive(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Return true for rows predicted positive, with probability >= threshold in float64."""
    return probabilities.astype(np.float64) >= threshold


def at_threshold(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    threshold: float,
    drawn: Drawn,
    rests_on: Support,
) -> dict[str, Any]:
    """Count the confusion of one label's rows [N] at a threshold, and estimate its ratios; plain values."""
    positive, flagged = labels > 0, predict_positive(probabilities, threshold)
    tp, fp, tn, fn = totals(
        drawn,
        by_patient(drawn, positive & flagged, ~positive & flagged, ~positive & ~flagged, positive & ~flagged),
    )
    shown = {
        name: asdict(estimate(values, rests_on, _carriers(name, positive, flagged, drawn)))
        for name, values in ratios(tp, fp, tn, fn).items()
    }
    counts = {"tp": int(tp[0]), "fp": int(fp[0]), "tn": int(tn[0]), "fn": int(fn[0])}
    return {"threshold": threshold, **counts, **shown}


def ratios(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Compute sensitivity, specificity, PPV, NPV, F1 and false-negative rate from confusion counts; NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "false_negative_rate": fn / (tp + fn),
        }


def _carriers(name: str, positive: NDArray[np.bool_], flagged: NDArray[np.bool_], drawn: Drawn) -> int:
    """Count the patients with a row in the ratio's denominator; for an NPV those with a positive row, if fewer, as only they lower it."""
    match name:
        case "specificity":
            return patients(drawn, ~positive)
        case "ppv":
            return patients(drawn, flagged)
        case "npv":
            return min(patients(drawn, ~flagged), patients(drawn, positive))
        case "f1":
            return patients(drawn, positive | flagged)
        case _:
            return patients(drawn, positive)
