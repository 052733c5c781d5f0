"""Predictions of the folds' models as logits in the order of a site's index, which a network along the series reads."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.federation.out_of_fold import read_tables
from fl_rsna.learning.dataset import SiteData
from fl_rsna.learning.predictions import probabilities_in
from fl_rsna.learning.stack_features import clipped_logits
from fl_rsna.task import Task

Logits = NDArray[np.float32]


def kept_logits(data: SiteData, task: Task, paths: Iterable[Path]) -> Logits:
    """[N, L], of training slices by the model that never saw the patient, of validation slices by the mean of all; others 0."""
    return in_index(data.index, pd.concat(read_tables(paths, task), ignore_index=True), task)


def in_index(index: pd.DataFrame, table: pd.DataFrame, task: Task) -> Logits:
    """Logits [N, L] of a table's probabilities in the order of `index`; 0 for slices it does not hold."""
    found = np.zeros((len(index), len(task.labels)), np.float32)
    rows = pd.Index(index["image_id"]).get_indexer(pd.Index(table["image_id"]))
    assert (rows >= 0).all(), "a prediction is of no slice here"
    found[rows] = clipped_logits(probabilities_in(table, task.labels))
    return found
