"""Find the row of a label table for each image, and refuse a table of other images before any file is converted.

A row's id is the image's SOPInstanceUID, or the same but for what programs add to it or change: a file's suffix and the folders
before it ("stage_2_train/ID_1.dcm"), another case, blanks. How many were found so is counted. Where rows of one image say different
things, or one row would be of two images, the table is refused.

The headers of a few files show whether a table is of these images: of the first files, then of those that are called as a row, then
of files spread evenly over all. The first image with a row ends the search. Without any it ends after FIRST files where rows that are
spread over all files would have been met ENOUGH times. A table of few images among many may be right, and is looked for in all headers.
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
    """How a row's id is that of its image."""

    exact = "exact"
    without_suffix = "without_suffix"
    other_case = "other_case"


MEANING = {
    Fit.without_suffix: "have a folder or a suffix, which was left out",
    Fit.other_case: "are written in another case or with blanks, which was left out of account",
}


@dataclass(frozen=True, kw_only=True)
class LabelIds:
    """The ids of a label table with the index `image_id`, by themselves and, made when they are needed, by each shorter form."""

    labels: pd.DataFrame
    ids: frozenset[str]

    @cached_property
    def stems(self) -> dict[str, tuple[str, ...]]:
        """By the form without folder and suffix: one id, or several where their rows differ; none that no other id shares."""
        return _by_form(self.labels, stem) if self.labels.index.str.contains(r"[/\\.]").any() else {}

    @cached_property
    def normal_forms(self) -> dict[str, tuple[str, ...]]:
        """The same by the form without case and blanks, too."""
        return _by_form(self.labels, lambda name: normalize_id(stem(name)))

    def row_of(self, image_id: str) -> tuple[str, Fit] | None:
        """The table's id for an image, and how it fits; raises ValueError where rows of the image say different things."""
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
    """The ids of a table with the index `image_id`."""
    return LabelIds(labels=labels, ids=frozenset(labels.index))


def stem(name: str) -> str:
    """An id without the folders before it and the suffixes of a file; "1.2.840.5" has none."""
    if "." not in name and "/" not in name and "\\" not in name:
        return name
    return BEFORE_AND_AFTER.sub("", name) or name


def normalize_id(name: str) -> str:
    """An id in which case and blanks do not count."""
    return "".join(name.split()).casefold()


def of_images(known: LabelIds, image_ids: Iterable[str]) -> tuple[pd.DataFrame, dict[Fit, int]]:
    """The rows of these images under the images' ids, then the other rows as they are; and how many fit how.

    Raises ValueError where rows of one image say different things, or one row is of two images.
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
    spare = [row for row in left if stem(row) in images]  # the same once more
    renamed = {row: image for row, image in image_of.items() if row != image}
    named = labels.drop(spare).rename(index=renamed) if spare or renamed else labels
    return named, {fit: fits[fit] for fit in Fit if fits[fit]}


def describe_fits(fits: Mapping[Fit, int] | Mapping[str, int]) -> list[str]:
    """A sentence for each way, other than letter by letter, in which images found their rows."""
    of = sum(fits.values())
    return [f"data.labels: {fits[fit]} of {of} ids {meaning}" for fit, meaning in MEANING.items() if fit in fits]


def _by_form(labels: pd.DataFrame, shorter: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """Ids by their shorter form, but for forms that are ids and no other's: the first of an id, or all whose rows differ."""
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
ENOUGH = 20  # images with a row among those looked at, if all rows were of these files: none is then no chance
BEGIN = 10  # files that are looked at before any name is


def check_labels_fit(labels: LabelIds, files: Sequence[File]) -> None:
    """Raise ValueError where no image of `files` has a row. Files that are no DICOM say nothing."""
    strangers: list[str] = []
    for seen, place in enumerate(_order(labels, files), 1):
        image_id = _image_id(files[place])
        if image_id and labels.row_of(image_id):
            return
        strangers += [image_id] * bool(image_id)
        if seen == len(files) or (seen >= FIRST and len(strangers) * len(labels.ids) >= ENOUGH * len(files)):
            break
    if not strangers:  # why none of the files is an image, their conversion says
        return
    called = normalize_id(stem(Path(files[place].name).name)) in {normalize_id(stem(row)) for row in labels.ids}
    names = ", which are names of files and not SOPInstanceUIDs" if called else ""
    raise ValueError(
        f"data.labels: expected labels of these images, got none for {seen} of {len(files)} files: the images are called "
        f"{strangers[0]} and so on, the labels are of {min(labels.ids)} and so on{names}; give the label table of these files"
    )


def _order(labels: LabelIds, files: Sequence[File]) -> Iterator[int]:
    """Places of all files, each once, in the order in which they are looked at."""
    yield from range(min(BEGIN, len(files)))
    called = {normalize_id(stem(row)) for row in labels.ids}
    named = [place for place, file in enumerate(files) if normalize_id(stem(file.name)) in called]
    step = -(-len(files) // FIRST)
    spread = [*range(0, len(files), step), *(place for place in range(len(files)) if place % step)]
    yield from (place for place in dict.fromkeys([*named, *spread]) if place >= BEGIN)


def _image_id(file: File) -> str:
    try:
        return read_image_id(read_file(file))
    except Rejected:
        return ""
