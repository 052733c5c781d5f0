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
CHUNK = 64  # columns of weights that are worked on at once


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
