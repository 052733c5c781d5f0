"""What a threshold does: the confusion matrix, and what is read from it, with intervals over patients."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.bootstrap import Drawn, Floats, by_patient, totals
from fl_rsna.learning.intervals import Support, estimate, patients


def called(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Rows predicted positive: probability >= threshold, compared in float64."""
    return probabilities.astype(np.float64) >= threshold


def at_threshold(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    threshold: float,
    drawn: Drawn,
    rests_on: Support,
) -> dict[str, Any]:
    """Confusion counts of one label's rows [N] at a threshold, and their ratios as estimates."""
    positive, flagged = labels > 0, called(probabilities, threshold)
    tp, fp, tn, fn = totals(
        drawn,
        by_patient(drawn, positive & flagged, ~positive & flagged, ~positive & ~flagged, positive & ~flagged),
    )
    shown = {
        name: asdict(estimate(values, rests_on, patients(drawn, _shared(name, positive, flagged))))
        for name, values in ratios(tp, fp, tn, fn).items()
    }
    counts = {"tp": int(tp[0]), "fp": int(fp[0]), "tn": int(tn[0]), "fn": int(fn[0])}
    return {"threshold": threshold, **counts, **shown}


def ratios(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Sensitivity and its kin from confusion counts; NaN where nothing is there to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "false_negative_rate": fn / (tp + fn),
        }


def _shared(name: str, positive: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows [N] a ratio is a share of."""
    match name:
        case "specificity":
            return ~positive
        case "ppv":
            return flagged
        case "npv":
            return ~flagged
        case "f1":
            return positive | flagged
        case _:
            return positive
