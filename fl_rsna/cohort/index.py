"""The index of a prepared folder: one row a slice, ordered along the slice normal inside each series."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.imaging.convert import Converted
from fl_rsna.imaging.store import ImageKind
from fl_rsna.task import Task

COLUMNS = {  # name -> what it holds; the labels of the task follow these
    "image_id": "SOPInstanceUID, the PNG's name",
    "patient_id": "PatientID, hashed unless data.hash_ids=false",
    "study_id": "StudyInstanceUID, likewise",
    "series_id": "SeriesInstanceUID, likewise",
    "position_mm": "ImagePositionPatient projected on the slice normal, mm",
    "rank": "0 for the lowest slice of its series; ties by image_id",
    "relative_position": "rank / (slices of the series - 1), 0.5 for a single slice",
    "tilt_deg": "angle between slice normal and patient axis, degrees",
    "row_spacing_mm": "PixelSpacing before resizing, mm",
    "column_spacing_mm": "PixelSpacing before resizing, mm",
    "rows": "pixels before resizing",
    "columns": "pixels before resizing",
    "hu_mean": "mean HU of the clipped slice",
    "hu_std": "standard deviation of HU of the clipped slice",
    "brain_share": "share of pixels with 0 <= HU <= 80",
    "brain_hu_mean": "mean HU of those pixels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared folder as read: what it holds and the index, with `image_id` as a column."""

    folder: Path
    task: str
    labels: tuple[str, ...]
    image: ImageKind
    size: int
    index_sha256: str
    index: pd.DataFrame


def build_index(
    rows: Iterable[Converted], labels: pd.DataFrame, task: Task, *, hash_ids: bool, salt: str
) -> pd.DataFrame:
    """Join facts and labels; columns are COLUMNS then the task's labels, rows sorted by patient, series and rank."""
    table = pd.DataFrame([asdict(row) for row in rows]).drop(columns="path")
    optional = ["position_mm", "tilt_deg", "row_spacing_mm", "column_spacing_mm"]
    table[optional] = table[optional].astype("float64")  # also where no slice states them
    if hash_ids:
        for column in ("patient_id", "study_id", "series_id"):
            table[column] = [hash_id(value, salt) for value in table[column]]
    table = table.sort_values(["patient_id", "series_id", "position_mm", "image_id"], kind="stable").reset_index(
        drop=True
    )
    series = table.groupby(["patient_id", "series_id"])
    table["rank"] = series.cumcount()
    last = series["rank"].transform("max")
    table["relative_position"] = (table["rank"] / last.where(last > 0)).fillna(0.5)
    table = table.join(labels, on="image_id", validate="one_to_one")
    return table[[*COLUMNS, *task.labels]]


def hash_id(value: str, salt: str) -> str:
    """Sixteen hexadecimal digits that stand for an identifier; the same for the same salt."""
    return hashlib.sha256(f"{salt}\0{value}".encode()).hexdigest()[:16]


def table_sha256(table: pd.DataFrame) -> str:
    """Hash of a table's column names and values, independent of how a file stores them."""
    return hashlib.sha256(table.to_csv(index=False, float_format="%.6g").encode()).hexdigest()


def read_prepared(folder: Path, task: Task) -> Prepared:
    """Read a prepared folder; raises ValueError when it is missing, unfinished or of another task."""
    facts = read_facts(
        folder / "prepare.json", f"data.name: no prepared data at {folder}; run python -m fl_rsna.prepare first"
    )
    if facts["task"] != task.name or tuple(facts["labels"]) != task.labels:
        raise ValueError(
            f"data.task: expected data prepared for task {task.name} ({', '.join(task.labels)}), "
            f"got task {facts['task']} ({', '.join(facts['labels'])}) in {folder}; prepare it again or choose that task"
        )
    index = pd.read_parquet(folder / "index.parquet")
    return Prepared(
        folder=folder,
        task=facts["task"],
        labels=task.labels,
        image=ImageKind(facts["image"]),
        size=facts["size"],
        index_sha256=facts["index_sha256"],
        index=index,
    )


def read_facts(path: Path, missing: str) -> dict[str, Any]:
    """A JSON object written by an earlier step; raises ValueError(`missing`) when there is none."""
    try:
        facts = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(missing) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a JSON object in {path}, got {error}; repeat the step that wrote it") from None
    assert isinstance(facts, dict)
    return facts
