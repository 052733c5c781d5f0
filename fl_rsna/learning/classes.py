"""How good a model is at telling classes that exclude each other: confusion, accuracies, and means of rankings over classes.

Every figure is carried through the draws of patients at once, as those of one label are. A figure of one class rests on
that class; one that is a mean over classes rests on the rarest, and is not defined without a row of each: a mean over
fewer classes would be another figure. An average precision that is interpolated takes the best of noisy precisions, which
flatters few patients: its intervals lean up.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.bootstrap import RESAMPLES, Drawn, Floats, draw_patients, totals
from fl_rsna.learning.intervals import Estimate, Scale, Support, estimate, support
from fl_rsna.learning.metrics import Comparison
from fl_rsna.learning.ranking import rank

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
    rests_on = _resting(labels, drawn)
    cells = confusion(labels, probabilities, drawn)
    areas, precisions = _ranked(labels, probabilities, drawn)
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
    rarest = _resting(labels, drawn).rarest
    return estimate(_ranked(labels, scores, drawn)[0].mean(0), rarest, rarest.fewest)


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
    rarest = _resting(labels, drawn).rarest
    ours = _ranked(labels, scores, drawn)[0].mean(0)
    theirs = np.mean([_ranked(labels, other, drawn)[0].mean(0) for other in references], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(
            difference=estimate(ours - theirs, rarest, rarest.fewest, Scale.difference),
            ratio=estimate(ours / theirs, rarest, rarest.fewest, Scale.positive),
        )


def _resting(labels: Labels, drawn: Drawn) -> _Resting:
    of_classes = [support(drawn, column) for column in labels.T]
    rows = Support(
        positives=len(labels),
        negatives=0,
        patients=drawn.patients,
        positive_patients=drawn.patients,
        negative_patients=drawn.patients,  # an accuracy over all rows compares them with no others
    )
    return _Resting(classes=of_classes, rarest=min(of_classes, key=lambda of: of.fewest), rows=rows)


def _ranked(labels: Labels, probabilities: Probabilities, drawn: Drawn) -> tuple[Floats, Floats]:
    """AUROC and average precision of each class against the rest, in every draw: two of [L, 1 + R]."""
    ranked = [rank(labels[:, i], probabilities[:, i], drawn, interpolated=True) for i in range(labels.shape[1])]
    return np.stack([of.auroc for of in ranked]), np.stack([of.average_precision for of in ranked])
