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
        name: asdict(estimate(values, rests_on, _carriers(name, positive, flagged, drawn)))
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


def _carriers(name: str, positive: NDArray[np.bool_], flagged: NDArray[np.bool_], drawn: Drawn) -> int:
    """Patients with a row that the ratio is a share of; what spoils an NPV is in the positive ones only, so they count if fewer."""
    match name:
        case "specificity":
            return patients(drawn, ~positive)
        case "ppv":
            return patients(drawn, flagged)
        case "npv":
            return min(patients(drawn, ~flagged), patients(drawn, positive))
        case "f1":
            return patients(drawn, positive | flagged)
        case _:
            return patients(drawn, positive)
