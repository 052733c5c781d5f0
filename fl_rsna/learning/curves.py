"""Points of ROC and precision-recall curves for plots, thinned to what an eye can tell apart."""

import numpy as np
from numpy.typing import NDArray

AT_MOST = 200


def roc_points(
    labels: NDArray[np.float32], scores: NDArray[np.floating], at_most: int = AT_MOST
) -> dict[str, list[float]]:
    """{"fpr", "tpr"} from (0, 0) to (1, 1) of one label [N]; empty lists with one class only."""
    if not 0 < labels.sum() < len(labels):
        return {"fpr": [], "tpr": []}
    from sklearn.metrics import roc_curve  # 0.8 s to import, and needed by reports only

    fpr, tpr, _ = roc_curve(labels, scores)
    kept = _spread(fpr, tpr, at_most)
    return {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}


def pr_points(
    labels: NDArray[np.float32], scores: NDArray[np.floating], at_most: int = AT_MOST
) -> dict[str, list[float]]:
    """{"recall", "precision"} by rising recall of one label [N]; empty lists without a positive."""
    if not labels.any():
        return {"recall": [], "precision": []}
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[::-1], recall[::-1]
    kept = _spread(recall, precision, at_most)
    return {"recall": recall[kept].tolist(), "precision": precision[kept].tolist()}


def _spread(x: NDArray[np.float64], y: NDArray[np.float64], at_most: int) -> NDArray[np.intp]:
    """Indices of at most `at_most` points, evenly along the curve's length, its two ends among them."""
    along = np.r_[0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y)))]
    steps = np.searchsorted(along, np.linspace(0, along[-1], at_most))
    steps[0], steps[-1] = 0, len(x) - 1
    return np.unique(np.minimum(steps, len(x) - 1))
