"""Make and check submissions as Kaggle takes them.

For labels that is the format of RSNA 2019: a row for each image and label, `ID_<image>_<label>,Label`. For classes it is that of
SIIM-FISABIO-RSNA COVID-19: a row for each study, `<id>_study,PredictionString`, and for each image, `<id>_image,PredictionString`.
"""

from collections.abc import Collection, Sequence, Set

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.learning.inference.blending import enforce_union
from fl_rsna.learning.metrics.saturation import clip_probabilities
from fl_rsna.task import Task

WHOLE = "0 0 1 1"  # the box of a prediction for a study as a whole
NOTHING_DRAWN = f"none 1 {WHOLE}"  # the prediction for an image: no model here finds boxes
CLIP = 1e-6  # a probability of 0 or 1 that is wrong costs as much as all others together


def submission(ids: Sequence[str], found: NDArray[np.floating], task: Task) -> pd.DataFrame:
    """Make the rows of submission.csv for images `ids` and probabilities [N, L], sorted by image, then in the task's order.

    Ids are the images' own, never hashed: RSNA's begin with ID_ already. The union label is raised to the greatest of
    the others, which it cannot be less likely than, and everything is clipped to [1e-6, 1 - 1e-6].
    """
    clipped = clip_probabilities(enforce_union(found, task), CLIP)
    order = np.argsort(np.asarray(ids, dtype=str), kind="stable")
    names = [f"{ids[place]}_{label}" for place in order for label in task.labels]
    return pd.DataFrame({"ID": names, "Label": clipped[order].reshape(-1)})


def class_submission(index: pd.DataFrame, found: NDArray[np.floating], task: Task) -> pd.DataFrame:
    """Make the rows of submission.csv for the images of an index and probabilities [N, L] of classes: studies, then images.

    A study has every class with the mean of its images' probabilities. Ids are the index's, which Kaggle knows only where
    they are not hashed. An image never has a box.
    """
    by_study = pd.DataFrame(found.astype(np.float64), columns=list(task.labels)).groupby(
        index[task.exam_key].to_numpy()
    )
    studies = by_study.mean().sort_index()
    said = [
        " ".join(f"{label} {value:.6f} {WHOLE}" for label, value in zip(task.labels, row, strict=True))
        for row in studies.to_numpy()
    ]
    images = sorted(index["image_id"])
    names = [*(f"{study}_study" for study in studies.index), *(f"{image}_image" for image in images)]
    return pd.DataFrame({"id": names, "PredictionString": [*said, *[NOTHING_DRAWN] * len(images)]})


def check_class_submission(table: pd.DataFrame, index: pd.DataFrame, task: Task, where: str) -> None:
    """Refuse what Kaggle would not take for classes.

    It takes one row for every study and image of an index; a study's row has every class once, with a probability and the
    box of the whole image. Raises ValueError, which names `where`, for anything else.
    """
    if list(table.columns) != ["id", "PredictionString"]:
        raise ValueError(
            f"{where}: expected the columns id and PredictionString, got {', '.join(map(str, table.columns))}"
        )
    ids = table["id"].astype(str)
    studies, images = (index[column].astype(str).unique() for column in (task.exam_key, "image_id"))
    _check_ids(ids, {*(f"{name}_study" for name in studies), *(f"{name}_image" for name in images)}, where)
    for name, said in zip(ids, table["PredictionString"].astype(str), strict=True):
        if not name.endswith("_study"):
            continue
        words = said.split(" ")
        boxes = {" ".join(words[at + 2 : at + 6]) for at in range(0, len(words), 6)}
        values = pd.to_numeric(pd.Series(words[1::6], dtype=str), errors="coerce")
        if sorted(words[::6]) != sorted(task.labels) or boxes != {WHOLE} or not values.between(0, 1).all():
            raise ValueError(
                f"{where}: expected each of {', '.join(task.labels)} with a probability and {WHOLE}, got {said!r} for {name}"
            )


def check_submission(table: pd.DataFrame, rows: Collection[str], where: str) -> None:
    """Refuse what Kaggle would not take; it takes every id of `rows` exactly once and no other, with a value from 0 to 1.

    Raises ValueError, which names `where`.
    """
    if list(table.columns) != ["ID", "Label"]:
        raise ValueError(f"{where}: expected the columns ID and Label, got {', '.join(map(str, table.columns))}")
    ids = table["ID"].astype(str)
    _check_ids(ids, set(rows), where)
    values = pd.to_numeric(table["Label"], errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ValueError(
            f"{where}: expected probabilities of 0 to 1, got others in {wrong.sum()} rows, as {ids[wrong].iloc[0]}"
        )


def _check_ids(ids: pd.Series, asked: Set[str], where: str) -> None:
    lacking, strange, twice = asked - set(ids), set(ids) - asked, set(ids[ids.duplicated()])
    for what, found in (("no row", lacking), ("a row nobody asked", strange), ("more than one row", twice)):
        if found:
            raise ValueError(f"{where}: expected {len(asked)} rows, got {what} for {len(found)} ids, as {min(found)}")


def rows_of(images: Sequence[str], task: Task) -> list[str]:
    """List the ids that a submission about these images has, one for each image and label."""
    return [f"{image}_{label}" for image in images for label in task.labels]


def find_unscored_ids(rejected: pd.DataFrame, scored: Sequence[str]) -> list[str]:
    """Find the rejected images for which Kaggle wants a row all the same.

    They are those whose id is known, from the file or from a name like ID_0123abcd.dcm, and which are not among `scored`.
    """
    stems = rejected["path"].str.extract(r"([^/]*?)(?:\.dcm)?$", expand=False)
    named = rejected["image_id"].where(rejected["image_id"] != "", stems.where(stems.str.match(r"ID_[0-9a-f]+$"), ""))
    return sorted(set(named) - set(scored) - {""})
