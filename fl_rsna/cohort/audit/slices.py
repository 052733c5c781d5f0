"""Define the slices that an audit checks and the place of each, and read them from a published table.

A published table is a CSV (also .gz or .zip) or a Parquet file with a split of its own. Its columns are found by their usual names
(SPELLINGS), compared without case, blanks and punctuation, unless the user names them. Once the user names a site or split column, only
named columns are places. Otherwise every column with such a name is one, alone and together with the others.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow.parquet
from numpy.typing import NDArray

from fl_rsna.cohort.audit.usual_names import SPELLINGS
from fl_rsna.cohort.prepared.patients import stand_for_nobody
from fl_rsna.common.tables import bare, clean, dialect, texts_of

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "<NA>")  # texts that stand for no value

SPREAD = ("hu_min", "hu_max", "hu_std")  # columns by which a constant image is found

Codes = NDArray[np.int64]  # a number for each row, -1 where the value is missing
NOT_LABELS = ("pixel_representation", "is_train", "is_test", "is_validation", "is_valid")
PLACES = ("site", "split")
MAX_PLACES = 1000  # of one column; a column with more values is no site and no split
SAMPLE = 1000  # first rows by which columns that can be labels are found
ONE, ZERO = ("1", "1.0"), ("0", "0.0")


class Kind(StrEnum):
    """The kinds of ids that two places may share."""

    patient = "patient"
    study = "study"
    series = "series"
    image = "image"
    pixels = "pixels"  # of images that show something
    blank = "blank"  # of constant images, such as nothing but air: equal without being the same slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """The slices of an audit, with a row for each slice in each frame.

    `places` has text columns that say where a slice is. `ids` has a text column for each known Kind. `labels` has float columns of 0, 1, or
    NaN where unknown. `site` and `part` name the columns of `places` that hold sites, and parts inside a site; None without any.
    """

    places: pd.DataFrame
    ids: pd.DataFrame
    labels: pd.DataFrame
    site: str | None
    part: str | None
    placeholders: int = 0  # rows with a patient id that stands for nobody, which `apart_by_site` separated


def as_ids(column: pd.Series) -> pd.Series:
    """Convert a column to text without blanks around it, missing where it holds one of MISSING. "007" stays "007"."""
    text = clean(column.astype("str"))
    return text.mask(text.isin(MISSING))


def constant_images(rows: pd.DataFrame) -> pd.Series | None:
    """Find the constant images by the SPREAD columns of `rows`; None where these columns are missing."""
    if {"hu_min", "hu_max"} <= set(rows):
        return as_ids(rows["hu_min"]).eq(as_ids(rows["hu_max"])).astype(bool)
    if "hu_std" in rows:
        return pd.to_numeric(rows["hu_std"], errors="coerce").eq(0)
    return None


def apart_from_blank(ids: pd.DataFrame, constant: pd.Series | None) -> pd.DataFrame:
    """Move the pixel hashes of constant images to a column of their own.

    A hash counts as constant where any row with it does. `constant` is None where that is unknown; then `ids` is returned unchanged.
    """
    if constant is None or Kind.pixels not in ids:
        return ids
    blank = ids[Kind.pixels].isin(ids.loc[constant, Kind.pixels].dropna().unique())
    return ids.assign(**{Kind.pixels: ids[Kind.pixels].mask(blank), Kind.blank: ids[Kind.pixels].where(blank)})


def apart_by_site(patients: pd.Series, placeholders: NDArray[np.bool_], sites: pd.Series | None) -> pd.Series:
    """Make placeholders such as ANONYMOUS another patient at every site: two sites' placeholders need not be one patient."""
    return patients if sites is None else patients.mask(placeholders, patients + " at " + sites)


def places_of(columns: pd.DataFrame) -> tuple[Codes, tuple[str, ...]]:
    """Number the places of the rows, -1 where a column is missing, and name the places in natural order."""
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
    """Build the sort key by which site-2 comes before site-10."""
    return [int(piece) if at % 2 else piece for at, piece in enumerate(re.split(r"(\d+)", name))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published table as read, and the columns of it that were taken for each role."""

    slices: Slices
    columns: dict[str, list[str]]


def read_published(path: Path, named: Mapping[str, str], labels: Sequence[str] | None) -> Published:
    """Read a published table.

    `named` maps roles of SPELLINGS to columns. Without `labels` every column of 0 and 1 is a label. Ids are text: "007" is not "7". Raises
    ValueError when the table has no patient ids or fewer than two places.
    """
    sample = _read(path, None)
    header = [str(name) for name in sample]
    columns = {role: _columns_of(role, header, named, path) for role in SPELLINGS}
    for needed, roles, say in (
        ("patient ids", ("patient",), "patient=<column>"),
        ("sites or splits", PLACES, "site=<column> or split=<column>"),
    ):
        if not any(columns[role] for role in roles):
            raise ValueError(
                f"table: expected a column of {needed} in {path}, found none by name; say {say}, it has {', '.join(header)}"
            )
    ids = {role: found[0] for role, found in columns.items() if found and role not in PLACES}
    taken = [*ids.values(), *columns["site"], *columns["split"]]
    wanted = _labels_of(sample, taken, labels, path)
    spread = [name for name in SPREAD if name in header and "pixels" in ids]
    rows = _read(path, list(dict.fromkeys([*taken, *wanted, *spread])))
    texts = pd.DataFrame({role: as_ids(rows[name]) for role, name in ids.items()})
    places = _places_of(rows, columns, path)
    values = _label_values(rows, wanted, labels is not None, path)
    found = {role: [name for name in columns[role] if name in places] for role in PLACES}
    site, nobody = next(iter(found["site"]), None), stand_for_nobody(texts["patient"])
    texts["patient"] = apart_by_site(texts["patient"], nobody, None if site is None else places[site])
    slices = Slices(
        places=places,
        ids=apart_from_blank(texts, constant_images(rows)),
        labels=values,
        site=site,
        part=next(iter(found["split"]), None),
        placeholders=int(nobody.sum()),
    )
    return Published(
        slices=slices,
        columns={**{role: [name] for role, name in ids.items()}, **found, "labels": list(map(str, values))},
    )


def _read(path: Path, columns: list[str] | None) -> pd.DataFrame:
    """Read the named columns as texts or, without names, the first SAMPLE rows of all columns.

    Raises ValueError when it is no table, or a CSV has a row with more cells than the header: nobody can tell which cells are meant.
    """
    try:
        if path.suffix.lower() != ".parquet":
            encoding, separator = dialect(path)
            how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": encoding, "sep": separator}
            if columns is None:
                pd.read_csv(path, header=None, nrows=SAMPLE, **how)  # refuses rows that are longer than the header
            table: pd.DataFrame = pd.read_csv(path, usecols=columns, nrows=None if columns else SAMPLE, **how)
            return table.fillna("")
        if columns is not None:
            rows = pyarrow.parquet.read_table(path, columns=columns)
            return pd.DataFrame({name: _texts(rows[name], name) for name in columns})
        file = pyarrow.parquet.ParquetFile(path)
        first = next(file.iter_batches(SAMPLE), None)
        cells = {} if first is None else dict(zip(first.schema.names, first.columns, strict=True))
        return pd.DataFrame({name: _sample(cells[name]) if cells else [] for name in file.schema_arrow.names})
    except (OSError, EOFError, ValueError, zlib.error, BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"table: expected a CSV or Parquet table at {path}, got {reason}; give the whole file"
        ) from None


def _texts(cells: Any, name: str) -> pd.Series:
    """Convert a Parquet column to texts. Raises ValueError where it holds neither text nor numbers."""
    try:
        return texts_of(cells)
    except TypeError as error:
        raise ValueError(f"{error} in column {name}, where text or whole numbers are needed") from None


def _sample(cells: Any) -> pd.Series:
    """Convert the first cells of a Parquet column to texts; a column of neither text nor numbers to the name of its type."""
    try:
        return texts_of(cells)
    except TypeError as error:
        return pd.Series([str(error)] * len(cells), dtype="str")


def _columns_of(role: str, header: Sequence[str], named: Mapping[str, str], path: Path) -> list[str]:
    """Find the columns that can play a role, best first. Raises ValueError when the user named one that the table lacks."""
    if role in named:
        if (alike := _find_column(named[role], header)) is not None:
            return [alike]
        key = "pixels_column" if role == "pixels" else role
        raise ValueError(f"{key}: expected a column of {path}, got {named[role]!r}; it has {', '.join(header)}")
    if role in PLACES and any(other in named for other in PLACES):
        return []
    bared = {name: bare(name) for name in header}
    return [name for usual in SPELLINGS[role].split() for name in bared if bared[name] == bare(usual)]


def _find_column(name: str, header: Sequence[str]) -> str | None:
    """Find the column of that name or, where there is none, the only one that differs in case, blanks or punctuation alone."""
    alike = [column for column in header if bare(column) == bare(name)]
    return name if name in header else alike[0] if len(alike) == 1 else None


def _places_of(rows: pd.DataFrame, columns: Mapping[str, Sequence[str]], path: Path) -> pd.DataFrame:
    """Read the columns of sites and splits with at least two values.

    Raises ValueError when there is none, or one has more than MAX_PLACES values.
    """
    places = pd.DataFrame({name: as_ids(rows[name]) for role in PLACES for name in columns[role]}, index=rows.index)
    sizes, say = places.nunique(), "say site=<column> or split=<column>"
    for name, size in sizes.items():
        if size > MAX_PLACES:
            raise ValueError(
                f"table: expected at most {MAX_PLACES} sites or splits, got {size} in column {name} of {path}; {say}"
            )
    if not (sizes > 1).any():
        raise ValueError(
            f"table: expected two or more sites or splits, got fewer in {', '.join(map(str, places))} of {path}; {say}"
        )
    return places.loc[:, sizes > 1]


def _labels_of(sample: pd.DataFrame, taken: Sequence[str], labels: Sequence[str] | None, path: Path) -> list[str]:
    """Find the columns of labels: the named ones or, without names, those with only 0 and 1 in the sample.

    Raises ValueError when a named one is missing.
    """
    if labels is None:
        free = [name for name in map(str, sample) if name not in taken and bare(name) not in map(bare, NOT_LABELS)]
        return [name for name in free if as_ids(sample[name]).dropna().isin([*ONE, *ZERO]).all()]
    header, found = list(map(str, sample)), []
    for name in labels:
        if (column := _find_column(name, header)) is None:
            raise ValueError(f"labels: expected columns of {path}, got {name!r}; it has {', '.join(header)}")
        found.append(column)
    return found


def _label_values(rows: pd.DataFrame, wanted: Sequence[str], named: bool, path: Path) -> pd.DataFrame:
    """Convert labels to 0, 1, or NaN where blank.

    Of columns that were not named, only those with both 0 and 1 and nothing else are kept. Raises ValueError for another value in a named
    column.
    """
    values = {}
    for name in wanted:
        text = as_ids(rows[name])
        value = text.isin(ONE).astype("float32").mask(~text.isin([*ONE, *ZERO]))
        wrong = text[value.isna() & text.notna()]
        if named and len(wrong):
            raise ValueError(f"labels: expected 0 or 1 in column {name} of {path}, got {wrong.iloc[0]!r}; correct it")
        if named or (not len(wrong) and value.nunique() == 2):
            values[name] = value
    return pd.DataFrame(values, index=rows.index)
