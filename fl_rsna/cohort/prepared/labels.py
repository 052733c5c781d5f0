"""Read a label table in RSNA's long form, in wide form or as SIIM's two tables, and check it.

The result has a row for each image and 0 or 1 for each label, whatever the form. Classes of exams are checked later, when the files were
read: they say which images belong to one exam.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fl_rsna.cohort.prepared import siim
from fl_rsna.cohort.prepared.label_rules import as_integers, check_together
from fl_rsna.common.tables import DIGITS, GivenTable, read_given
from fl_rsna.task import LabelKind, Task, restrict_task

KEYS = ("Image", "image_id", "SOPInstanceUID", "ID")  # names of the column of images in a wide table
LONG = ("ID", "Label")
COLUMNS = 12  # of a table that a refusal lists


def read_labels(
    path: Path, task: Task, content: bytes | None = None, unannotated: Sequence[str] = (), other: bytes | None = None
) -> pd.DataFrame:
    """Read the labels of every image: index `image_id` (str), an int8 column for each label of `task` but the `unannotated` ones.

    The form is recognised by the columns' names, in any case. The long form has ID (`<image>_<label>`) and Label. The wide form has a
    column for each label, and the image in one of KEYS. SIIM's two tables, for a task of classes, have `id`; `path` is one of them or a
    folder with both, and the column `boxes` (cohort/prepared/boxes.py) follows the labels. `content` has the file's bytes where it is
    inside an archive, `other` those of the other one of SIIM's tables. Raises ValueError for anything contradictory or incomplete, and
    where the table has an unannotated label.
    """
    if content is None and path.is_dir():
        path = siim.in_folder(path, task)
    raw, part = _read(path, content), restrict_task(task, unannotated)
    if siim.is_one(raw, KEYS, task):
        beside = siim.other_of(raw, path, there=other is not None)
        return siim.label_images(raw, _read(beside, other), part, whole=not unannotated)
    wide = _wide(raw, part, task, unannotated)
    check_together(wide, part, path, whole=not unannotated)
    return wide


def _read(path: Path, content: bytes | None) -> GivenTable:
    """Read a table as it is given. Raises ValueError when it has no rows."""
    raw = read_given(path, "data.labels", "a CSV or Parquet table of labels", content)
    if not len(raw):
        raise ValueError(
            f"data.labels: expected at least one labelled image, got an empty table in {path}; give the whole table"
        )
    return raw


def _wide(raw: GivenTable, part: Task, task: Task, unannotated: Sequence[str]) -> pd.DataFrame:
    """Read the long or the wide form, with the labels of `part`. Raises ValueError where it has an unannotated label."""
    long = [raw.find([name]) for name in LONG]
    named = raw.texts(long[0]) if long[0] is not None and long[1] is not None else None
    for label in unannotated:
        if named.str.endswith(f"_{label}").any() if named is not None else raw.find([label]) is not None:
            raise ValueError(
                f"data.unannotated: expected labels that {raw.path} does not hold, got {label}, which it does; leave it out of one "
                "of them"
            )
    if named is None or long[1] is None:
        return _from_wide(raw, part)
    return _from_long(named, raw.texts(long[1], DIGITS), part, raw.path)


def _from_long(names: pd.Series, cells: pd.Series, task: Task, path: Path) -> pd.DataFrame:
    """Convert rows `<image>_<label>` to a table of int8, a row for each image.

    Exact repetitions are dropped. Raises ValueError for contradictions, unknown labels, missing rows and values other than 0 and 1.
    """
    values = pd.to_numeric(cells, errors="coerce").to_numpy()
    label_of = np.full(len(names), -1)
    image = names.copy()
    for label in sorted(task.labels, key=len):  # a longer label that ends like a shorter one comes later and wins
        ends = names.str.endswith(f"_{label}").to_numpy()
        label_of[ends] = task.labels.index(label)
        image[ends] = names[ends].str.slice(stop=-len(label) - 1)
    if (unknown := names[label_of < 0]).size:
        raise ValueError(
            f"data.labels: expected the labels {', '.join(task.labels)} of task {task.name}, "
            f"got {unknown.iloc[0].rpartition('_')[2]!r} in {path}; give the task's own table or another data.task"
        )
    if absent := [label for place, label in enumerate(task.labels) if place not in label_of]:
        there = [label for label in task.labels if label not in absent]
        raise ValueError(
            _explain_absent(absent, task, path, f"rows <image>_<label>, and only those of {', '.join(there)}")
        )
    if (bad := ~np.isin(values, (0, 1))).any():
        raise ValueError(
            f"data.labels: expected 0 or 1, got {cells[bad].iloc[0]!r} for {names[bad].iloc[0]} in {path}; correct it"
        )
    codes, ids = pd.factorize(image, sort=True)
    table = np.full((len(ids), len(task.labels)), -1, np.int8)
    table[codes, label_of] = values
    if (contradicted := table[codes, label_of] != values).any():
        raise ValueError(f"data.labels: {path} contradicts itself on {names[contradicted].iloc[0]}; keep one row of it")
    if (missing := ids[np.flatnonzero((table < 0).any(axis=1))]).size:
        raise ValueError(
            f"data.labels: expected {len(task.labels)} rows an image, got fewer for {len(missing)} images in {path} "
            f"(first: {missing[0]}); give the whole table"
        )
    return pd.DataFrame(table, index=pd.Index(ids, name="image_id"), columns=list(task.labels))


def _from_wide(raw: GivenTable, task: Task) -> pd.DataFrame:
    """Convert a table with a column for each label to int8, a row for each image. Raises ValueError as the long form does."""
    key, columns = raw.find(KEYS), {label: raw.find([label]) for label in task.labels}
    found = {label: raw.texts(column, DIGITS) for label, column in columns.items() if column is not None}
    if key is None or not found:
        raise ValueError(
            f"data.labels: expected columns ID, Label (long form) or Image, {', '.join(task.labels)} (wide form) "
            f"for task {task.name}, got {', '.join(list(raw.columns)[:COLUMNS])} in {raw.path}; give the task's own table or another data.task"
        )
    if absent := [label for label in columns if label not in found]:
        raise ValueError(
            _explain_absent(absent, task, raw.path, f"the columns {', '.join(list(raw.columns)[:COLUMNS])}")
        )
    rows = pd.DataFrame({"image_id": raw.texts(key), **found})
    if (blank := rows["image_id"] == "").any():
        raise ValueError(
            f"data.labels: expected an image in every cell of column {key} of {raw.path}, got {int(blank.sum())} empty ones; "
            "name the images or delete the rows"
        )
    integers = as_integers(rows.drop_duplicates().set_index("image_id"), raw.path).reset_index().drop_duplicates()
    if (twice := integers["image_id"][integers["image_id"].duplicated()]).size:
        raise ValueError(f"data.labels: {raw.path} contradicts itself on image {twice.iloc[0]}; keep one row of it")
    return integers.set_index("image_id")


def _explain_absent(absent: Sequence[str], task: Task, path: Path, got: str) -> str:
    """Say in a sentence which labels a table lacks altogether, what it has, and what to do. They are unknown and never taken as negative."""
    names, them = ", ".join(absent), "it" if len(absent) == 1 else "them"
    if task.union in absent:
        do = f"add {them}; {task.union} is 1 exactly where another label is 1"
    elif task.kind is LabelKind.multi_class:
        do = f"add {them}"
    else:
        do = f"add {them}, or, as one hospital of several, say data.unannotated=[{','.join(absent)}] here and --unannotated to own_site"
    return (
        f"data.labels: expected the labels {', '.join(task.labels)} of task {task.name} in {path}, got {got}: "
        f"{names} cannot be taken as negative where nobody says so; {do}"
    )
