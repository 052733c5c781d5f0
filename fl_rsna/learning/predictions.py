"""What a model says of many slices as a table: ids, labels as `label_<name>`, probabilities as `probability_<name>`."""

from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.learning.dataset import SiteData
from fl_rsna.task import Task

IDS = ["image_id", "patient_id", "study_id", "series_id", "rank"]
LABEL, PROBABILITY = "label_", "probability_"


def prediction_table(
    data: SiteData, rows: NDArray[np.intp], probabilities: NDArray[np.float32], task: Task
) -> pd.DataFrame:
    """One row a slice of `rows`, in their order; `probabilities` [N, L] in the task's order."""
    table = data.index.iloc[rows][IDS].reset_index(drop=True)
    labels = {f"{LABEL}{name}": _whole(data.labels[rows, i]) for i, name in enumerate(task.labels)}
    return table.assign(**labels, **{f"{PROBABILITY}{name}": probabilities[:, i] for i, name in enumerate(task.labels)})


def _whole(labels: NDArray[np.float32]) -> NDArray[np.generic]:
    """Labels [N] as int8, or as they are where some are unknown, NaN."""
    return labels if np.isnan(labels).any() else labels.astype(np.int8)


def labels_in(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.float32]:
    """float32 [N, L] of these labels; NaN is unknown."""
    return _columns(table, LABEL, names)


def probabilities_in(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.float32]:
    """float32 [N, L] of these labels' probabilities."""
    return _columns(table, PROBABILITY, names)


def _columns(table: pd.DataFrame, prefix: str, names: Iterable[str]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", table[[f"{prefix}{name}" for name in names]].to_numpy(np.float32))
