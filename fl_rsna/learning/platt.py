"""A label's probabilities made honest by a slope and an intercept of their logits, from the sums that choose temperatures.

Platt 1999, by Newton's method over bins of logits. A temperature keeps probabilities of 1/2 where they are; an intercept
also makes their mean that of the labels, without which a prevalence cannot be estimated elsewhere (Alexandari, Kundaje and
Shrikumar 2020, arXiv:1901.06852).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.learning.operating import BINS, LOGITS
from fl_rsna.learning.saturated import finite_logits

CENTRES = -LOGITS + (np.arange(BINS) + 0.5) * (2 * LOGITS / BINS)  # logit in the middle of every bin
SLOPES = (0.1, 10.0)  # as far as temperatures go
LOOSE = np.array([0.5, 1.0])  # standard deviations of slope and intercept about 1 and 0, before any slice is seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """sigmoid(slope * logit + intercept), whose mean where it was fitted is `prevalence`."""

    slope: float
    intercept: float
    prevalence: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Platt":
        return cls(**{name: float(found[name]) for name in ("slope", "intercept", "prevalence")})


def fit_platt(counts: NDArray[np.integer] | NDArray[np.floating]) -> Platt:
    """From one label's counts [2, BINS] of negatives and positives, both with some, by the bin of their logit.

    LOOSE keeps a handful of positives from bending the line at will, and those that stand apart from making it certain.
    """
    negatives, positives = counts.astype(np.float64)
    weights = negatives + positives
    slope, intercept = 1.0, 0.0
    for _ in range(100):
        found = expit(slope * CENTRES + intercept)
        error, spread = weights * found - positives, weights * found * (1 - found) + 1e-12
        away = np.array([slope - 1, intercept])
        gradient = np.array([error @ CENTRES, error.sum()]) + away / LOOSE**2
        bend = np.array([[spread @ CENTRES**2, spread @ CENTRES], [spread @ CENTRES, spread.sum()]])
        step = np.linalg.solve(bend + np.diag(1 / LOOSE**2), gradient)
        step *= min(1.0, 1.0 / np.abs(step).max()) if step.any() else 1.0
        slope, intercept = float(np.clip(slope - step[0], *SLOPES)), float(intercept - step[1])
        if np.abs(step).max() < 1e-9:
            break
    prevalence = float(weights @ expit(slope * CENTRES + intercept) / weights.sum())
    return Platt(slope=slope, intercept=intercept, prevalence=prevalence)


def honest(probabilities: NDArray[np.floating], fitted: Platt) -> NDArray[np.float64]:
    """One label's probabilities [N] with their logits on that line."""
    made: NDArray[np.float64] = expit(fitted.slope * finite_logits(probabilities) + fitted.intercept)
    return made
