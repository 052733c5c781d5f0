"""What data.dicom and data.labels mean: any folder, archive or list, or RSNA's own layout inside one of them.

RSNA's layout has stage_2_train/ with stage_2_train.csv, and perhaps stage_2_test/, whose labels nobody has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from fl_rsna.cohort.labels import read_labels
from fl_rsna.imaging.files import File, find_files, read_file
from fl_rsna.task import Task

TRAIN, TEST, LABELS = "stage_2_train", "stage_2_test", "stage_2_train.csv"
SAMPLE = "stage_2_sample_submission.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files to prepare with `labels` (index image_id; None: without any), and files of a set that never has labels."""

    files: list[File]
    labels: pd.DataFrame | None
    test_files: list[File]


def find_inputs(
    dicom: Path,
    labels: Path | None,
    task: Task,
    *,
    unlabelled: bool,
    test_set: bool,
    if_any: bool = False,
    unannotated: Sequence[str] = (),
) -> Inputs:
    """List the files and read the labels; raises ValueError when either is missing or contradictory.

    With `if_any` labels are read where there are some, and nobody has to say that there are none. `unannotated` labels are
    not there, and nobody is to look for them.
    """
    if dicom.is_dir():
        root = dicom if (dicom / TRAIN).is_dir() else dicom.parent if dicom.name == TRAIN else None
        files = find_files(dicom if root is None else root / TRAIN)
        has_test = test_set and root is not None and (root / TEST).is_dir() and any((root / TEST).iterdir())
        test_files = find_files(root / TEST) if root is not None and has_test else []
        found = root / LABELS if root is not None and (root / LABELS).is_file() else None
        table = None if unlabelled else _labels(labels or found, task, if_any, unannotated)
        return Inputs(files=files, labels=table, test_files=test_files)
    everything = find_files(dicom)
    files = _inside(everything, TRAIN) or everything
    table = None
    if not unlabelled:
        inside = next((file for file in everything if PurePosixPath(file.name).name == LABELS and file.member), None)
        packed = inside is not None and labels is None
        table = (
            read_labels(dicom / inside.name, task, read_file(inside), unannotated)
            if inside and packed
            else _labels(labels, task, if_any, unannotated)
        )
    return Inputs(files=files, labels=table, test_files=_inside(everything, TEST) if test_set else [])


def find_sample(dicom: Path) -> bytes | None:
    """Kaggle's sample submission beside or inside `dicom`, a folder or an archive; None when there is none."""
    if not dicom.is_dir():
        inside = (file for file in find_files(dicom) if file.member and PurePosixPath(file.name).name == SAMPLE)
        found = next(inside, None)
        return None if found is None else read_file(found)
    places = [dicom / SAMPLE, dicom.parent / SAMPLE]
    return next((path.read_bytes() for path in places if path.is_file()), None)


def _inside(files: list[File], folder: str) -> list[File]:
    """Members of an archive below a folder of that name."""
    return [file for file in files if file.member and folder in PurePosixPath(file.name).parts[:-1]]


def _labels(path: Path | None, task: Task, if_any: bool, unannotated: Sequence[str]) -> pd.DataFrame | None:
    if path is None and if_any:
        return None
    if path is None:
        raise ValueError(
            "data.labels: expected a table of labels, got nothing; give data.labels=<csv>, or data.unlabelled=true for "
            "slices that are only to be scored"
        )
    return read_labels(path, task, unannotated=unannotated)
