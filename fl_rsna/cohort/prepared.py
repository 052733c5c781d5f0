"""A DICOM folder and its labels become a prepared folder, whole or not at all."""

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.index import Prepared, build_index, read_facts, read_prepared, table_sha256
from fl_rsna.cohort.labels import read_labels
from fl_rsna.cohort.whole import built_whole
from fl_rsna.imaging.convert import Converted, Refused, convert_files
from fl_rsna.imaging.dicom import Reason
from fl_rsna.imaging.store import ImageKind
from fl_rsna.task import Task


def prepare_folder(
    folder: Path,
    *,
    dicom: Path,
    labels: Path,
    task: Task,
    image: ImageKind,
    size: int,
    hash_ids: bool,
    salt: str,
    max_unmatched: float,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Convert every file below `dicom` that has labels; `on_progress` gets files done and files in all.

    A folder that the same request already made is returned as it is. Raises ValueError when the folder holds
    something else, when inputs are missing, when nothing can be prepared, or when more than the share
    `max_unmatched` of images has no labels or of labels no image; then nothing is left behind.
    """
    request = {
        "dicom": str(dicom.resolve()), "labels": str(labels.resolve()), "task": task.name, "image": image.value, "size": size,
        "hash_ids": hash_ids, "salt_sha256": table_sha256(pd.DataFrame({"salt": [salt]})), "max_unmatched": max_unmatched,
    }  # fmt: skip
    if folder.exists():
        return _already(folder, request, task)
    table = read_labels(labels, task)
    paths = _files_below(dicom)
    with built_whole(folder) as building:
        (building / "images").mkdir()
        conversion = convert_files(
            paths,
            building / "images",
            modality=task.modality,
            kind=image,
            size=size,
            workers=workers,
            wanted=set(table.index).__contains__,
        )
        converted, refused = _sorted_out(conversion, len(paths), on_progress)
        without_image = _labels_without_image(table, converted, refused)
        _check_matches(converted, refused, without_image, len(table), max_unmatched, dicom, labels)
        index = build_index(converted, table, task, hash_ids=hash_ids, salt=salt)
        index.to_parquet(building / "index.parquet", index=False)
        _write_rejected(building / "rejected.csv", refused, dicom)
        facts = _facts(index, refused, without_image, task, request)
        (building / "prepare.json").write_text(json.dumps(facts, indent=2) + "\n")
    return read_prepared(folder, task)


def _sorted_out(
    conversion: Generator[Converted | Refused, None, None], total: int, on_progress: Callable[[int, int], None]
) -> tuple[list[Converted], list[Refused]]:
    """Run a conversion to its end; when it is interrupted, no thread writes any more on return."""
    converted: list[Converted] = []
    refused: list[Refused] = []
    with closing(conversion):
        for result in conversion:
            converted.append(result) if isinstance(result, Converted) else refused.append(result)
            on_progress(len(converted) + len(refused), total)
    return converted, refused


def _already(folder: Path, request: dict[str, Any], task: Task) -> Prepared:
    facts = read_facts(
        folder / "prepare.json", f"data.name: {folder} exists but holds no prepared data; choose another data.name"
    )
    changed = sorted(key for key, value in request.items() if facts["request"].get(key) != value)
    if changed:
        raise ValueError(
            f"data.name: {folder} was prepared from another request ({', '.join('data.' + key for key in changed)} differ); "
            "choose another data.name or delete the folder"
        )
    return read_prepared(folder, task)


def _files_below(dicom: Path) -> list[Path]:
    if not dicom.is_dir():
        raise ValueError(f"data.dicom: expected a folder of DICOM files, got {dicom}, which is no folder")
    paths: list[Path] = []
    walked: set[str] = set()
    for root, folders, names in os.walk(dicom, followlinks=True):
        folders.sort()
        if os.path.realpath(root) in walked:  # a link back, or a second way to the same files
            folders.clear()
            continue
        walked.add(os.path.realpath(root))
        found = (Path(root) / name for name in names)
        paths += [path for path in found if path.is_file() or path.is_symlink()]  # a dangling link becomes a named row
    if not paths:
        raise ValueError(f"data.dicom: expected DICOM files below {dicom}, found no file at all")
    return sorted(paths)


def _labels_without_image(table: pd.DataFrame, converted: Sequence[Converted], refused: Sequence[Refused]) -> list[str]:
    """Labelled ids that no file carries; a refused file counts by its id or, unreadable, by its name."""
    present = (
        {row.image_id for row in converted} | {row.image_id for row in refused} | {row.path.stem for row in refused}
    )
    return sorted(set(table.index) - present)


def _check_matches(
    converted: Sequence[Converted],
    refused: Sequence[Refused],
    without_image: Sequence[str],
    labelled: int,
    tolerated: float,
    dicom: Path,
    labels: Path,
) -> None:
    unlabelled = [row for row in refused if row.reason is Reason.no_label]
    readable = len(converted) + len(unlabelled)
    if readable == 0:
        counts = ", ".join(
            f"{count} {reason}" for reason, count in sorted(Counter(row.reason for row in refused).items())
        )
        raise ValueError(f"data.dicom: expected at least one usable slice below {dicom}, got none ({counts})")
    if len(unlabelled) > tolerated * readable or not converted:
        raise ValueError(
            f"data.labels: expected labels for the images below {dicom}, but {len(unlabelled)} of {readable} have no row in {labels} "
            f"(first: {unlabelled[0].image_id}); give the full table or raise data.max_unmatched={tolerated:g}"
        )
    if len(without_image) > tolerated * labelled:
        raise ValueError(
            f"data.dicom: expected images for the labels in {labels}, but {len(without_image)} of {labelled} have no file below {dicom} "
            f"(first: {without_image[0]}); give the whole folder or raise data.max_unmatched={tolerated:g}"
        )


def _write_rejected(path: Path, refused: Sequence[Refused], dicom: Path) -> None:
    rows = [
        (row.path.relative_to(dicom).as_posix(), row.image_id, row.reason.value, row.tag, row.detail) for row in refused
    ]
    pd.DataFrame(rows, columns=["path", "image_id", "reason", "tag", "detail"]).to_csv(path, index=False)


def _facts(
    index: pd.DataFrame, refused: Sequence[Refused], without_image: Sequence[str], task: Task, request: dict[str, Any]
) -> dict[str, Any]:
    return {
        "task": task.name,
        "labels": list(task.labels),
        "image": request["image"],
        "size": request["size"],
        "slices": len(index),
        "series": int(index["series_id"].nunique()),
        "patients": int(index["patient_id"].nunique()),
        "positives": {label: int(index[label].sum()) for label in task.labels},
        "rejected": dict(sorted(Counter(row.reason.value for row in refused).items())),
        "labels_without_image": len(without_image),
        "index_sha256": table_sha256(index),
        "request": request,
    }
