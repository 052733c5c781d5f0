"""Split a site's training patients into folds, so that a model can predict patients it was not trained on.

Stacking needs this: a second model must learn from predictions of first models that never saw the slice's patient. A fold holds whole
patients. A fold that is left out is left out of everything that is computed from the training part.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.partition.partitioners import rarest_labels
from fl_rsna.cohort.partition.split import greedy_folds
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.task import Task

LEFT_OUT = "left out"  # `split` of the slices that a fold's model must not see


def fold_of(data: SiteData, task: Task, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold, 0 to `folds` - 1, of each of the site's slices [N]; -1 outside the training part.

    Each patient, in seeded order, goes to the fold that has the fewest patients with the patient's rarest label. Raises
    ValueError when a fold would be empty.
    """
    table, key = data.index, task.group_key
    train = table.iloc[data.rows("train")]
    check_patients(data.name, int(train[key].nunique()), folds)
    members_of = greedy_folds(rarest_labels(train, task), folds, derive_seed(seed, "stacking folds", data.name))
    fold = {patient: number for number, members in enumerate(members_of) for patient in members}
    found = np.full(len(table), -1, np.int64)
    found[data.rows("train")] = train[key].map(fold).to_numpy(np.int64)
    return found


def check_patients(site: str, patients: int, folds: int) -> None:
    """Raise ValueError when a site has fewer training patients than folds, or fewer than two."""
    if patients < max(2, folds):
        raise ValueError(
            f"stacking.folds: expected at least {max(2, folds)} training patients at {site}, got {patients}; "
            "lower it or take fewer, larger sites"
        )


def without_fold(data: SiteData, task: Task, folds: int, left_out: int, seed: int) -> SiteData:
    """Return the site without the patients of the fold `left_out`: their slices are in no part."""
    split = data.index["split"].to_numpy(object).copy()
    split[fold_of(data, task, folds, seed) == left_out] = LEFT_OUT
    return replace(data, index=data.index.assign(split=split))
