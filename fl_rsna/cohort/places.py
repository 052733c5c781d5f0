"""Slices and where they are: what an audit looks at, however the table or folder it came from is written."""

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.given_table import clean

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "<NA>")  # texts that stand for no value

SPREAD = ("hu_min", "hu_max", "hu_std")  # columns that tell a constant image

Codes = NDArray[np.int64]  # one a row, -1 where the value is missing


class Kind(StrEnum):
    """What two places may share."""

    patient = "patient"
    study = "study"
    series = "series"
    image = "image"
    pixels = "pixels"  # of images that show something
    blank = "blank"  # of constant images, such as nothing but air: equal without being the same slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """What is audited, one row a slice in each frame.

    `places` has a text column for each way to say where a slice is, `ids` a text column for each Kind known,
    `labels` float columns of 0, 1 or, unknown, NaN. `site` and `part` name the columns of `places` that tell sites,
    and parts inside a site, where there are any.
    """

    places: pd.DataFrame
    ids: pd.DataFrame
    labels: pd.DataFrame
    site: str | None
    part: str | None
    placeholders: int = 0  # rows of a patient id that stands for nobody, which `apart_by_site` has taken apart


def as_ids(column: pd.Series) -> pd.Series:
    """A column as text without spaces around it, missing where it holds one of MISSING; "007" stays "007"."""
    text = clean(column.astype("str"))
    return text.mask(text.isin(MISSING))


def constant_images(rows: pd.DataFrame) -> pd.Series | None:
    """Which rows' images are constant, by the SPREAD columns of `rows`; None where they cannot tell."""
    if {"hu_min", "hu_max"} <= set(rows):
        return as_ids(rows["hu_min"]).eq(as_ids(rows["hu_max"])).astype(bool)
    if "hu_std" in rows:
        return pd.to_numeric(rows["hu_std"], errors="coerce").eq(0)
    return None


def apart_from_blank(ids: pd.DataFrame, constant: pd.Series | None) -> pd.DataFrame:
    """Move the pixels of constant images to a column of their own; a hash is blank where any of its rows is."""
    if constant is None or Kind.pixels not in ids:
        return ids
    blank = ids[Kind.pixels].isin(ids.loc[constant, Kind.pixels].dropna().unique())
    return ids.assign(**{Kind.pixels: ids[Kind.pixels].mask(blank), Kind.blank: ids[Kind.pixels].where(blank)})


def apart_by_site(patients: pd.Series, placeholders: NDArray[np.bool_], sites: pd.Series | None) -> pd.Series:
    """Patient ids of which a placeholder is another patient at every site: two sites' ANONYMOUS need not be one."""
    return patients if sites is None else patients.mask(placeholders, patients + " at " + sites)


def places_of(columns: pd.DataFrame) -> tuple[Codes, tuple[str, ...]]:
    """The place of each row, -1 where a column is missing, and the names of the places in natural order."""
    values = [sorted(columns[name].dropna().unique(), key=natural) for name in columns]
    code = np.zeros(len(columns), np.int64)
    for name, choices in zip(columns, values, strict=True):
        own = pd.Categorical(columns[name], categories=choices).codes
        code = np.where((code < 0) | (own < 0), -1, code * len(choices) + own)
    present, numbers = np.unique(code[code >= 0], return_inverse=True)
    if not len(present):
        return code, ()
    code[code >= 0] = numbers
    chosen = np.column_stack(np.unravel_index(present, [len(choices) for choices in values]))
    return code, tuple("/".join(values[at][number] for at, number in enumerate(row)) for row in chosen)


def natural(name: str) -> list[str | int]:
    """Sort key by which site-2 comes before site-10."""
    return [int(piece) if at % 2 else piece for at, piece in enumerate(re.split(r"(\d+)", name))]
