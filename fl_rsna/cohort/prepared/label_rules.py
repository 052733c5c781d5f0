"""Check label tables of any form: values are 0 or 1, and labels of one image or exam do not contradict each other.

The files say which images belong to one exam, not the table. So classes of exams are checked when both were read.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fl_rsna.task import LabelKind, Task


def as_integers(wide: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Convert texts to int8, sorted by the index. Raises ValueError for anything but 0 and 1."""
    numbers: pd.DataFrame = wide.apply(pd.to_numeric, errors="coerce")
    bad = ~numbers.isin([0, 1])
    if bad.any(axis=None):
        row, column = np.argwhere(bad.to_numpy())[0]
        raise ValueError(
            f"data.labels: expected 0 or 1, got {wide.iat[row, column]!r} for {wide.index[row]}_{wide.columns[column]} in {path}; "
            "correct it"
        )
    return numbers.astype("int8").sort_index()


def check_together(
    wide: pd.DataFrame, task: Task, path: Path, *, whole: bool, one: str = "an image", several: str = "images"
) -> None:
    """Raise ValueError for rows whose labels contradict each other: the union label and the others, or several classes.

    Where the table does not have all labels of the task (`whole` is False), the union may be 1 where all others are 0. The message calls a
    row `one`, rows `several`.
    """
    if task.kind is LabelKind.multi_class:
        wrong = wide.index[wide.sum(axis=1) != 1]
        rule = f"exactly one class {one}"
    elif task.union is not None:
        others = wide[list(task.specific_labels)].max(axis=1)
        wrong = wide.index[wide[task.union] != others if whole else wide[task.union] < others]
        rule = f"{task.union!r} to be 1 exactly where one of the other labels is"
    else:
        return
    if len(wrong):
        raise ValueError(
            f"data.labels: expected {rule}, not so for {len(wrong)} {several} in {path} (first: {wrong[0]}); correct them"
        )


def check_exams(index: pd.DataFrame, labels: pd.DataFrame, task: Task) -> None:
    """Raise ValueError for an exam whose images have different classes.

    `labels` has the same rows as `index`, NaN where unknown. An exam has one class; with two, one is wrong and the exam would count twice.
    """
    if task.kind is not LabelKind.multi_class:
        return
    known = labels[list(task.labels)].notna().all(axis=1).to_numpy()
    classes = np.array(task.labels)[labels.loc[known, list(task.labels)].to_numpy().argmax(axis=1)]
    exam = ["patient_id", task.exam_key]
    told = index.loc[known, [*exam, "image_id"]].assign(named=classes)
    each = told.drop_duplicates([*exam, "named"])  # an image of each class of every exam
    two = each[each.duplicated(exam, keep=False)].sort_values(exam, kind="stable")
    if two.empty:
        return
    article = "an" if task.exam[0] in "aeiou" else "a"
    (one, of_one), (other, of_other) = two[["image_id", "named"]].head(2).itertuples(index=False, name=None)
    raise ValueError(
        f"data.labels: expected one class {article} {task.exam}, got two or more for {len(two.drop_duplicates(exam))} of them "
        f"(first: {one} is {of_one} and {other}, of the same {task.exam}, {of_other}); correct them"
    )
