"""Compute what is drawn of one label's probabilities: the ROC curve with its 95% band, their histogram by truth, and net benefit.

The band rests on the same draws of patients as the intervals of the scorecard. In a draw, sensitivity and false positive rate are
sums by patient at each of THRESHOLDS thresholds, so that all draws are one matrix product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics.bootstrap import Drawn, Floats, by_patient, interval, support, totals

THRESHOLDS = 128  # at most, at quantiles of the probabilities
GRID = np.linspace(0, 1, 51)  # false positive rates at which the band is computed
BARS = 20  # of equal width on [0, 1]
BENEFIT = np.linspace(0.02, 0.98, 49)  # threshold probabilities of a decision curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The 95% interval of sensitivity at each false positive rate of GRID; points without an interval are left out."""

    fpr: list[float]
    low: list[float]
    high: list[float]


def roc_band(labels: NDArray[np.float32], probabilities: NDArray[np.floating], drawn: Drawn) -> Band | None:
    """Compute the pointwise band of the ROC curve of rows [N]; None where too few patients have, or lack, the label."""
    rests_on = support(drawn, labels)
    if not rests_on.enough:
        return None
    levels = np.unique(probabilities)
    if len(levels) > THRESHOLDS:
        levels = np.unique(np.quantile(probabilities, np.linspace(0, 1, THRESHOLDS), method="nearest"))
    called = probabilities[:, None] >= np.r_[levels, np.inf]  # the last threshold calls nothing
    positive = labels > 0
    rates = []
    for truth in (positive, ~positive):
        sums = by_patient(drawn, *(called & truth[:, None]).T.astype(np.float64), truth.astype(np.float64))
        counts = totals(drawn, sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append((counts[:-1] / counts[-1])[::-1])  # rising with the rate
    sensitivity, fpr = rates
    at_grid = np.full((len(GRID), sensitivity.shape[1]), np.nan)
    for draw in np.flatnonzero(np.isfinite(sensitivity[0]) & np.isfinite(fpr[0])):
        at_grid[:, draw] = np.interp(GRID, fpr[:, draw], sensitivity[:, draw])
    ends = [(rate, *interval(values, rests_on.positive_patients)) for rate, values in zip(GRID, at_grid, strict=True)]
    known = [(float(rate), low, high) for rate, low, high in ends if low is not None and high is not None]
    return Band(fpr=[of[0] for of in known], low=[of[1] for of in known], high=[of[2] for of in known])


def count_by_truth(
    labels: NDArray[np.float32], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count rows with and without the label in each of BARS bins of probability."""
    bins = np.minimum((probabilities.astype(np.float64) * BARS).astype(np.int64), BARS - 1)
    positive = labels > 0
    return np.bincount(bins[positive], minlength=BARS), np.bincount(bins[~positive], minlength=BARS)


def net_benefit(labels: NDArray[np.float32], probabilities: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Compute the net benefit of the model, and of calling every row positive, at BENEFIT (Vickers and Elkin 2006).

    It is the share of true positives minus that of false positives times the odds of the threshold probability.
    """
    positive, called = labels > 0, probabilities[:, None] >= BENEFIT
    odds, count = BENEFIT / (1 - BENEFIT), len(labels)
    model: Floats = ((called & positive[:, None]).sum(0) - odds * (called & ~positive[:, None]).sum(0)) / count
    everyone: Floats = (positive.sum() - odds * (~positive).sum()) / count
    return model, everyone
