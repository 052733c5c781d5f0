"""Compute 95% confidence intervals from patients: draw whole patients with replacement, and compute a metric in all draws at once.

A draw is one weight for each patient. Sums over slices are first taken within each patient, so a resample costs one row of a matrix
product instead of a pass over the slices.

The interval is theta -+ t * se on a scale without bounds. With c the number of patients who carry the metric, se is the standard
deviation over the resamples times sqrt(c / (c - 1)), which corrects that a resample varies too little, and t has c - 1 degrees of
freedom. Plain percentiles of the resamples are too narrow for few patients, and near 1 they lean to the wrong side
(Hesterberg 2015). `studies/interval_coverage.py` compares both intervals, and settled which patients carry which metric.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit  # scipy.stats takes as long to load as all else here

from fl_rsna.learning.metrics.figures import EstimateFigures

Floats = NDArray[np.float64]

RESAMPLES = 2000
CHUNK = 64  # columns of weights in one matrix product
MIN_PATIENTS = 5  # with a positive slice, and with a negative one; with fewer, resampling cannot show the uncertainty
TAIL = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """R resamples of P patients: the patient of each row [N], and the weight of each patient in each draw [P, 1 + R].

    Column 0 of the weights is the data as they are, with weight 1 for every patient; the other columns are resamples.
    """

    member: NDArray[np.int64]
    weights: NDArray[np.int16]

    @property
    def patients(self) -> int:
        """Return the number of patients, P."""
        return len(self.weights)

    def chunks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield CHUNK columns of weights at a time: which columns they are, and the weights as floats."""
        for start in range(0, self.weights.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            yield part, self.weights[:, part].astype(np.float64)

    def of_rows(self, patients: NDArray[np.generic]) -> "Drawn":
        """Return the same draws for other rows, such as exams, of the same patients; `patients` [E] names the patient of each row."""
        names, member = np.unique(patients, return_inverse=True)
        assert len(names) == self.patients
        return replace(self, member=member)

    def among(self, rows: NDArray[np.bool_]) -> "Drawn":
        """Return the same draws for the rows where `rows` [N] is True; patients without such a row are left out."""
        if rows.all():
            return self
        patients, member = np.unique(self.member[rows], return_inverse=True)
        return Drawn(member=member, weights=self.weights[patients])

    def point_only(self) -> "Drawn":
        """Return the draw without resamples, for a metric that can have no interval."""
        return replace(self, weights=self.weights[:, :1])


def draw_patients(patients: NDArray[np.generic], *, seed: int, resamples: int = RESAMPLES) -> Drawn:
    """Draw resamples for rows whose patients [N] are given; the same patients and seed give the same draws."""
    names, member = np.unique(patients, return_inverse=True)
    count = len(names)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.ones((count, 1 + resamples), np.int16)
    weights[:, 1:] = draws.T
    return Drawn(member=member, weights=weights)


def by_patient(drawn: Drawn, *columns: NDArray[np.generic]) -> Floats:
    """Sum K columns [N] over each patient's rows: [P, K]."""
    return np.stack([np.bincount(drawn.member, column, minlength=drawn.patients) for column in columns], axis=1)


def totals(drawn: Drawn, sums: Floats) -> Floats:
    """Add up sums by patient [P, K] with the weights of every draw: [K, 1 + R]."""
    found = np.empty((sums.shape[1], drawn.weights.shape[1]))
    for part, weights in drawn.chunks():
        found[:, part] = sums.T @ weights
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with its 95% interval and the counts it rests on.

    `value` is None where the data do not define it. `low` and `high` are None where resampling patients cannot show the
    uncertainty: with fewer than MIN_PATIENTS patients with a positive slice (where one patient holds all positives, every
    resample holds that patient or no positive at all), or with a negative one.
    """

    value: float | None
    low: float | None
    high: float | None
    positives: int
    negatives: int
    positive_patients: int

    def to_json(self) -> EstimateFigures:
        """Return the estimate as plain values."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "positives": self.positives,
            "negatives": self.negatives,
            "positive_patients": self.positive_patients,
        }


class Scale(StrEnum):
    """The range of a metric, which decides on which scale its interval is symmetric."""

    share = "share"  # 0 to 1: logit
    positive = "positive"  # above 0, as a loss or a ratio: logarithm
    difference = "difference"  # of either sign: no change of scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The counts that a label's metrics rest on: positive and negative rows, and the patients who have such a row."""

    positives: int
    negatives: int
    patients: int
    positive_patients: int
    negative_patients: int

    @property
    def fewest(self) -> int:
        """The smaller of the numbers of patients with a positive row and with a negative row."""
        return min(self.positive_patients, self.negative_patients)

    @property
    def enough(self) -> bool:
        """Tell whether there are enough patients of both kinds for an interval: MIN_PATIENTS of each."""
        return self.fewest >= MIN_PATIENTS


def patients(drawn: Drawn, rows: NDArray[np.bool_]) -> int:
    """Count the patients who have a row where `rows` [N] is True."""
    return int(np.count_nonzero(np.bincount(drawn.member[rows], minlength=drawn.patients)))


def support(drawn: Drawn, labels: NDArray[np.float32]) -> Support:
    """Count the rows with label 1 and with label 0 in `labels` [N], and their patients."""
    positive = labels > 0
    return Support(
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        patients=drawn.patients,
        positive_patients=patients(drawn, positive),
        negative_patients=patients(drawn, ~positive),
    )


def estimate(values: Floats, found: Support, carriers: int, scale: Scale = Scale.share) -> Estimate:
    """Make an estimate from a metric's values [1 + R]: first of the data, then of each resample (NaN where it is undefined).

    `carriers` is the number of patients whose rows the metric is a mean of: for a sensitivity those with a positive row, for an
    AUROC the smaller of those with a positive and those with a negative row, for a loss all patients.
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
    """Compute the 95% interval of a metric's values [1 + R]; None twice where the value, or more than half of the resamples, is undefined.

    There is none for fewer than MIN_PATIENTS carriers either. A share of exactly 0 or 1 never varies in a resample; it gets the
    interval of 0 or all of `carriers` trials (Clopper and Pearson 1934), with each patient as one trial.
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
    """Compute the interval of a share on the logit scale.

    The logits of resamples of exactly 0 and 1 are infinite. The standard deviation is therefore the larger of two: that of the
    logits of the other resamples, and the first-order one, std(resamples) / (value * (1 - value)), of all.
    """
    if value in (0.0, 1.0):
        edge = float(TAIL ** (1 / carriers))
        return (edge, 1.0) if value else (0.0, 1 - edge)
    inside = resampled[(resampled > 0) & (resampled < 1)]
    spread = max(resampled.std() / (value * (1 - value)), logit(inside).std() if len(inside) else 0.0)
    return float(expit(logit(value) - times * spread)), float(expit(logit(value) + times * spread))
