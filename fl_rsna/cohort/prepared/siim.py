"""Read the two tables of SIIM-FISABIO-RSNA COVID-19: classes of studies, and images with the boxes of their opacities.

    train_study_level.csv   id (`<study>_study`) and a column (0 or 1) for each class, named as the task's `published` labels
    train_image_level.csv   id (`<image>_image`, the SOPInstanceUID), boxes, label, StudyInstanceUID

Every image gets the class of its study and keeps its own boxes. Identical rows count once. The following are refused: other columns, an id
without its ending, two different rows of one id, a study without exactly one class, an image of an unknown study, a study without an image
(a table that ends early), impossible boxes or boxes that `label` contradicts, and a box on an image of a negative study.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from fl_rsna.cohort.prepared.boxes import BOXES, check_label, parse_boxes, write_boxes
from fl_rsna.cohort.prepared.label_rules import as_integers, check_together
from fl_rsna.common.tables import DIGITS, WORDS, GivenTable, bare
from fl_rsna.task import LabelKind, Task

STUDIES, IMAGES = "train_study_level.csv", "train_image_level.csv"
STUDY, IMAGE = "_study", "_image"  # endings of ids
OF_STUDY = "StudyInstanceUID"
IMAGE_COLUMNS = ("id", "boxes", "label", OF_STUDY)
NEGATIVE = "Negative for Pneumonia"  # the class of studies without a finding to draw a box around


def is_one(raw: GivenTable, keys: Collection[str], task: Task) -> bool:
    """Say whether a table is one of SIIM's two. Other forms have the image in one of `keys`, or columns with the task's own labels."""
    if task.kind is not LabelKind.multi_class or raw.find(["id"]) is None:
        return False
    if any(raw.find([key]) is not None for key in keys if bare(key) != "id"):
        return False
    if _has_images(raw) or raw.find(task.published) is not None:
        return True
    return raw.find(["Label"]) is None and not all(raw.find([label]) is not None for label in task.labels)


def in_folder(folder: Path, task: Task) -> Path:
    """Return the path of the table of studies in a folder that holds both tables. Raises ValueError where one is missing."""
    if task.kind is not LabelKind.multi_class:
        raise ValueError(
            f"data.labels: expected a CSV or Parquet table of labels, got the folder {folder}; give the file itself"
        )
    missing = [name for name in (STUDIES, IMAGES) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"data.labels: expected a CSV of labels, or a folder with {STUDIES} and {IMAGES}, got {folder} without "
            f"{' and '.join(missing)}; give a file"
        )
    return folder / STUDIES


def other_of(raw: GivenTable, path: Path, *, there: bool) -> Path:
    """Return the path of the other table: beside this one, under its published name.

    Raises ValueError where it does not exist, unless its content was read already (`there`).
    """
    lacks, why = (STUDIES, "classes") if _has_images(raw) else (IMAGES, "images")
    beside = path.with_name(lacks)
    if not there and not beside.is_file():
        raise ValueError(
            f"data.labels: expected {lacks}, the {why} of its studies, beside {path}, got none; put both into one folder"
        )
    return beside


def label_images(one: GivenTable, other: GivenTable, task: Task, *, whole: bool) -> pd.DataFrame:
    """Join both tables, in any order, to a row for each image: index `image_id`, an int8 column for each label, and `boxes`.

    `whole` says that no label is left out. Raises ValueError for anything that this module refuses.
    """
    images, studies = (one, other) if _has_images(one) else (other, one)
    texts = _rows(studies, ("id", *task.published), STUDY, DIGITS)[list(task.published)]
    classes = as_integers(texts, studies.path).set_axis(list(task.labels), axis=1)
    check_together(classes, task, studies.path, whole=whole, one="a study", several="studies")
    rows = _rows(images, IMAGE_COLUMNS, IMAGE).rename_axis("image_id")
    _check_pairs(classes.index, rows[OF_STUDY], studies.path, images.path)
    table = classes.loc[rows[OF_STUDY]].set_axis(rows.index, axis=0)
    table[BOXES] = _boxes(rows, images.path)
    _check_negative(table, task, images.path)
    return table.sort_index()


def _has_images(raw: GivenTable) -> bool:
    """Say whether a table is the one of images."""
    return raw.find([OF_STUDY, "boxes"]) is not None


def _rows(table: GivenTable, columns: tuple[str, ...], ending: str, booleans: Sequence[str] = WORDS) -> pd.DataFrame:
    """Read a table with exactly these columns as texts, indexed by its ids without their ending.

    Raises ValueError for other columns, other ids, and two different rows of one id.
    """
    path, found = table.path, {name: table.find([name]) for name in columns}
    if None in found.values() or len(found) != len(list(filter(None, table.columns))):
        raise ValueError(
            f"data.labels: expected the columns {', '.join(columns)}, got {', '.join(list(table.columns)[:8])} in {path}; "
            "give the published table, or another data.task"
        )
    raw = pd.DataFrame({name: table.texts(str(column), booleans) for name, column in found.items()})
    wrong = raw["id"][~raw["id"].str.fullmatch(rf".+{ending}")]
    if len(wrong):
        raise ValueError(
            f"data.labels: expected ids that end in {ending}, got {wrong.iloc[0]!r} in {path}; in a table with one column a "
            "label, call the column of images Image"
        )
    rows = raw.drop_duplicates()
    twice = rows["id"][rows["id"].duplicated()]
    if len(twice):
        raise ValueError(f"data.labels: {path} contradicts itself on {twice.iloc[0]}; keep one row of it")
    return rows.set_index(rows["id"].str.removesuffix(ending))


def _check_pairs(known: pd.Index, of_images: pd.Series, studies: Path, images: Path) -> None:
    """Raise ValueError unless every image has a known study and every study an image."""
    strange, alone = of_images[~of_images.isin(known)], known[~known.isin(of_images)]
    if len(strange):
        raise ValueError(
            f"data.labels: expected every image's study in {studies}, got none for {len(strange)} images in {images} (first: "
            f"{strange.index[0]}{IMAGE}, study {strange.iloc[0]}); give the whole table"
        )
    if len(alone):
        raise ValueError(
            f"data.labels: expected an image of every study of {studies} in {images}, got none of {len(alone)} studies "
            f"(first: {alone[0]}{STUDY}); give the whole table"
        )


def _boxes(rows: pd.DataFrame, path: Path) -> list[str]:
    """Write the cells of the column `boxes`, in the order of `rows`. Raises ValueError for boxes that cannot be or that label contradicts."""
    cells = []
    for image_id, text, label in zip(rows.index, rows["boxes"], rows["label"], strict=True):
        try:
            boxes = parse_boxes(text)
            check_label(boxes, label)
        except ValueError as error:
            raise ValueError(f"data.labels: {error} for {image_id}{IMAGE} in {path}; correct it") from None
        cells.append(write_boxes(boxes))
    return cells


def _check_negative(table: pd.DataFrame, task: Task, path: Path) -> None:
    """Raise ValueError for a box on an image of a negative study."""
    if NEGATIVE not in task.published:
        return
    negative = table[task.labels[task.published.index(NEGATIVE)]] == 1
    wrong = table.index[negative & (table[BOXES] != write_boxes([]))]
    if len(wrong):
        raise ValueError(
            f"data.labels: expected no box on images of negative studies, got some on {len(wrong)} in {path} (first: "
            f"{wrong[0]}{IMAGE}); correct its boxes or its study"
        )
