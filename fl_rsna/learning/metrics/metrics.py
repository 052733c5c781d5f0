"""Score probabilities: weighted log loss, AUROC and average precision of each label, with intervals from resampling patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics.bootstrap import RESAMPLES, Estimate, Scale, draw_patients, estimate, support
from fl_rsna.learning.metrics.figures import ComparisonFigures
from fl_rsna.learning.metrics.ranking import Ranking, rank
from fl_rsna.learning.metrics.saturation import clip_probabilities
from fl_rsna.task import MACRO, LabelKind, Task

__all__ = [
    "CLIP",
    "RESAMPLES",
    "Comparison",
    "Estimate",
    "auroc",
    "auroc_with_interval",
    "aurocs",
    "average_precision",
    "compare_aurocs",
    "label_losses",
    "log_loss",
    "slice_losses",
]

CLIP = 1e-6  # probabilities are kept this far from 0 and 1 in the log loss


def label_losses(labels: NDArray[np.float32], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the log loss of each label by itself, [N] or [N, L] like the labels; 0 where a label is unknown, NaN."""
    clipped = clip_probabilities(probabilities, CLIP)
    return np.where(np.isnan(labels), 0.0, -np.log(np.where(labels > 0, clipped, 1 - clipped)))


def slice_losses(labels: NDArray[np.float32], probabilities: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Compute the log loss of each row [N]: weighted over its known labels, sum(w * loss) / sum(w), or that of the true class."""
    if task.kind is LabelKind.multi_class:
        return -np.log(clip_probabilities(probabilities[labels > 0], CLIP))
    losses, known = label_losses(labels, probabilities), ~np.isnan(labels)
    if known.all():
        return np.average(losses, axis=1, weights=task.label_weights)
    return np.average(losses, axis=1, weights=known * np.array(task.label_weights))


def log_loss(labels: NDArray[np.float32], probabilities: NDArray[np.floating], task: Task) -> float:
    """Compute the mean log loss over rows of probabilities [N, L]: weighted over labels, or that of the true class."""
    return float(slice_losses(labels, probabilities, task).mean())


def auroc(labels: NDArray[np.float32], scores: NDArray[np.floating]) -> float | None:
    """Compute the area under the ROC curve of one label [N], ties counted half; None where all labels are equal."""
    value = _rank_once(labels, scores).auroc[0]
    return None if np.isnan(value) else float(value)


def aurocs(
    labels: NDArray[np.float32], probabilities: NDArray[np.floating], task: Task, asked: Sequence[bool] | None = None
) -> dict[str, float | None]:
    """Compute the AUROC of each label of [N, L] over the rows where it is known, and for classes their mean as MACRO.

    A value is None where it is undefined or not `asked` for [L]. MACRO is None unless every class has a value: a mean over
    fewer classes would be another figure.
    """
    known = ~np.isnan(labels)
    found = {
        label: auroc(labels[known[:, i], i], probabilities[known[:, i], i]) if asked is None or asked[i] else None
        for i, label in enumerate(task.labels)
    }
    if task.kind is LabelKind.multi_label:
        return found
    areas = [area for area in found.values() if area is not None]
    return {**found, MACRO: sum(areas) / len(areas) if len(areas) == len(found) else None}


def average_precision(labels: NDArray[np.float32], scores: NDArray[np.floating]) -> float | None:
    """Compute the average precision of one label [N]; None without a positive."""
    value = _rank_once(labels, scores).average_precision[0]
    return None if np.isnan(value) else float(value)


def _rank_once(labels: NDArray[np.float32], scores: NDArray[np.floating]) -> Ranking:
    return rank(labels, scores, draw_patients(np.zeros(len(labels)), seed=0, resamples=0))


def auroc_with_interval(
    labels: NDArray[np.float32],
    scores: NDArray[np.floating],
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate the AUROC of one label [N] with a 95% interval from resampling whole patients; `Estimate` says when there is none."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    found = support(drawn, labels)
    return estimate(rank(labels, scores, drawn).auroc, found, found.fewest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference and the ratio of two models' AUROCs on the same slices, with 95% intervals."""

    difference: Estimate
    ratio: Estimate

    def to_json(self) -> ComparisonFigures:
        """Return the comparison as plain values."""
        return {"difference": self.difference.to_json(), "ratio": self.ratio.to_json()}


def compare_aurocs(
    labels: NDArray[np.float32],
    scores: NDArray[np.floating],
    references: Sequence[NDArray[np.floating]],
    patients: NDArray[np.generic],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the AUROC of `scores` [N] with the mean AUROC of `references` [N]; every resample draws the same patients for all."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    found = support(drawn, labels)
    ours = rank(labels, scores, drawn).auroc
    theirs = np.mean([rank(labels, other, drawn).auroc for other in references], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(
            difference=estimate(ours - theirs, found, found.fewest, Scale.difference),
            ratio=estimate(ours / theirs, found, found.fewest, Scale.positive),
        )
