"""How well a model classifies: confusion matrices at a threshold, and accuracies and means of rankings over classes that exclude each other.

Every figure is computed in all draws of patients at once, as those of one label are. A figure of one class rests on
that class; one that is a mean over classes rests on the rarest, and is not defined without a row of each: a mean over
fewer classes would be another figure. An average precision that is interpolated takes the best of noisy precisions, which
flatters few patients: its intervals lean up.
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

ACCURACIES = ("accuracy", "balanced_accuracy")  # what `class_scores` says of all classes together
RANKINGS = ("macro_auroc", "mean_average_precision")

Labels = NDArray[np.float32]
Probabilities = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resting:
    """What figures rest on: each class [L], and all classes together."""

    classes: list[Support]
    rarest: Support
    rows: Support


def class_scores(labels: Labels, probabilities: Probabilities, drawn: Drawn, names: Sequence[str]) -> dict[str, Any]:
    """Plain values of classes `names` from one-hot labels and probabilities [N, L].

    accuracy: share of rows whose likeliest class is the true one; balanced_accuracy: mean of the classes' accuracies;
    macro_auroc: mean of AUROCs, each one class against the rest; mean_average_precision: mean of average precisions as
    PASCAL VOC 2010 has them, which over studies is how SIIM-FISABIO-RSNA COVID-19 scored its study classes. By class the
    same, and in `confusion`, by true and by named class, counts and their share of the true class.
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
    """Rows by true class and by the likeliest one [L, L, 1 + R]; of classes equally likely the first is named."""
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
    """Macro AUROC of `scores` [N, L] with a 95% interval from resampling whole patients; it rests on the rarest class."""
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
    """Macro AUROC of `scores` [N, L] against the mean of the references' macro AUROCs, paired as AUROCs of one label are."""
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
        negative_patients=drawn.patients,  # an accuracy over all rows compares them with no others
    )
    return _Resting(classes=of_classes, rarest=min(of_classes, key=lambda of: of.fewest), rows=rows)


def _rank_classes(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> tuple[Floats, Floats]:
    """AUROC and average precision of each class against the rest, in every draw: two of [L, 1 + R]."""
    ranked = [rank(labels[:, i], probabilities[:, i], drawn, interpolated=True) for i in range(labels.shape[1])]
    return np.stack([of.auroc for of in ranked]), np.stack([of.average_precision for of in ranked])


def predict_positive(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Rows predicted positive: probability >= threshold, compared in float64."""
    return probabilities.astype(np.float64) >= threshold


def at_threshold(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    threshold: float,
    drawn: Drawn,
    rests_on: Support,
) -> dict[str, Any]:
    """Confusion counts of one label's rows [N] at a threshold, and their ratios as estimates."""
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
    """Sensitivity and its kin from confusion counts; NaN where nothing is there to divide by."""
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
    """Patients with a row that the ratio is a share of; what spoils an NPV is in the positive ones only, so they count if fewer."""
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
