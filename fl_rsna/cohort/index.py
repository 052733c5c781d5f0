"""The index of a prepared folder: one row an image, slices in their order in space, films in that of their study."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.choices import ImageKind
from fl_rsna.cohort.columns import columns_of
from fl_rsna.cohort.rows import film_rows, slice_rows
from fl_rsna.reading import damaged, file_sha256, read_json, reading
from fl_rsna.task import Rendering, Task

STORED = "stored_sha256"  # in prepare.json: hashes of the tables beside it
ANEW = "delete the folder and prepare again, or bring the file back from a copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a preparation did with its files: kept from an earlier one, converted `again` or as `new`; and those that are `gone`."""

    kept: int
    again: int
    new: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared folder as read: what it holds and the index, with `image_id` as a column; no `labels`, not labelled.

    `ids` is how its ids were made, by cohort/id_scheme.py; None where that is not written down. `changes` are those of the
    preparation that has just made or looked at it.
    """

    folder: Path
    task: str
    labels: tuple[str, ...]
    image: ImageKind
    size: int
    index_sha256: str
    index: pd.DataFrame
    ids: str | None = None
    changes: Changes | None = None


def build_index(facts: pd.DataFrame, labels: pd.DataFrame | None, rendering: Rendering) -> pd.DataFrame:
    """`columns_of(rendering)` and then all of `labels` (index image_id), for `facts`, the columns that a file gives.

    Rows are sorted by patient, series and rank; films by patient, study and rank.
    """
    columns = {name: column.dtype for name, column in columns_of(rendering).items()}
    table = facts.astype({name: dtype for name, dtype in columns.items() if name in facts})
    match rendering:
        case Rendering.hounsfield:
            table = slice_rows(table)
        case Rendering.radiograph:
            table = film_rows(table)
    table = table[list(columns)].astype(columns)
    return table if labels is None else table.join(labels, on="image_id", validate="one_to_one")


def hash_id(value: str, salt: str) -> str:
    """Sixteen hexadecimal digits that stand for an identifier; the same for the same salt."""
    return hashlib.sha256(f"{salt}\0{value}".encode()).hexdigest()[:16]


def read_prepared(folder: Path, task: Task) -> Prepared:
    """Read a prepared folder; raises ValueError when it is missing, unfinished, damaged or of another task."""
    if not folder.exists() and folder.with_name(folder.name + ".part").exists():
        raise ValueError(f"data.name: {folder} is not finished; repeat the python -m fl_rsna.prepare that began it")
    missing = f"data.name: no prepared data at {folder}; run python -m fl_rsna.prepare first"
    facts = read_facts(folder / "prepare.json", missing)
    with reading(folder / "prepare.json", "what prepare wrote", ANEW, key="data.name: "):
        labels = tuple(facts["labels"])
        image, size, sha256, name = ImageKind(facts["image"]), int(facts["size"]), facts["index_sha256"], facts["task"]
    if name != task.name or labels not in ((), task.labels):
        raise ValueError(
            f"data.task: expected data prepared for task {task.name} ({', '.join(task.labels)}), "
            f"got task {name} ({', '.join(labels)}) in {folder}; prepare it again or choose that task"
            + (
                "; without a label it can make a site of its own: own_site --unannotated"
                if 0 < len(labels) < len(task.labels)
                else ""
            )
        )
    with reading(folder / "index.parquet", "the index that prepare wrote", ANEW, key="data.name: "):
        check_stored(folder, facts, "index.parquet")
        index = pd.read_parquet(folder / "index.parquet")
    return Prepared(
        folder=folder,
        task=name,
        labels=labels,
        image=image,
        size=size,
        index_sha256=sha256,
        index=index,
        ids=facts.get("ids"),
    )


def check_stored(folder: Path, facts: Mapping[str, Any], name: str) -> None:
    """Refuse a file of a prepared folder that is not the one whose hash its prepare.json states, where it states one."""
    if facts.get(STORED, {}).get(name, found := file_sha256(folder / name)) != found:
        raise damaged(folder / name, ANEW)


def read_facts(path: Path, missing: str, *, by_hand: bool = False) -> dict[str, Any]:
    """A JSON object written by an earlier step; raises ValueError(`missing`) when there is none; `by_hand` as read_json has it."""
    if not path.exists():
        raise ValueError(missing)
    return read_json(path, by_hand=by_hand)
