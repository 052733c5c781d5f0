"""Two models' logits blended by label, at weights chosen from sums that sites add up; and probabilities kept in bounds.

Blended are logits, not probabilities: the log loss is convex in either weight, and logits go on to smoothing and
temperatures as they are.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.learning.saturated import kept_inside
from fl_rsna.learning.smoothing import first_least, loss_sums
from fl_rsna.learning.two_stage import blended
from fl_rsna.task import Task

WEIGHTS = np.linspace(0, 1, 21)  # of the second model
FAR, HALVINGS = 60.0, 70  # log-odds by which the union label may be moved, found by halving


def blend_sums(
    labels: NDArray[np.floating], logits_a: NDArray[np.floating], logits_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Log loss of blended logits [N, L] summed over slices, at each of WEIGHTS: [L, W]. Labels that are NaN count nothing; sums of sites add."""
    width = np.ones(logits_a.shape[1])
    return np.stack([loss_sums(labels, blended(logits_a, logits_b, weight * width)) for weight in WEIGHTS], axis=1)


def choose_weights(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The second model's weight [L] of least summed loss; of equal ones, as of a label nobody knows, the least."""
    chosen: NDArray[np.float64] = WEIGHTS[first_least(sums)]
    return chosen


def bounded(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Probabilities [N, L] in which the task's union label, if it has one, is no less likely than any other."""
    values = found.astype(np.float64)
    if task.union is not None:
        union = task.labels.index(task.union)
        values[:, union] = values.max(axis=1)
    return values


def bounded_at_mean(found: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """As `bounded`, but the union label keeps its mean: what is raised in some rows is taken from the odds of the others.

    Where already the greatest of the others has a larger mean that cannot be, and the union label is just that.
    """
    values = found.astype(np.float64)
    if task.union is None or not len(values):
        return values
    union = task.labels.index(task.union)
    own, least = kept_inside(values[:, union]), np.delete(values, union, axis=1).max(axis=1)
    mean, odds = values[:, union].mean(), np.log(own / (1 - own))
    low, high = -FAR, FAR
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(expit(odds + middle), least).mean() < mean else (low, middle)
    if (values[:, union] >= least).all():
        return values
    values[:, union] = np.maximum(expit(odds + (low + high) / 2), least)
    return values
