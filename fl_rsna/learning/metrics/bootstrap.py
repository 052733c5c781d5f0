"""Compute confidence intervals by drawing whole patients with replacement, with every metric in all draws at once.

A draw is one weight for each patient. Sums over slices are first made for each patient, so that a resample costs a row of a matrix
product and not a pass over the slices.

The interval is theta -+ t * se on a scale without bounds. Let c be the number of patients whose rows the metric is a mean of. Then se is
the standard deviation over the resamples times sqrt(c / (c - 1)), as resamples vary too little by that factor, and t has c - 1 degrees
of freedom. Plain percentiles of the resamples are too narrow for few patients, and near 1 they are skewed to the wrong side (Hesterberg
2015). `studies/interval_coverage.py` measured the coverage of both intervals, and decided which patients count for each metric.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit  # importing scipy.stats would double the time of import

Floats = NDArray[np.float64]

RESAMPLES = 2000
CHUNK = 64  # columns of weights in a chunk
MIN_PATIENTS = 5  # fewest patients with a positive slice, and with a negative one, that give an interval
TAIL = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The patient of each row [N], and the weights [P, 1 + R] of patients: column 0 is the data itself, the others are resamples."""

    member: NDArray[np.int64]
    weights: NDArray[np.int16]

    @property
    def patients(self) -> int:
        """The number of patients."""
        return len(self.weights)

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield CHUNK columns of weights at a time, as their slice and as floats."""
        for start in range(0, self.weights.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            yield part, self.weights[:, part].astype(np.float64)

    def of_rows(self, patients: NDArray[np.generic]) -> "Drawn":
        """Return the draws for other rows (exams) of the same patients."""
        names, member = np.unique(patients, return_inverse=True)
        assert len(names) == self.patients
        return replace(self, member=member)

    def among(self, rows: NDArray[np.bool_]) -> "Drawn":
        """Return the draws for the rows where `rows` [N] is true, with only the patients who have such a row."""
        if rows.all():
            return self
        patients, member = np.unique(self.member[rows], return_inverse=True)
        return Drawn(member=member, weights=self.weights[patients])

    def point_only(self) -> "Drawn":
        """Return the draws without resamples, for a metric that can have no interval."""
        return replace(self, weights=self.weights[:, :1])


def draw_patients(patients: NDArray[np.generic], *, seed: int, resamples: int = RESAMPLES) -> Drawn:
    """Draw patients for rows [N] of `patients`; equal patients and seeds give equal draws."""
    names, member = np.unique(patients, return_inverse=True)
    count = len(names)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.ones((count, 1 + resamples), np.int16)
    weights[:, 1:] = draws.T
    return Drawn(member=member, weights=weights)


def by_patient(drawn: Drawn, *columns: NDArray[np.generic]) -> Floats:
    """Sum K columns [N] over each patient's rows, [P, K]."""
    return np.stack([np.bincount(drawn.member, column, minlength=drawn.patients) for column in columns], axis=1)


def totals(drawn: Drawn, sums: Floats) -> Floats:
    """Weight the sums by patient [P, K] by every draw and add them, [K, 1 + R]."""
    found = np.empty((sums.shape[1], drawn.weights.shape[1]))
    for part, weights in drawn.chunks():
        found[:, part] = sums.T @ weights
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with its 95% interval, and the numbers of rows and patients on which it is based.

    `value` is None where the data do not define it. `low` and `high` are None where resampling patients cannot show the
    uncertainty: with fewer than MIN_PATIENTS patients with a positive slice, or with a negative one. If one patient had all
    positives, every resample would hold that patient's or none.
    """

    value: float | None
    low: float | None
    high: float | None
    positives: int
    negatives: int
    positive_patients: int


class Scale(StrEnum):
    """The range of a metric, which decides the scale on which its interval is symmetric."""

    share = "share"  # 0 to 1; symmetric in the logit
    positive = "positive"  # above 0, such as a loss or a ratio; symmetric in the logarithm
    difference = "difference"  # any sign; symmetric in the value itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The numbers of a label's positive and negative rows, and of the patients who have such a row."""

    positives: int
    negatives: int
    patients: int
    positive_patients: int
    negative_patients: int

    @property
    def fewest(self) -> int:
        """The smaller of the numbers of patients with a positive and with a negative row."""
        return min(self.positive_patients, self.negative_patients)

    @property
    def enough(self) -> bool:
        """Whether there are enough patients for an interval."""
        return self.fewest >= MIN_PATIENTS


def patients(drawn: Drawn, rows: NDArray[np.bool_]) -> int:
    """Count the patients who have a row where `rows` [N] is true."""
    return int(np.count_nonzero(np.bincount(drawn.member[rows], minlength=drawn.patients)))


def support(drawn: Drawn, labels: NDArray[np.float32]) -> Support:
    """Count the rows, and the patients with such a row, where `labels` [N] is 1, and where it is 0."""
    positive = labels > 0
    return Support(
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        patients=drawn.patients,
        positive_patients=patients(drawn, positive),
        negative_patients=patients(drawn, ~positive),
    )


def estimate(values: Floats, found: Support, carriers: int, scale: Scale = Scale.share) -> Estimate:
    """Estimate a metric from its values [1 + R]: of the data first, then of each resample (NaN where it is undefined).

    `carriers` is the number of patients whose rows the metric is a mean of: for a sensitivity those with a positive row, for an
    AUROC the fewer of those with a positive and with a negative row, for a loss all.
    """
    low, high = interval(values, carriers, scale) if found.enough else (None, None)
    return Estimate(
        value=float(values[0]) if np.isfinite(values[0]) else None,
        low=low,
        high=high,
        positives=found.positives,
        negatives=found.negatives,
        positive_patients=found.positive_patients,
    )


def interval(values: Floats, carriers: int, scale: Scale = Scale.share) -> tuple[float, float] | tuple[None, None]:
    """Compute the 95% interval of values [1 + R]; none where the value, or more than half of the resamples, is undefined.

    A share of exactly 0 or 1 never varies in a resample. Its interval is that of 0 or of all of `carriers` trials (Clopper and
    Pearson 1934), with each patient as one trial.
    """
    value, resampled = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or len(resampled) < max(1, (len(values) - 1) / 2) or carriers < MIN_PATIENTS:
        return None, None
    times = float(stdtrit(carriers - 1, 1 - TAIL) * np.sqrt(carriers / (carriers - 1)))
    match scale:
        case Scale.share:
            return _share(value, resampled, times, carriers)
        case Scale.positive:
            spread = float(np.exp(times * resampled.std() / value)) if value > 0 else np.inf
            return (value / spread, value * spread) if np.isfinite(spread) else (None, None)
        case Scale.difference:
            reach = float(times * resampled.std())
            return value - reach, value + reach


def _share(value: float, resampled: Floats, times: float, carriers: int) -> tuple[float, float]:
    """Compute the interval on the logit scale, on which resamples of 0 and 1 are infinite.

    The standard deviation is the larger of two: that of the logits of the other resamples, and that of all resamples to first order.
    """
    if value in (0.0, 1.0):
        edge = float(TAIL ** (1 / carriers))
        return (edge, 1.0) if value else (0.0, 1 - edge)
    inside = resampled[(resampled > 0) & (resampled < 1)]
    spread = max(resampled.std() / (value * (1 - value)), logit(inside).std() if len(inside) else 0.0)
    return float(expit(logit(value) - times * spread)), float(expit(logit(value) + times * spread))
