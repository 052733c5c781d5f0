"""A table somebody published with a split of its own, as Slices: CSV (also .gz or .zip) or Parquet.

Columns are found by their usual names, SPELLINGS, compared without case, spaces and punctuation, unless the user names
them. Once a site or split column is named, only what is named counts as a place; otherwise every column that looks
like one does, alone and together with the others.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd
import pyarrow.parquet

from fl_rsna.cohort.patients import stand_for_nobody
from fl_rsna.cohort.places import SPREAD, Slices, apart_by_site, apart_from_blank, as_ids, constant_images
from fl_rsna.given_table import bare, dialect, texts_of

SPELLINGS = {  # of ids, the first that a table has is taken; of site and split, all
    "patient": "patient_id patient patient_number patient_no patient_name subject_id subject participant_id participant "
    "person_id person case_id mrn pid",
    "site": "site site_id site_name center centre center_id centre_id hospital hospital_id hospital_name "
    "institution institution_id institution_name clinic client client_id",
    "split": "split fold fold_id kfold set subset partition usage",
    "study": "study_instance_uid study_uid study_id study exam_id exam accession_number accession",
    "series": "series_instance_uid series_uid series_id series",
    "image": "sop_instance_uid sop_uid image_id image image_name file_name",
    "pixels": "png_sha256 pixel_sha256 pixels_sha256 pixel_hash pixels_hash image_hash sha256 sha1 md5",
}
NOT_LABELS = ("pixel_representation", "is_train", "is_test", "is_validation", "is_valid")
PLACES = ("site", "split")
MAX_PLACES = 1000  # of one column; one with more is no site and no split
SAMPLE = 1000  # rows looked at to see which columns can be labels
ONE, ZERO = ("1", "1.0"), ("0", "0.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A table as read, and which of its columns stood for what."""

    slices: Slices
    columns: dict[str, list[str]]


def read_published(path: Path, named: Mapping[str, str], labels: Sequence[str] | None) -> Published:
    """Read a table; `named` maps roles of SPELLINGS to columns, `labels` None takes every column of 0 and 1.

    Ids are text: "007" is not "7". Raises ValueError when the table has no patients or no two places.
    """
    sample = _read(path, None)
    header = [str(name) for name in sample]
    columns = {role: _columns_of(role, header, named, path) for role in SPELLINGS}
    _check_roles(columns, header, path)
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
    """The named columns as they are written or, without names, the first SAMPLE rows of all."""
    try:
        if path.suffix.lower() != ".parquet":
            return _of_csv(path, columns)
        if columns is not None:
            rows = pyarrow.parquet.read_table(path, columns=columns)
            return pd.DataFrame({name: _texts(rows[name], name, path) for name in columns})
        file = pyarrow.parquet.ParquetFile(path)
        first = next(file.iter_batches(SAMPLE), None)
        cells = {} if first is None else dict(zip(first.schema.names, first.columns, strict=True))
        return pd.DataFrame({name: _sample(cells[name]) if cells else [] for name in file.schema_arrow.names})
    except (OSError, EOFError, ValueError, zlib.error, BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"table: expected a CSV or Parquet table at {path}, got {reason}; give the whole file"
        ) from None


def _of_csv(path: Path, columns: list[str] | None) -> pd.DataFrame:
    """The same of a CSV; a row with more cells than the header is refused, since nobody can tell which are meant."""
    encoding, separator = dialect(path)
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": encoding, "sep": separator}
    if columns is None:
        pd.read_csv(path, header=None, nrows=SAMPLE, **how)
    rows: pd.DataFrame = pd.read_csv(path, usecols=columns, nrows=None if columns else SAMPLE, **how)
    return rows.fillna("")


def _texts(cells: Any, name: str, path: Path) -> pd.Series:
    try:
        return texts_of(cells)
    except TypeError as error:
        raise ValueError(f"{error} in column {name}, where text or whole numbers are needed") from None


def _sample(cells: Any) -> pd.Series:
    """The first cells of a column; of one that holds neither text nor numbers, its type."""
    try:
        return texts_of(cells)
    except TypeError as error:
        return pd.Series([str(error)] * len(cells), dtype="str")


def _columns_of(role: str, header: Sequence[str], named: Mapping[str, str], path: Path) -> list[str]:
    """The columns that can play a role, best first; raises ValueError when one is named that is not there."""
    if role in named:
        if (alike := _named(named[role], header)) is not None:
            return [alike]
        word = "pixels_column" if role == "pixels" else role
        raise ValueError(f"{word}: expected a column of {path}, got {named[role]!r}; it has {', '.join(header)}")
    if role in PLACES and any(other in named for other in PLACES):
        return []
    bared = {name: bare(name) for name in header}
    return [name for usual in SPELLINGS[role].split() for name in bared if bared[name] == bare(usual)]


def _named(name: str, header: Sequence[str]) -> str | None:
    """The column of that name or, where there is none, the one that is called so but for case, blanks and punctuation."""
    alike = [column for column in header if bare(column) == bare(name)]
    return name if name in header else alike[0] if len(alike) == 1 else None


def _check_roles(columns: Mapping[str, Sequence[str]], header: Sequence[str], path: Path) -> None:
    """Refuse a table without patients or without places."""
    for needed, roles, say in (
        ("patient ids", ("patient",), "patient=<column>"),
        ("sites or splits", PLACES, "site=<column> or split=<column>"),
    ):
        if not any(columns[role] for role in roles):
            raise ValueError(
                f"table: expected a column of {needed} in {path}, found none by name; say {say}, it has {', '.join(header)}"
            )


def _places_of(rows: pd.DataFrame, columns: Mapping[str, Sequence[str]], path: Path) -> pd.DataFrame:
    """The columns that tell places apart: those with at least two values."""
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
    """The columns that are labels or, by a sample of their rows, can be."""
    if labels is None:
        free = [name for name in map(str, sample) if name not in taken and bare(name) not in map(bare, NOT_LABELS)]
        return [name for name in free if as_ids(sample[name]).dropna().isin([*ONE, *ZERO]).all()]
    header, found = list(map(str, sample)), []
    for name in labels:
        if (column := _named(name, header)) is None:
            raise ValueError(f"labels: expected columns of {path}, got {name!r}; it has {', '.join(header)}")
        found.append(column)
    return found


def _label_values(rows: pd.DataFrame, wanted: Sequence[str], named: bool, path: Path) -> pd.DataFrame:
    """Labels as 0, 1 or NaN where blank; of columns nobody named, those that hold both 0 and 1 and nothing else."""
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
