"""Do probabilities mean what they say: expected calibration error, Brier score and the reliability curve."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics.bootstrap import (
    Drawn,
    Estimate,
    Floats,
    Scale,
    Support,
    by_patient,
    estimate,
    interval,
    patients,
    totals,
)
from fl_rsna.learning.metrics.metrics import label_losses

BINS = 15  # of equal width on [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Log loss, Brier score and ECE of one label, and the bins of its reliability curve as plain values."""

    log_loss: Estimate
    brier: Estimate
    ece: Estimate
    bins: list[dict[str, Any]]


def calibration(
    labels: NDArray[np.float32], probabilities: NDArray[np.floating], drawn: Drawn, rests_on: Support
) -> Calibration:
    """Of one label's rows [N]. ECE: mean |share of positives - mean probability| over BINS bins, weighted by their rows.

    (Naeini et al. 2015; Guo et al. 2017.) It cannot be negative, so noise alone lifts it where bins hold few patients.
    """
    found = probabilities.astype(np.float64)
    losses, squares = label_losses(labels, found), (found - labels) ** 2
    loss, square, rows = totals(drawn, by_patient(drawn, losses, squares, np.ones(len(found))))
    bins = np.minimum((found * BINS).astype(np.int64), BINS - 1)
    counts, means, positives = (
        totals(drawn, _by_patient_and_bin(drawn, bins, column)) for column in (np.ones(len(found)), found, labels)
    )
    return Calibration(
        log_loss=estimate(loss / rows, rests_on, rests_on.patients, Scale.positive),
        brier=estimate(square / rows, rests_on, rests_on.patients),
        ece=estimate(np.abs(positives - means).sum(0) / rows, rests_on, rests_on.patients),
        bins=_curve(drawn, bins, counts, means, positives),
    )


def _by_patient_and_bin(drawn: Drawn, bins: NDArray[np.int64], column: NDArray[np.floating]) -> Floats:
    sums = np.bincount(drawn.member * BINS + bins, column, minlength=drawn.patients * BINS)
    return sums.astype(np.float64, copy=False).reshape(drawn.patients, BINS)


def _curve(
    drawn: Drawn, bins: NDArray[np.int64], counts: Floats, means: Floats, positives: Floats
) -> list[dict[str, Any]]:
    """The bins, each with the 95% interval of its share of positives; none with slices of fewer than MIN_PATIENTS patients."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = positives / counts
    bands = [interval(share, patients(drawn, bins == i)) for i, share in enumerate(shares)]
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "count": int(counts[i, 0]),
            "mean": float(means[i, 0] / counts[i, 0]) if counts[i, 0] else None,
            "share": float(shares[i, 0]) if counts[i, 0] else None,
            "share_low": bands[i][0],
            "share_high": bands[i][1],
        }
        for i in range(BINS)
    ]
