"""A site's training patients in folds, so that a model can be asked about patients it never saw.

Stacking rests on it: what a second model learns from must come from first models to which the slice's patient was a
stranger. A fold is whole patients, and leaving one out leaves it out of everything that is made of the training part.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.partition.partitioners import rarest_labels
from fl_rsna.cohort.partition.split import greedy_folds
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.task import Task

LEFT_OUT = "left out"  # the part of slices that a fold's model must not see


def fold_of(data: SiteData, task: Task, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold, 0 to `folds` - 1, of each of the site's slices [N]; -1 outside its training part.

    Each patient, in seeded order, goes to the fold that has fewest of its rarest label. Raises ValueError when a fold
    would be empty.
    """
    table, key = data.index, task.group_key
    train = table.iloc[data.rows("train")]
    check_patients(data.name, int(train[key].nunique()), folds)
    dealt = greedy_folds(rarest_labels(train, task), folds, derive_seed(seed, "stacking folds", data.name))
    fold = {patient: number for number, members in enumerate(dealt) for patient in members}
    found = np.full(len(table), -1, np.int64)
    found[data.rows("train")] = train[key].map(fold).to_numpy(np.int64)
    return found


def check_patients(site: str, patients: int, folds: int) -> None:
    """Refuse more folds than a site has training patients."""
    if patients < max(2, folds):
        raise ValueError(
            f"stacking.folds: expected at least {max(2, folds)} training patients at {site}, got {patients}; "
            "lower it or take fewer, larger sites"
        )


def without_fold(data: SiteData, task: Task, folds: int, left_out: int, seed: int) -> SiteData:
    """The same site without one fold's patients: their slices are in no part that anything is made of."""
    split = data.index["split"].to_numpy(object).copy()
    split[fold_of(data, task, folds, seed) == left_out] = LEFT_OUT
    return replace(data, index=data.index.assign(split=split))
