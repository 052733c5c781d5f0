"""Which row of a label table is of which image: its id is the image's, or the same but for what programs add to it or change.

An image is called by its SOPInstanceUID. A row may say that with a file's suffix and the folders before it
("stage_2_train/ID_1.dcm"), or else in another case or with blanks. How many were found so is counted. Where rows of one image say
different things, or one row would be of two images, the table is refused.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import pandas as pd

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
    def folded(self) -> dict[str, tuple[str, ...]]:
        """The same by the form without case and blanks, too."""
        return _by_form(self.labels, lambda name: fold(stem(name)))

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
            folded = fold(form)
            alike, fit = self.folded.get(folded, (folded,) if folded in self.ids else ()), Fit.other_case
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


def fold(name: str) -> str:
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


def said_of(fits: Mapping[Fit, int] | Mapping[str, int]) -> list[str]:
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
