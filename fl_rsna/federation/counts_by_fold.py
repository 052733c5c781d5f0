"""What a site says of its counts where a fold is left out: nothing from which one could subtract a small one.

The counts of all training slices are told once, and those without a fold K times; each difference is a fold's. So a
label of which any fold holds few is withheld in all of the K, and a site with a fold of few slices stays out.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.sites import counts
from fl_rsna.config import StackingConfig
from fl_rsna.federation.disclosure import is_small, shown
from fl_rsna.learning.dataset import SiteData
from fl_rsna.learning.folds import LEFT_OUT, fold_of, without_fold
from fl_rsna.task import LabelKind, Task


def counts_by_fold(
    data: SiteData, task: Task, stacking: StackingConfig, seed: int, k: int, whole: dict[str, Any]
) -> dict[str, Any]:
    """`whole` where no fold is left out, else the counts without it. Raises ValueError for a fold of 1 to k - 1 slices."""
    fold = fold_of(data, task, stacking.folds, seed)
    slices = np.bincount(fold[fold >= 0], minlength=stacking.folds)
    if any(is_small(int(count), k) for count in slices):
        raise ValueError(
            f"privacy.min_count: expected at least {k} slices in each of {stacking.folds} folds at every site, got fewer "
            "here; lower it or stacking.folds, or leave this site out"
        )
    if stacking.left_out is None:
        return whole
    rest = counts(without_fold(data, task, stacking.folds, stacking.left_out, seed).index, task)
    rest.pop(LEFT_OUT, None)
    few = {label for i, label in enumerate(task.labels) if _few(data.labels[:, i], fold, stacking.folds, k)}
    few |= {label for label, count in whole["train"]["positives"].items() if count is None}
    if few and task.kind is LabelKind.multi_class:
        few = set(task.labels)  # classes add up to all
    train = rest["train"]
    told = {label: None if label in few else count for label, count in train["positives"].items()}
    patients = None if k > 1 else shown(train["patients"], k)
    return {**whole, "train": {**train, "patients": patients, "positives": told}}


def _few(labels: NDArray[np.float32], fold: NDArray[np.int64], folds: int, k: int) -> bool:
    """Whether any fold, or the rest without it, has 1 to k - 1 positives or negatives."""
    sides = [fold == number for number in range(folds)]
    sides += [(fold >= 0) & ~side for side in sides]
    return any(
        is_small(count, k)
        for side in sides
        for count in (int((labels[side] > 0).sum()), int((labels[side] == 0).sum()))
    )
