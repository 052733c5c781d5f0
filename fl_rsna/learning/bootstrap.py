"""Doubt from patients: draw whole patients with replacement, and carry every metric through the draws at once.

A draw is a weight a patient. What is a sum over slices is summed by patient first, so that a resample costs a row of
a matrix product and not a pass over the slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
MIN_PATIENTS = 5  # with a positive slice, and with a negative one: below, resampling them cannot show the doubt
TAILS = (0.025, 0.975)
CHUNK = 64  # columns of weights that are worked on at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with its 95% interval and what it rests on.

    `value` is None where the data cannot define it. `low` and `high` are None where resampling patients cannot show
    the doubt: fewer than MIN_PATIENTS patients with a positive slice (when one patient holds all positives, every
    resample shows that patient or nothing), or with a negative one.
    """

    value: float | None
    low: float | None
    high: float | None
    positives: int
    negatives: int
    positive_patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Rows [N] by patient, and the weights [P, 1 + R] of patients: column 0 is the data as it is, the others resamples."""

    member: NDArray[np.int64]
    weights: NDArray[np.int16]

    @property
    def patients(self) -> int:
        return len(self.weights)

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        """A few columns of weights at a time, as floats."""
        for start in range(0, self.weights.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            yield part, self.weights[:, part].astype(np.float64)

    def of_rows(self, patients: NDArray[np.generic]) -> "Drawn":
        """The same draws for other rows (exams) of the same patients."""
        names, member = np.unique(patients, return_inverse=True)
        assert len(names) == self.patients
        return replace(self, member=member)

    def point_only(self) -> "Drawn":
        """Without resamples: for what can have no interval."""
        return replace(self, weights=self.weights[:, :1])


def draw_patients(patients: NDArray[np.generic], *, seed: int, resamples: int = RESAMPLES) -> Drawn:
    """Draws for rows [N] of the given patients; the same patients and seed give the same draws."""
    names, member = np.unique(patients, return_inverse=True)
    count = len(names)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return Drawn(member=member, weights=np.vstack([np.ones((1, count)), draws]).astype(np.int16).T.copy())


def by_patient(drawn: Drawn, *columns: NDArray[np.generic]) -> Floats:
    """Sums over each patient's rows [P, K] of K columns [N]."""
    return np.stack([np.bincount(drawn.member, column, minlength=drawn.patients) for column in columns], axis=1)


def totals(drawn: Drawn, sums: Floats) -> Floats:
    """Sums by patient [P, K] as every draw weighs them: [K, 1 + R]."""
    found = np.empty((sums.shape[1], drawn.weights.shape[1]))
    for part, weights in drawn.chunks():
        found[:, part] = sums.T @ weights
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What a label's metrics rest on."""

    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int

    @property
    def enough(self) -> bool:
        return min(self.positive_patients, self.negative_patients) >= MIN_PATIENTS


def support(drawn: Drawn, labels: NDArray[np.float32]) -> Support:
    """Rows and patients with label [N] 1, and with 0."""
    positive, negative = by_patient(drawn, labels, 1 - labels).T
    return Support(
        positives=int(positive.sum()),
        negatives=int(negative.sum()),
        positive_patients=int((positive > 0).sum()),
        negative_patients=int((negative > 0).sum()),
    )


def estimate(values: Floats, found: Support) -> Estimate:
    """A metric from its values [1 + R]: as it is, and as resampled (NaN where a resample leaves it undefined)."""
    low, high = interval(values[1:]) if found.enough else (None, None)
    return Estimate(
        value=float(values[0]) if np.isfinite(values[0]) else None,
        low=low,
        high=high,
        positives=found.positives,
        negatives=found.negatives,
        positive_patients=found.positive_patients,
    )


def interval(resampled: Floats) -> tuple[float, float] | tuple[None, None]:
    """95% of resampled values [R]; none where fewer than half of the resamples are defined."""
    kept = resampled[np.isfinite(resampled)]
    if len(kept) == 0 or len(kept) < len(resampled) / 2:
        return None, None
    low, high = np.quantile(kept, TAILS)
    return float(low), float(high)
