"""Training for a stated prevalence: a label's positive and negative slices count as often as they occur at the target.

Importance weights of a label shift: where P(x|y) is the same, the weighted loss over the sites' slices is, in expectation,
the loss over the target's, so the model's probabilities mean the target's prevalence.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.targets import SiteTargets


def matching_odds(prior: Sequence[float], target: Sequence[float]) -> NDArray[np.float64]:
    """How much negatives (row 0) and positives (row 1) of each label count, [2, L]: (1 - t) / (1 - p) and t / p.

    `prior` and `target` are shares of positive slices, strictly between 0 and 1; at the prior the mean weight is 1.
    """
    before, after = np.array(prior, np.float64), np.array(target, np.float64)
    return np.stack([(1 - after) / (1 - before), after / before])


def label_weights(labels: NDArray[np.floating], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights [N, L] of labels [N, L]; a soft label lies between its two, an unknown one has no loss."""
    weights: NDArray[np.float64] = odds[0] + np.nan_to_num(labels) * (odds[1] - odds[0])
    return weights


def matched(known: SiteTargets, prior: Sequence[float], target: Sequence[float]) -> SiteTargets:
    """A site's targets, each weighed for the target's prevalence, too; as they are without a target, or at the prior itself."""
    if not target or tuple(target) == tuple(prior):
        return known
    weights = label_weights(known.labels, matching_odds(prior, target)).astype(np.float32)
    return replace(known, weights=weights if known.weights is None else known.weights * weights)
