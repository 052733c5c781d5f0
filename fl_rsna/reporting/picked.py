"""Which slices of the test site explain a model: where it is surest and right, and where it is furthest from right."""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.task import Task

EVEN = 0.5  # the threshold of a run that chose none


class Kind(StrEnum):
    """What became of a slice at the threshold."""

    true_positive = "true positive"
    false_positive = "false positive"
    false_negative = "false negative"
    true_negative = "true negative"


OF_HEADLINE = dict.fromkeys(Kind, 4)  # slices a kind, each of another patient
OF_OTHERS = {Kind.true_positive: 2, Kind.false_positive: 1, Kind.false_negative: 1}


def pick(
    table: pd.DataFrame, task: Task, thresholds: Mapping[str, float], brain_share: NDArray[np.float64]
) -> list[tuple[str, Kind, int]]:
    """(label, kind, row of the predictions) by label, the headline first, and kind, the surest or worst first.

    Labels without a positive slice are left out. True negatives are of the half of slices that show the most brain:
    the surest of all are caps of bone, and explain nothing.
    """
    brainy = brain_share >= np.median(brain_share)
    picked = []
    for label in (task.headline, *(name for name in task.labels if name != task.headline)):
        if not table[f"label_{label}"].any():
            continue
        for kind, most in (OF_HEADLINE if label == task.headline else OF_OTHERS).items():
            rows = extreme(table, label, kind, thresholds[label])
            rows = rows[brainy[rows]] if kind is Kind.true_negative else rows
            fresh = ~pd.Series(table[task.group_key].array[rows]).duplicated().to_numpy()
            picked += [(label, kind, int(row)) for row in rows[fresh][:most]]
    return picked


def extreme(table: pd.DataFrame, label: str, kind: Kind, threshold: float) -> NDArray[np.intp]:
    """Rows of a kind: positives from the highest probability down, negatives from the lowest up."""
    probability = table[f"probability_{label}"].to_numpy(np.float64)
    truth, called = table[f"label_{label}"].to_numpy() == 1, probability >= threshold
    match kind:
        case Kind.true_positive:
            where = truth & called
        case Kind.false_positive:
            where = ~truth & called
        case Kind.false_negative:
            where = truth & ~called
        case Kind.true_negative:
            where = ~truth & ~called
    falling = kind in (Kind.true_positive, Kind.false_positive)
    rows = np.flatnonzero(where)
    return rows[np.argsort(-probability[rows] if falling else probability[rows], kind="stable")]
