"""Read who is at which site from a file or a list, by ids of the index or by the original ids that prepare hashed."""

import csv
import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.prepared.index import hash_id
from fl_rsna.cohort.prepared.patients import ISSUED
from fl_rsna.common.tables import bare, clean_text, dialect, read_given
from fl_rsna.settings.partition import SITE_NAME, TEST_SITE, Group

ID_COLUMNS = {  # names of the column of ids, by the unit that is assigned
    Group.patient: ("patient", "patient_id", "PatientID"),
    Group.series: ("series", "series_id", "SeriesInstanceUID"),
    Group.slice: ("slice", "image_id", "SOPInstanceUID"),
}
KEY = "partition.assignment"
SITE_COLUMN = "site"
TAKEN = ("cohort.json", "partition.html")  # files beside the sites' folders, whose names no site may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The ids that are assigned. With a `salt`, original ids are found by their hash.

    `of_number` maps a PatientID whose issuer is known to its patients, so that a PatientID that only one patient has finds that patient.
    """

    ids: frozenset[str]
    group: Group
    salt: str | None
    of_number: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def find(self, given: str) -> str | None:
        """Find the index's id for an id as given, also without the blanks and Excel's ="" around it.

        Returns None for an unknown id and for a PatientID of several patients.
        """
        exact = next((form for form in self._forms(given) if form in self.ids), None)
        same = self.of(given)
        return exact if exact is not None else same[0] if len(same) == 1 else None

    def of(self, given: str) -> Sequence[str]:
        """List the patients whose PatientID is the one given, from any issuer."""
        return next((self.of_number[form] for form in self._forms(given) if form in self.of_number), ())

    def _forms(self, given: str) -> Iterator[str]:
        """Yield the forms in which an id may stand in the index: as given, cleaned, then the hashes of these."""
        forms = (given, given.strip(), clean_text(given))
        hashed = () if self.salt is None else (hash_id(form, str(self.salt)) for form in forms)
        return itertools.chain(forms, hashed)


def read_assignment(path: Path, known: Known) -> dict[str, str]:
    """Read the site of every known id from a CSV with the columns patient (or series, slice) and site.

    Raises ValueError for rows that contradict each other, ids that the file or the data lack, and sites' names that no folder can have.
    """
    key = KEY
    columns, who, rows = _table(path, known.group)
    where, sites, strangers = columns.index(SITE_COLUMN), dict[str, str](), dict[str, None]()
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"{key}: expected {len(columns)} cells a row, got {len(row)} in {path}: {','.join(row)[:80]}"
            )
        found, site = known.find(row[who]), clean_text(row[where])
        if found is None:
            strangers[row[who]] = None
        elif sites.setdefault(found, site) != site:
            raise ValueError(f"{key}: {path} puts {row[who]} both in {sites[found]} and in {site}; keep one row of it")
    _refuse_strangers(key, path, list(strangers), known, missing=sorted(known.ids - sites.keys()))
    _check_names(key, path, sites)
    return sites


def read_site_names(path: Path, group: Group) -> list[str]:
    """List the sites that an assignment names, in their order in the file. Raises ValueError when it cannot be read."""
    columns, _, rows = _table(path, group)
    where = columns.index(SITE_COLUMN)
    return list(dict.fromkeys(clean_text(row[where]) for row in rows if len(row) == len(columns)))


def _table(path: Path, group: Group) -> tuple[list[str], int, list[list[str]]]:
    """Read an assignment: its columns, the number of the column of ids, and its rows. Raises ValueError without these columns."""
    header, *rows = _rows(path, KEY) or [[]]
    columns = [clean_text(name) for name in header]
    who, where = _find_column(columns, ID_COLUMNS[group]), _find_column(columns, [SITE_COLUMN])
    if who is None or where is None:
        raise ValueError(
            f"{KEY}: expected a CSV with the columns {group},{SITE_COLUMN} at {path}, got {', '.join(columns[:8]) or 'nothing'}"
        )
    columns[where] = SITE_COLUMN
    return columns, who, rows


def _find_column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    """Find the number of the column with the first of these names, whatever its case and punctuation; None without any."""
    bared = [bare(column) for column in columns]
    return next((bared.index(bare(name)) for name in names if bare(name) in bared), None)


def read_listed(given: str | Sequence[Any], known: Known) -> list[str]:
    """Read the ids of partition.test, a list or a file with an id in each row and perhaps a header. Returns them sorted, each once.

    Raises ValueError for ids that the data lack.
    """
    key = "partition.test"
    if isinstance(given, str):
        listed, source = _column(Path(given), known.group, key), given
    else:
        listed, source = [str(item) for item in given], "the list"
    found = {item: known.find(item) for item in listed}
    _refuse_strangers(key, source, [item for item, id_ in found.items() if id_ is None], known, missing=[])
    if not found:
        raise ValueError(f"{key}: expected one or more {known.group.plural} in {source}, got none")
    return sorted({id_ for id_ in found.values() if id_ is not None})


def _column(path: Path, group: Group, key: str) -> list[str]:
    """Read the column of ids of a file, or its only column. Raises ValueError for a row with another number of cells."""
    rows = _rows(path, key)
    header = [clean_text(name) for name in rows[0]] if rows else []
    named = _find_column(header, ID_COLUMNS[group])
    width = 1 if named is None else len(header)
    wrong = next((row for row in rows if len(row) != width), None)
    if wrong is not None:
        raise ValueError(
            f"{key}: expected one {group} a row or a column {group} in {path}, got {len(wrong)} cells: {','.join(wrong)[:80]}"
        )
    return [row[0] for row in rows] if named is None else [row[named] for row in rows[1:]]


def _rows(path: Path, key: str) -> list[list[str]]:
    """Read the rows of a CSV that are not blank, or of a Parquet table; the first row has the columns' names.

    Raises ValueError when the file cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        table = read_given(path, key, "a CSV or Parquet table")
        return [list(table.columns), *map(list, zip(*map(table.texts, table.columns), strict=True))]
    try:
        encoding, separator = dialect(path)
        with path.open(newline="", encoding=encoding) as file:
            return [row for row in csv.reader(file, delimiter=separator) if any(cell.strip() for cell in row)]
    except pd.errors.EmptyDataError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{key}: expected a CSV in UTF-8 at {path}, got {type(error).__name__}: {error}") from None


def _refuse_strangers(key: str, source: object, strangers: Sequence[str], known: Known, missing: Sequence[str]) -> None:
    """Raise ValueError where the source names ids that the data lack (`strangers`), or the data have ids that it lacks (`missing`)."""
    wrong = []
    several = next((name for name in strangers if len(known.of(name)) > 1), None)
    if several is not None:
        raise ValueError(
            f"{key}: expected one patient for each PatientID of {source}, got {several}, which {len(known.of(several))} patients have from "
            f"different issuers or sites; write {several.strip()}{ISSUED}<issuer or site> for each of them"
        )
    if strangers:
        wrong.append(f"{len(strangers)} of {source} are not in the data (first: {strangers[0]})")
    if missing:
        wrong.append(f"{len(missing)} of the data are not in {source} (first: {missing[0]})")
    if wrong:
        hint = (
            ""
            if known.salt is None or not strangers
            else ", or give the data.salt of prepare if these are original ids"
        )
        raise ValueError(
            f"{key}: expected {known.group.plural} of the data, which holds {len(known.ids)}, but {' and '.join(wrong)}; correct it{hint}"
        )


def _check_names(key: str, path: Path, sites: Mapping[str, str]) -> None:
    """Raise ValueError for names that are no plain folder names, or that differ from each other or from a cohort's files only in case."""
    names = sorted(set(sites.values()))
    wrong = next((name for name in names if not SITE_NAME.fullmatch(name)), None)
    if wrong is not None:
        raise ValueError(
            f"{key}: expected site names of up to 60 letters, digits, blanks, dots, - and _, got {wrong!r} in {path}; rename it"
        )
    if names == [TEST_SITE]:
        raise ValueError(f"{key}: expected a site besides {TEST_SITE}, got none in {path}")
    seen = {name: name for name in (TAKEN if TEST_SITE in names else (*TAKEN, TEST_SITE))}
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded in seen:
            raise ValueError(
                f"{key}: expected site names apart in more than case, from each other and from what else a cohort holds, "
                f"got {name!r} beside {seen[folded]!r} in {path}; rename it"
            )
        seen[folded] = name
