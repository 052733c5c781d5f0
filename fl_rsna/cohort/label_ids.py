"""Which row of a label table is of which image: its id is the image's, or the same but for what programs add to it or change.

An image is called by its SOPInstanceUID. A row may say that with a file's suffix and the folders before it
("stage_2_train/ID_1.dcm"), or else in another case or with blanks. How many were found so is counted. Where rows of one image say
different things, or one row would be of two images, the table is refused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelIds:
    """The ids of a label table, and by each shorter form the ids that have it: several only where their rows differ."""

    ids: frozenset[str]
    stems: Mapping[str, tuple[str, ...]]
    folded: Mapping[str, tuple[str, ...]]

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
    ids = pd.Series(labels.index, dtype="str")
    forms = ids.map(stem)
    return LabelIds(
        ids=frozenset(labels.index), stems=_by_form(labels, ids, forms), folded=_by_form(labels, ids, forms.map(fold))
    )


def stem(name: str) -> str:
    """An id without the folders before it and the suffixes of a file; "1.2.840.5" has none."""
    return BEFORE_AND_AFTER.sub("", name) or name


def fold(name: str) -> str:
    """An id in which case and blanks do not count."""
    return "".join(name.split()).casefold()


def of_images(labels: pd.DataFrame, image_ids: Iterable[str]) -> tuple[pd.DataFrame, dict[Fit, int]]:
    """The rows of these images under the images' ids, then the other rows as they are; and how many fit how.

    Raises ValueError where rows of one image say different things, or one row is of two images.
    """
    known, image_of, fits = label_ids(labels), dict[str, str](), Counter[Fit]()
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
    images = set(image_of.values())
    spare = [row for row in labels.index if row not in image_of and stem(row) in images]  # the same once more
    renamed = labels.drop(spare).rename(index={row: image for row, image in image_of.items() if row != image})
    return renamed, {fit: fits[fit] for fit in Fit if fits[fit]}


def said_of(fits: Mapping[Fit, int] | Mapping[str, int]) -> list[str]:
    """A sentence for each way, other than letter by letter, in which images found their rows."""
    of = sum(fits.values())
    return [f"data.labels: {fits[fit]} of {of} ids {meaning}" for fit, meaning in MEANING.items() if fit in fits]


def _by_form(labels: pd.DataFrame, ids: "pd.Series[str]", forms: "pd.Series[str]") -> dict[str, tuple[str, ...]]:
    """Ids by their form, but for forms that are ids and no other's: the first of an id, or all whose rows differ."""
    forms = forms[forms.isin(set(forms[forms != ids]))]
    found: dict[str, tuple[str, ...]] = {form: (name,) for form, name in zip(forms, ids[forms.index], strict=True)}
    several = forms[forms.duplicated(keep=False)]
    for form, rows in several.groupby(several).groups.items():
        found[str(form)] = tuple(labels.iloc[sorted(rows)].drop_duplicates().index)
    return found
