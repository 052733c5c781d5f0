"""Find the files and labels that data.dicom and data.labels name: a folder, archive or list, perhaps in a published layout.

RSNA's layout has stage_2_train/ with stage_2_train.csv, SIIM's has train/ with train_study_level.csv and train_image_level.csv. Both may
have a test set without labels, stage_2_test/ or test/.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from fl_rsna.cohort.prepared import siim
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.imaging.sources import File, find_files, read_file
from fl_rsna.task import Task

SAMPLE = "stage_2_sample_submission.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of a published data set, and the tables of labels beside them.

    With `by_tables` the layout is recognised only where one of its tables exists, since its folders have common names.
    """

    train: str
    test: str
    tables: tuple[str, ...]
    by_tables: bool


LAYOUTS = (
    Folders(train="stage_2_train", test="stage_2_test", tables=("stage_2_train.csv",), by_tables=False),
    Folders(train="train", test="test", tables=(siim.STUDIES, siim.IMAGES), by_tables=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The files to prepare, their `labels` (index image_id; None without any), and the files of a test set without labels."""

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
    """List the files and read the labels. Raises ValueError when either is missing or contradictory.

    With `if_any` missing labels are no error. `unannotated` labels are not expected in the table.
    """
    wanted = labels is None and not unlabelled
    files, test_files, found, packed = (
        _in_folder(dicom, test_set) if dicom.is_dir() else _in_archive(dicom, test_set, wanted)
    )
    table = None
    if not unlabelled:
        there = packed if labels is None else []
        table = _labels(labels or found, task, if_any, unannotated, [read_file(file) for file in there])
    return Inputs(files=files, labels=table, test_files=test_files)


def find_sample(dicom: Path) -> bytes | None:
    """Read Kaggle's sample submission beside or inside `dicom`, a folder or an archive; None when there is none."""
    if not dicom.is_dir():
        inside = (file for file in find_files(dicom) if file.member and PurePosixPath(file.name).name == SAMPLE)
        found = next(inside, None)
        return None if found is None else read_file(found)
    places = [dicom / SAMPLE, dicom.parent / SAMPLE]
    return next((path.read_bytes() for path in places if path.is_file()), None)


def _in_folder(dicom: Path, test_set: bool) -> tuple[list[File], list[File], Path | None, list[File]]:
    """List the files of a folder: those to prepare, those of the test set, the path of the label table, and no packed tables."""
    for layout in LAYOUTS:
        root = dicom if (dicom / layout.train).is_dir() else dicom.parent if dicom.name == layout.train else None
        if root is None:
            continue
        places = (
            [root, dicom.parent] if dicom.name == layout.train else [root]
        )  # the second where a folder of that name lies in another one
        found = next((place / name for place in places for name in layout.tables if (place / name).is_file()), None)
        if found or not layout.by_tables:
            test = root / layout.test
            has_test = test_set and test.is_dir() and any(test.iterdir())
            return find_files(root / layout.train), find_files(test) if has_test else [], found, []
    return find_files(dicom), [], None, []


def _in_archive(dicom: Path, test_set: bool, choose: bool) -> tuple[list[File], list[File], Path | None, list[File]]:
    """List the files of an archive or list: those to prepare, those of the test set, the path of a label table, and the packed tables.

    The path is that of the first packed table inside the archive. Without `choose` no table is looked for, so two that differ are no error.
    """
    everything = find_files(dicom)
    for layout in LAYOUTS:
        there = [file for file in everything if file.member and PurePosixPath(file.name).name in layout.tables]
        train, test = _inside(everything, layout.train), _inside(everything, layout.test)
        if there or (not layout.by_tables and (train or test)):
            tables = _beside(there, train, layout, dicom) if there and choose else []
            found = dicom / tables[0].name if tables else None
            return train or everything, test if test_set else [], found, tables
    return everything, [], None, []


def _inside(files: list[File], folder: str) -> list[File]:
    """List the members of an archive below a folder of that name."""
    return [file for file in files if file.member and folder in PurePosixPath(file.name).parts[:-1]]


def _beside(tables: Sequence[File], train: Sequence[File], layout: Folders, dicom: Path) -> list[File]:
    """Choose the layout's tables that lie beside the folder of images or, where none does, anywhere.

    Raises ValueError where two folders hold different tables of the same name.
    """
    parts = [PurePosixPath(file.name).parts for file in train]  # the outermost folder of that name counts
    roots = {PurePosixPath(*names[: names.index(layout.train)]) for names in parts}
    by_folder: dict[PurePosixPath, dict[str, File]] = {}
    for file in tables:
        path = PurePosixPath(file.name)
        by_folder.setdefault(path.parent, {})[path.name] = file
    beside = {folder: held for folder, held in by_folder.items() if folder in roots} or by_folder
    whole = [[held[name] for name in layout.tables] for held in beside.values() if len(held) == len(layout.tables)]
    chosen: dict[str, File] = {}
    for file in itertools.chain(*(whole or [list(held.values()) for held in beside.values()])):
        first = chosen.setdefault(PurePosixPath(file.name).name, file)
        if _content(file) != _content(first):
            raise ValueError(
                f"data.labels: expected one table of labels in {dicom}, got {first.name} and {file.name}, which differ; unpack "
                "the right one and say data.labels=<csv>"
            )
    return [chosen[name] for name in layout.tables if name in chosen]


def _content(file: File) -> tuple[int, object]:
    """Return size and checksum of an archive's member: they differ where contents do, without unpacking."""
    return file.size, file.member and file.member.checksum


def _labels(
    path: Path | None, task: Task, if_any: bool, unannotated: Sequence[str], packed: Sequence[bytes]
) -> pd.DataFrame | None:
    """Read the label table at `path` or, inside an archive, from the bytes `packed`: one table, or SIIM's two.

    Returns None without a table where `if_any` allows it. Raises ValueError otherwise.
    """
    if path is None and if_any:
        return None
    if path is None:
        raise ValueError(
            "data.labels: expected a table of labels, got nothing; give data.labels=<csv>, or data.unlabelled=true for "
            "images that are only to be scored"
        )
    content, other = [*packed, None, None][:2]
    return read_labels(path, task, content, unannotated, other)
