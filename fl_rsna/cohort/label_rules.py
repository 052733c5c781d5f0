"""What every label table must keep to, whatever its form: values of 0 and 1, and what the task says of labels together."""

from pathlib import Path

import pandas as pd

from fl_rsna.task import LabelKind, Task


def as_integers(wide: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Texts to int8, sorted by the index; raises ValueError for anything but 0 and 1."""
    numbers: pd.DataFrame = wide.apply(pd.to_numeric, errors="coerce")
    bad = ~numbers.isin([0, 1])
    if bad.any(axis=None):
        image_id, label = bad.stack().pipe(lambda cells: cells[cells]).index[0]
        raise ValueError(
            f"data.labels: expected 0 or 1, got {wide.loc[image_id, label]!r} for {image_id}_{label} in {path}; correct it"
        )
    return numbers.astype("int8").sort_index()


def check_together(
    wide: pd.DataFrame, task: Task, path: Path, *, whole: bool, one: str = "an image", several: str = "images"
) -> None:
    """Raises ValueError for rows that the task's labels cannot be together; what a row is `one` of, the sentence says.

    Without all labels (`whole`) the union may be 1 where none of those there are is.
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
