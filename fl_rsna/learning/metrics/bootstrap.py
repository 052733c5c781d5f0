"""Confidence intervals from patients: draw whole patients with replacement, and compute every metric in all draws at once.

A draw is a weight a patient. What is a sum over slices is summed by patient first, so that a resample costs a row of
a matrix product and not a pass over the slices.

The interval is theta -+ t * se on a scale without bounds. Of the c patients who carry the metric, se is the standard
deviation over the resamples times sqrt(c / (c - 1)), as a resample varies too little by as much, and t has c - 1 degrees of
freedom. Plain percentiles of the resamples are too narrow for few patients, and near 1 they lean to the wrong side
(Hesterberg 2015). Who carries a metric was settled by `studies/interval_coverage.py`, which shows both intervals.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit  # scipy.stats takes as long to load as all else here

Floats = NDArray[np.float64]

RESAMPLES = 2000
CHUNK = 64  # columns of weights that are worked on at once
MIN_PATIENTS = 5  # with a positive slice, and with a negative one: below, resampling them cannot show the doubt
TAIL = 0.025


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

    def among(self, rows: NDArray[np.bool_]) -> "Drawn":
        """The same draws for some of the rows [N], and of the patients only those who have one."""
        if rows.all():
            return self
        patients, member = np.unique(self.member[rows], return_inverse=True)
        return Drawn(member=member, weights=self.weights[patients])

    def point_only(self) -> "Drawn":
        """Without resamples: for what can have no interval."""
        return replace(self, weights=self.weights[:, :1])


def draw_patients(patients: NDArray[np.generic], *, seed: int, resamples: int = RESAMPLES) -> Drawn:
    """Draws for rows [N] of the given patients; the same patients and seed give the same draws."""
    names, member = np.unique(patients, return_inverse=True)
    count = len(names)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.ones((count, 1 + resamples), np.int16)
    weights[:, 1:] = draws.T
    return Drawn(member=member, weights=weights)


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


class Scale(StrEnum):
    """Where a metric lives, and so on which scale its interval is even on both sides."""

    share = "share"  # 0 to 1: logit
    positive = "positive"  # above 0, as a loss or a ratio: logarithm
    difference = "difference"  # either side of 0: as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What a label's metrics rest on: rows, and the patients who have such a row."""

    positives: int
    negatives: int
    patients: int
    positive_patients: int
    negative_patients: int

    @property
    def fewest(self) -> int:
        """Patients of the rarer kind."""
        return min(self.positive_patients, self.negative_patients)

    @property
    def enough(self) -> bool:
        return self.fewest >= MIN_PATIENTS


def patients(drawn: Drawn, rows: NDArray[np.bool_]) -> int:
    """How many patients have such a row, of [N]."""
    return int(np.count_nonzero(np.bincount(drawn.member[rows], minlength=drawn.patients)))


def support(drawn: Drawn, labels: NDArray[np.float32]) -> Support:
    """Rows and patients with label [N] 1, and with 0."""
    positive = labels > 0
    return Support(
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        patients=drawn.patients,
        positive_patients=patients(drawn, positive),
        negative_patients=patients(drawn, ~positive),
    )


def estimate(values: Floats, found: Support, carriers: int, scale: Scale = Scale.share) -> Estimate:
    """A metric from its values [1 + R]: as it is, and as resampled (NaN where a resample leaves it undefined).

    `carriers` are the patients whose rows the metric is a mean of: for a sensitivity those with a positive, for an AUROC
    the rarer kind, for a loss all.
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
    """95% interval of values [1 + R]; none where the value, or more than half of the resamples, is undefined.

    A share of exactly 0 or 1 never varies in a resample. Its interval is that of 0 or all of `carriers` trials (Clopper
    and Pearson 1934), which takes each patient for one trial.
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
    """On the logit scale, where resamples of 0 and 1 have no place: the larger of the deviation of the others and, from all, of the first order."""
    if value in (0.0, 1.0):
        edge = float(TAIL ** (1 / carriers))
        return (edge, 1.0) if value else (0.0, 1 - edge)
    inside = resampled[(resampled > 0) & (resampled < 1)]
    spread = max(resampled.std() / (value * (1 - value)), logit(inside).std() if len(inside) else 0.0)
    return float(expit(logit(value) - times * spread)), float(expit(logit(value) + times * spread))
