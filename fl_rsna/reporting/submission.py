"""Kaggle's submission format of the RSNA 2019 challenge: one row an image and label, `ID_<image>_<label>,Label`."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.learning.blend import bounded
from fl_rsna.task import Task

CLIP = 1e-6  # a probability of 0 or 1 that is wrong costs as much as all others together


def submission(ids: Sequence[str], found: NDArray[np.floating], task: Task) -> pd.DataFrame:
    """The rows of submission.csv for images `ids` and probabilities [N, L], sorted by image, then in the task's order.

    Ids are the images' own, never hashed: RSNA's begin with ID_ already. The union label is raised to the greatest of
    the others, which it cannot be less likely than, and everything is clipped to [1e-6, 1 - 1e-6].
    """
    clipped = np.clip(bounded(found, task), CLIP, 1 - CLIP)
    order = np.argsort(np.asarray(ids, dtype=str), kind="stable")
    names = [f"{ids[place]}_{label}" for place in order for label in task.labels]
    return pd.DataFrame({"ID": names, "Label": clipped[order].reshape(-1)})


def check_submission(table: pd.DataFrame, rows: Collection[str], where: str) -> None:
    """Refuse what Kaggle would not take: every id of `rows` exactly once and no other, with a probability that is one."""
    if list(table.columns) != ["ID", "Label"]:
        raise ValueError(f"{where}: expected the columns ID and Label, got {', '.join(map(str, table.columns))}")
    ids, asked = table["ID"].astype(str), set(rows)
    lacking, strange, twice = asked - set(ids), set(ids) - asked, set(ids[ids.duplicated()])
    for what, found in (("no row", lacking), ("a row nobody asked", strange), ("more than one row", twice)):
        if found:
            raise ValueError(f"{where}: expected {len(asked)} rows, got {what} for {len(found)} ids, as {min(found)}")
    values = pd.to_numeric(table["Label"], errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ValueError(
            f"{where}: expected probabilities of 0 to 1, got others in {wrong.sum()} rows, as {ids[wrong].iloc[0]}"
        )


def rows_of(images: Sequence[str], task: Task) -> list[str]:
    """The ids that a submission about these images has."""
    return [f"{image}_{label}" for image in images for label in task.labels]


def left_out(rejected: pd.DataFrame, scored: Sequence[str]) -> list[str]:
    """Images that were rejected and that Kaggle wants a row for all the same: those that say their id, in the file or by

    a name like ID_0123abcd.dcm.
    """
    stems = rejected["path"].str.extract(r"([^/]*?)(?:\.dcm)?$", expand=False)
    named = rejected["image_id"].where(rejected["image_id"] != "", stems.where(stems.str.match(r"ID_[0-9a-f]+$"), ""))
    return sorted(set(named) - set(scored) - {""})
