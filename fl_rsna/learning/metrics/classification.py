"""Score classification: confusion counts at a threshold, and accuracies and mean rankings of classes that exclude each other.

Every figure is computed in all draws of patients at once, like the figures of one label. A figure of one class rests on the counts of
that class. A mean over classes rests on the counts of the rarest class, and is undefined where a class has no row: a mean over fewer
classes would be another figure. An interpolated average precision takes the best of noisy precisions, which overstates it for few
patients: its intervals lean up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
from fl_rsna.learning.metrics.figures import CellFigures, ClassesFigures, EstimateFigures, PointFigures
from fl_rsna.learning.metrics.metrics import Comparison
from fl_rsna.learning.metrics.ranking import rank

Labels = NDArray[np.float32]
Probabilities = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Supports:
    """The counts that figures of classes rest on: those of each class [L], of the rarest, and of all rows."""

    classes: list[Support]
    rarest: Support
    rows: Support


def class_scores(labels: Labels, probabilities: Probabilities, drawn: Drawn, names: Sequence[str]) -> ClassesFigures:
    """Score classes `names` from one-hot labels and probabilities [N, L], as plain values.

    accuracy: share of rows whose likeliest class is the true one; balanced_accuracy: mean of the classes' accuracies;
    macro_auroc: mean of AUROCs, each of one class against the rest; mean_average_precision: mean of average precisions as
    PASCAL VOC 2010 defines them, by which SIIM-FISABIO-RSNA COVID-19 scored its classes of studies. `classes` holds accuracy
    and average precision by class; `confusion` holds, by true and by named class, counts and their shares of the true class.
    """
    rests_on = _count_support(labels, drawn)
    cells = confusion(labels, probabilities, drawn)
    areas, precisions = _rank_classes(labels, probabilities, drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = cells / cells.sum(1, keepdims=True)
        right = np.trace(cells) / cells.sum((0, 1))
    own, rarest = np.einsum("iir->ir", rates), rests_on.rarest

    def cell(i: int, j: int, of: Support) -> CellFigures:
        share = estimate(rates[i, j], of, of.positive_patients)
        return {"count": int(cells[i, j, 0]), "share": share.to_json()}

    return {
        "accuracy": estimate(right, rests_on.rows, drawn.patients).to_json(),
        "balanced_accuracy": estimate(own.mean(0), rarest, rarest.positive_patients).to_json(),
        "macro_auroc": estimate(areas.mean(0), rarest, rarest.fewest).to_json(),
        "mean_average_precision": estimate(precisions.mean(0), rarest, rarest.fewest).to_json(),
        "classes": {
            name: {
                "accuracy": estimate(own[i], of, of.positive_patients).to_json(),
                "voc_average_precision": estimate(precisions[i], of, of.fewest).to_json(),
            }
            for i, (name, of) in enumerate(zip(names, rests_on.classes, strict=True))
        },
        "confusion": {
            name: {other: cell(i, j, of) for j, other in enumerate(names)}
            for i, (name, of) in enumerate(zip(names, rests_on.classes, strict=True))
        },
    }


def confusion(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> Floats:
    """Count rows by true class and by likeliest class: [L, L, 1 + R]; of equally likely classes the first is taken."""
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
    """Estimate the macro AUROC of `scores` [N, L] with a 95% interval from resampling whole patients; it rests on the rarest class."""
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
    """Compare the macro AUROC of `scores` [N, L] with the mean macro AUROC of `references`; every resample draws the same patients for all."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    rarest = _count_support(labels, drawn).rarest
    ours = _rank_classes(labels, scores, drawn)[0].mean(0)
    theirs = np.mean([_rank_classes(labels, other, drawn)[0].mean(0) for other in references], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(
            difference=estimate(ours - theirs, rarest, rarest.fewest, Scale.difference),
            ratio=estimate(ours / theirs, rarest, rarest.fewest, Scale.positive),
        )


def _count_support(labels: Labels, drawn: Drawn) -> _Supports:
    of_classes = [support(drawn, column) for column in labels.T]
    rows = Support(
        positives=len(labels),
        negatives=0,
        patients=drawn.patients,
        positive_patients=drawn.patients,
        negative_patients=drawn.patients,  # an accuracy over all rows compares them with no others
    )
    return _Supports(classes=of_classes, rarest=min(of_classes, key=lambda of: of.fewest), rows=rows)


def _rank_classes(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> tuple[Floats, Floats]:
    """Compute AUROC and average precision of each class against the rest in every draw: two arrays [L, 1 + R]."""
    ranked = [rank(labels[:, i], probabilities[:, i], drawn, interpolated=True) for i in range(labels.shape[1])]
    return np.stack([of.auroc for of in ranked]), np.stack([of.average_precision for of in ranked])


def predict_positive(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Mark the rows predicted positive: probability >= threshold, compared in float64."""
    return probabilities.astype(np.float64) >= threshold


def at_threshold(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    threshold: float,
    drawn: Drawn,
    rests_on: Support,
) -> PointFigures:
    """Count one label's rows [N] at a threshold as true and false positives and negatives, and estimate the ratios of the counts."""
    positive, flagged = labels > 0, predict_positive(probabilities, threshold)
    tp, fp, tn, fn = totals(
        drawn,
        by_patient(drawn, positive & flagged, ~positive & flagged, ~positive & ~flagged, positive & ~flagged),
    )
    found = ratios(tp, fp, tn, fn)

    def estimate_ratio(name: str) -> EstimateFigures:
        return estimate(found[name], rests_on, _carriers(name, positive, flagged, drawn)).to_json()

    return {
        "threshold": threshold,
        "tp": int(tp[0]),
        "fp": int(fp[0]),
        "tn": int(tn[0]),
        "fn": int(fn[0]),
        "sensitivity": estimate_ratio("sensitivity"),
        "specificity": estimate_ratio("specificity"),
        "ppv": estimate_ratio("ppv"),
        "npv": estimate_ratio("npv"),
        "f1": estimate_ratio("f1"),
        "false_negative_rate": estimate_ratio("false_negative_rate"),
    }


def ratios(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Compute sensitivity, specificity, PPV, NPV, F1 and false negative rate from confusion counts; NaN where the divisor is 0."""
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
    """Count the patients with a row in the denominator of the ratio `name`.

    An NPV is lowered by positive rows alone, so it has no more carriers than there are patients with a positive row.
    """
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
