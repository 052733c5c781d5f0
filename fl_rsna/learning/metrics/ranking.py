"""Compute AUROC and average precision of one label in many draws of patients at once, and the points of ROC and precision-recall curves.

Both depend only on the order of positives and negatives. So negatives are first counted by the two positive scores they lie between:
one sparse matrix [intervals, patients] for each label, which every draw of patients multiplies. Curves are thinned for plots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fl_rsna.learning.metrics.bootstrap import Drawn, Floats

AT_MOST = 200  # points of a curve
SENSITIVE = 0.9  # the least sensitivity that counts in the partial AUROC


def roc_points(
    labels: NDArray[np.float32], scores: NDArray[np.floating], at_most: int = AT_MOST
) -> dict[str, list[float]]:
    """Return the ROC curve of one label [N] as {"fpr", "tpr"} from (0, 0) to (1, 1); empty lists where all labels are equal."""
    if not 0 < labels.sum() < len(labels):
        return {"fpr": [], "tpr": []}
    from sklearn.metrics import roc_curve  # 0.8 s to import, and needed by reports only

    fpr, tpr, _ = roc_curve(labels, scores)
    kept = _spread(fpr, tpr, at_most)
    return {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}


def pr_points(
    labels: NDArray[np.float32], scores: NDArray[np.floating], at_most: int = AT_MOST
) -> dict[str, list[float]]:
    """Return the precision-recall curve of one label [N] as {"recall", "precision"} by rising recall; empty lists without a positive."""
    if not labels.any():
        return {"recall": [], "precision": []}
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[::-1], recall[::-1]
    kept = _spread(recall, precision, at_most)
    return {"recall": recall[kept].tolist(), "precision": precision[kept].tolist()}


def _spread(x: NDArray[np.float64], y: NDArray[np.float64], at_most: int) -> NDArray[np.intp]:
    """Choose at most `at_most` points evenly along the curve's length, both ends included; return their indices."""
    along = np.r_[0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y)))]
    steps = np.searchsorted(along, np.linspace(0, along[-1], at_most))
    steps[0], steps[-1] = 0, len(x) - 1
    return np.unique(np.minimum(steps, len(x) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """AUROC, average precision and partial AUROC in each draw [1 + R]; NaN where a draw leaves positives or negatives without weight.

    The partial AUROC is the mean specificity over sensitivities from SENSITIVE to 1: 0.05 by chance and 1 for a perfect ranking. It is
    the index for tests that must not miss a case (Jiang et al. 1996, Radiology 201:745).
    """

    auroc: Floats
    average_precision: Floats
    partial_auroc: Floats


def rank(
    labels: NDArray[np.float32], scores: NDArray[np.floating], drawn: Drawn, *, interpolated: bool = False
) -> Ranking:
    """Rank rows [N] by score, where a higher score is more positive; memory grows with N, not with N times the draws.

    With `interpolated` the average precision is that of PASCAL VOC 2010 (devkit, section 3.4.1), whose precision at a recall is
    the highest at that recall or above. Rows of equal score are one step of either curve, so their order does not matter.
    """
    columns = drawn.weights.shape[1]
    area, precision, partial = (np.full(columns, np.nan) for _ in range(3))
    if labels.any():
        positive, negative = _counts(labels, scores, drawn)
        for part, weights in drawn.chunks():
            area[part], precision[part], partial[part] = _rank_counts(
                positive @ weights, negative @ weights, interpolated
            )
    return Ranking(auroc=area, average_precision=precision, partial_auroc=partial)


def _counts(labels: NDArray[np.float32], scores: NDArray[np.floating], drawn: Drawn) -> tuple[csr_array, csr_array]:
    """Count positives at each of G distinct positive scores [G, P], and negatives [2G + 1, P].

    Row 2g counts negatives below score g and above the score before it, row 2g + 1 those equal to score g.
    """
    is_positive = labels > 0
    levels, at = np.unique(scores[is_positive], return_inverse=True)
    others = scores[~is_positive]
    below = np.searchsorted(levels, others)
    tied = levels[np.minimum(below, len(levels) - 1)] == others
    rows = 2 * below + tied
    return (
        _table(at, drawn.member[is_positive], (len(levels), drawn.patients)),
        _table(rows, drawn.member[~is_positive], (2 * len(levels) + 1, drawn.patients)),
    )


def _table(rows: NDArray[np.int64], patients: NDArray[np.int64], shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(rows)), (rows, patients)), shape=shape)  # adds up entries of the same place


def _rank_counts(positive: Floats, negative: Floats, interpolated: bool = False) -> tuple[Floats, Floats, Floats]:
    """Compute AUROC (Mann-Whitney, ties half), average precision (step-wise) and partial AUROC of weighted counts [G, C], [2G + 1, C]."""
    np.cumsum(negative, axis=0, out=negative)
    under, up_to, negatives = negative[0:-1:2], negative[1::2], negative[-1]
    positives = positive.sum(0)
    caught = positives - np.cumsum(positive, axis=0) + positive  # positives at or above each level
    flagged = caught + negatives - under
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.einsum("gc,gc->c", positive, under + up_to) / (2 * positives * negatives)
        share = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        if interpolated:  # recall falls as the level rises
            np.maximum.accumulate(share, axis=0, out=share)
        precision = np.einsum("gc,gc->c", positive, share) / positives
        partial = _partial_area(positive, caught, under, up_to, negatives)
    return area, precision, partial


def _partial_area(positive: Floats, caught: Floats, under: Floats, up_to: Floats, negatives: Floats) -> Floats:
    """Compute the mean specificity [C] over sensitivities from SENSITIVE to 1, of weighted counts [G, C] by rising score.

    Positives and negatives of equal score become positive together. In the plane of positives above the threshold and negatives below
    it, level g is the straight line from (caught - positive, up_to) to (caught, under).
    """
    positives = caught[0]
    reached = np.flatnonzero((caught > SENSITIVE * positives).any(1))
    some = slice(0, int(reached[-1]) + 1 if reached.size else 0)
    share, end, low, high = positive[some], caught[some], under[some], up_to[some]
    start = np.maximum(end - share, SENSITIVE * positives)
    along = np.divide(
        end - start, share, out=np.zeros_like(share), where=share > 0
    )  # from the level's end back to the start
    at_start = low + (high - low) * along
    area = np.einsum("gc,gc->c", np.maximum(end - start, 0), low + at_start)
    found: Floats = area / (2 * (positives - SENSITIVE * positives) * negatives)
    return np.clip(found, 0, 1)  # rounding: a perfect ranking has exactly 1
