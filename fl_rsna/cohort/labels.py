"""The label table: Kaggle's long form, a wide one or SIIM's two tables, checked, to one row an image."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from fl_rsna.cohort import siim
from fl_rsna.cohort.label_rules import as_integers, check_together
from fl_rsna.task import Task, annotated_part

KEYS = ("Image", "image_id", "SOPInstanceUID", "ID")  # what the image is called in a wide table


def read_labels(
    path: Path, task: Task, content: bytes | None = None, unannotated: Sequence[str] = (), other: bytes | None = None
) -> pd.DataFrame:
    """Labels of every image: index `image_id` (str), one int8 column a label of `task`, in its order, but for `unannotated`.

    The columns say which form it is. Long form has ID (`<image>_<label>`) and Label; wide form has one column a label and
    the image in one of KEYS; SIIM's two tables have `id`: `path` is one of them or a folder with both, and the column
    `boxes` (cohort/boxes.py) comes after the labels. `content` is the file's bytes where it lies inside an archive, `other`
    those of the other of SIIM's tables. Raises ValueError for anything contradictory or incomplete, and for what the table
    has of an unannotated label.
    """
    if content is None and path.is_dir():
        path = siim.in_folder(path)
    raw, part = _read(path, content), annotated_part(task, unannotated)
    if siim.is_one(raw, KEYS):
        beside = siim.other_of(raw, path, there=other is not None)
        return siim.label_images((path, raw), (beside, _read(beside, other)), part, whole=not unannotated)
    is_long = {"ID", "Label"} <= set(raw.columns)
    for label in unannotated:
        if raw["ID"].str.endswith(f"_{label}").any() if is_long else label in raw.columns:
            raise ValueError(
                f"data.unannotated: expected labels that {path} does not hold, got {label}, which it does; leave it out of one of them"
            )
    wide = _from_long(raw, part, path) if is_long else _from_wide(raw, part, path)
    check_together(wide, part, path, whole=not unannotated)
    return wide


def _read(path: Path, content: bytes | None) -> pd.DataFrame:
    """The table as text."""
    try:
        raw = pd.read_csv(path if content is None else io.BytesIO(content), dtype=str, keep_default_na=False)
    except (OSError, EOFError, ValueError, zlib.error, BadZipFile) as error:  # pandas also unpacks .gz and .zip
        raise ValueError(
            f"data.labels: expected a CSV of labels at {path}, got {type(error).__name__}: {error}; give the whole table"
        ) from None
    if raw.empty:
        raise ValueError(
            f"data.labels: expected at least one labelled image, got an empty table in {path}; give the whole table"
        )
    return raw


def _from_long(raw: pd.DataFrame, task: Task, path: Path) -> pd.DataFrame:
    """Rows `<image>_<label>` into a table; exact repeats are dropped, contradictions refused."""
    names, values = raw["ID"], pd.to_numeric(raw["Label"], errors="coerce").to_numpy()
    label_of = np.full(len(raw), -1)
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
    if (bad := ~np.isin(values, (0, 1))).any():
        raise ValueError(
            f"data.labels: expected 0 or 1, got {raw['Label'][bad].iloc[0]!r} for {names[bad].iloc[0]} in {path}; correct it"
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


def _from_wide(raw: pd.DataFrame, task: Task, path: Path) -> pd.DataFrame:
    key = next((name for name in KEYS if name in raw.columns), None)
    missing = [label for label in task.labels if label not in raw.columns]
    if key is None or missing:
        raise ValueError(
            f"data.labels: expected columns ID, Label (long form) or Image, {', '.join(task.labels)} (wide form) "
            f"for task {task.name}, got {', '.join(raw.columns[:8])} in {path}"
        )
    rows = raw[[key, *task.labels]].drop_duplicates()
    twice = rows[key][rows[key].duplicated()]
    if len(twice):
        raise ValueError(f"data.labels: {path} contradicts itself on image {twice.iloc[0]}; keep one row of it")
    return as_integers(rows.set_index(key).rename_axis("image_id"), path)
