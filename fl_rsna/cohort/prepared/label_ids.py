"""Find the row of a label table for each image, and refuse a table of other images before any file is converted.

A row's id is the image's SOPInstanceUID, or differs from it only in what programs add or change: a file's suffix and the folders before it
("stage_2_train/ID_1.dcm"), case, blanks. Such rows are counted. A table where rows of one image have different labels, or one row belongs
to two images, is refused.

Headers of a few files are read to see whether a table is of these images: of the first files, then of files with the name of a row, then of
files spread evenly over all. The search ends at the first image with a row. Without any it ends after FIRST files, if rows that are spread
over all files would have been found ENOUGH times by then. A table of few images among many may be right, so then all headers are read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import pandas as pd

from fl_rsna.imaging.dicom.reader import read_image_id
from fl_rsna.imaging.dicom.rejections import Rejected
from fl_rsna.imaging.sources import File, read_file

SUFFIXES = "dcm dicom dic ima img png jpg jpeg tif tiff bmp npy nii gz"
BEFORE_AND_AFTER = re.compile(rf"^.*[/\\]|(?:\.(?:{SUFFIXES.replace(' ', '|')}))+$", re.IGNORECASE | re.DOTALL)


class Fit(StrEnum):
    """The kind of match between a row's id and the id of its image."""

    exact = "exact"
    without_suffix = "without_suffix"
    other_case = "other_case"


MEANING = {
    Fit.without_suffix: "have a folder or a suffix, which was left out",
    Fit.other_case: "are written in another case or with blanks, which was left out of account",
}


@dataclass(frozen=True, kw_only=True)
class LabelIds:
    """The ids of a label table with the index `image_id`, and their shorter forms, which are computed when they are needed."""

    labels: pd.DataFrame
    ids: frozenset[str]

    @cached_property
    def stems(self) -> dict[str, tuple[str, ...]]:
        """The ids by their form without folder and suffix: one id, or several where their rows differ.

        An id that is its own form is left out unless another id has that form, too.
        """
        return _by_form(self.labels, stem) if self.labels.index.str.contains(r"[/\\.]").any() else {}

    @cached_property
    def normal_forms(self) -> dict[str, tuple[str, ...]]:
        """The ids by their form without folder, suffix, case and blanks: one id, or several where their rows differ."""
        return _by_form(self.labels, lambda name: normalize_id(stem(name)))

    def row_of(self, image_id: str) -> tuple[str, Fit] | None:
        """Find the table's id for an image, and how it matches; None without a row.

        Raises ValueError where rows of the image have different labels.
        """
        form = stem(image_id)
        alike = self.stems.get(form, ())
        if image_id in self.ids and len(alike) < 2:
            return image_id, Fit.exact
        fit = Fit.without_suffix
        if not alike and form in self.ids:
            alike = (form,)
        if not alike:
            folded = normalize_id(form)
            alike, fit = self.normal_forms.get(folded, (folded,) if folded in self.ids else ()), Fit.other_case
        if len(alike) > 1:
            raise ValueError(
                f"data.labels: expected one row of image {image_id}, got {' and '.join(alike[:2])}, which say different things; "
                "keep one of them"
            )
        return (alike[0], fit) if alike else None


def label_ids(labels: pd.DataFrame) -> LabelIds:
    """Collect the ids of a label table with the index `image_id`."""
    return LabelIds(labels=labels, ids=frozenset(labels.index))


def stem(name: str) -> str:
    """Remove the folders before an id and the suffixes of a file after it. "1.2.840.5" has no suffix."""
    if "." not in name and "/" not in name and "\\" not in name:
        return name
    return BEFORE_AND_AFTER.sub("", name) or name


def normalize_id(name: str) -> str:
    """Remove the blanks of an id and fold its case."""
    return "".join(name.split()).casefold()


def of_images(known: LabelIds, image_ids: Iterable[str]) -> tuple[pd.DataFrame, dict[Fit, int]]:
    """Give the rows of these images the images' own ids, and keep the other rows as they are. Also counts the matches of each kind.

    Raises ValueError where rows of one image have different labels, or one row belongs to two images.
    """
    labels, image_of, fits = known.labels, dict[str, str](), Counter[Fit]()
    for image_id in image_ids:
        found = known.row_of(image_id)
        if found is None:
            continue
        row, fit = found
        fits[fit] += 1
        if image_of.setdefault(row, image_id) != image_id:
            raise ValueError(
                f"data.labels: expected one image of row {row}, got {image_of[row]} and {image_id}; write each image's own "
                "SOPInstanceUID"
            )
    images, left = set(image_of.values()), set(labels.index) - image_of.keys() if known.stems else set()
    spare = [row for row in left if stem(row) in images]  # repetitions of a row that was found
    renamed = {row: image for row, image in image_of.items() if row != image}
    named = labels.drop(spare).rename(index=renamed) if spare or renamed else labels
    return named, {fit: fits[fit] for fit in Fit if fits[fit]}


def describe_fits(fits: Mapping[Fit, int] | Mapping[str, int]) -> list[str]:
    """Write a sentence for each kind of match that is not exact."""
    of = sum(fits.values())
    return [f"data.labels: {fits[fit]} of {of} ids {meaning}" for fit, meaning in MEANING.items() if fit in fits]


def _by_form(labels: pd.DataFrame, shorter: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """Group ids by their shorter form: the first id of a form, and further ones whose rows differ.

    An id that is its own form is left out unless another id has that form, too.
    """
    names: dict[str, list[str]] = {}
    for name in labels.index:
        names.setdefault(shorter(name), []).append(name)
    several = {name for alike in names.values() if len(alike) > 1 for name in alike}
    some = labels[labels.index.isin(several)]
    rows = dict(zip(some.index, some.itertuples(index=False, name=None), strict=True))
    found: dict[str, tuple[str, ...]] = {}
    for form, alike in names.items():
        if len(alike) > 1:
            found[form] = tuple({rows[name]: name for name in reversed(alike)}.values())[::-1]
        elif alike[0] != form:
            found[form] = (alike[0],)
    return found


FIRST = 1000  # files
ENOUGH = (
    20  # expected images with a row among those read, if all rows were of these files; finding none is then no chance
)
BEGIN = 10  # files that are read before names are compared


def check_labels_fit(labels: LabelIds, files: Sequence[File]) -> None:
    """Raise ValueError where no image of `files` has a row. Files that are no DICOM do not count."""
    strangers: list[str] = []
    for seen, place in enumerate(_order(labels, files), 1):
        try:
            image_id = read_image_id(read_file(files[place]))
        except Rejected:
            image_id = ""
        if image_id and labels.row_of(image_id):
            return
        strangers += [image_id] * bool(image_id)
        if seen == len(files) or (seen >= FIRST and len(strangers) * len(labels.ids) >= ENOUGH * len(files)):
            break
    if not strangers:  # none of the files is an image; their conversion says why
        return
    called = normalize_id(stem(Path(files[place].name).name)) in {normalize_id(stem(row)) for row in labels.ids}
    names = ", which are names of files and not SOPInstanceUIDs" if called else ""
    raise ValueError(
        f"data.labels: expected labels of these images, got none for {seen} of {len(files)} files: the images are called "
        f"{strangers[0]} and so on, the labels are of {min(labels.ids)} and so on{names}; give the label table of these files"
    )


def _order(labels: LabelIds, files: Sequence[File]) -> Iterator[int]:
    """Yield the places of all files, each once, in the order in which their headers are read."""
    yield from range(min(BEGIN, len(files)))
    called = {normalize_id(stem(row)) for row in labels.ids}
    named = [place for place, file in enumerate(files) if normalize_id(stem(file.name)) in called]
    step = -(-len(files) // FIRST)
    spread = [*range(0, len(files), step), *(place for place in range(len(files)) if place % step)]
    yield from (place for place in dict.fromkeys([*named, *spread]) if place >= BEGIN)
