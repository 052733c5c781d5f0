"""Find what is in more than one place: patients, studies, series, images and pixels that sites or splits share.

A place is a value of a column that says where a slice is (a site, a split), or a combination of such values. Shared ids are counted by one
sparse product, [places, ids] times [ids, places]; rows are not compared with each other.

Ids are text, so "007" is not "7". But a table that went through a spreadsheet or a float column may hold "1.0" beside "1", and 1.23457E+11
for every long number that begins so. A patient who is in two places under two such ids is not found, so such ids and names of places are
warned of.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, triu

from fl_rsna.cohort.audit.slices import Codes, Kind, Slices, natural, places_of

DECIMAL = re.compile(r"(\d+)\.0+")
ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+\d+")  # the plus sign is required: no hexadecimal id has one
ZEROS = re.compile(r"(\D*)0+(\d+)")
NOBODY = "(no patient id)"
COMPARED = (Kind.patient, Kind.study, Kind.series)  # kinds of ids whose spelling is checked
NUMBERED = 3.0  # mean number of patients with the same id above which it is a number inside a patient, such as "scan 1"


class Doubt(StrEnum):
    """A reason to doubt how an id or a place is written."""

    decimal = "written with a decimal point"
    rounded = "rounded, as a spreadsheet shows long numbers"
    alike = "apart from another only in case, blanks, leading zeros or .0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A doubt about the values of one column, and all groups of values that raise it."""

    what: str  # "patient ids", "places of split"
    doubt: Doubt
    of: int  # number of values in the column
    groups: tuple[tuple[str, ...], ...]

    @property
    def sentence(self) -> str:
        """The doubt in words: how many values raise it, and the first of them."""
        count = sum(map(len, self.groups))
        return f"{count} of {self.of} {self.what} {'is' if count == 1 else 'are'} {self.doubt} (first: {' and '.join(self.groups[0])})"


def spellings_of(named: Mapping[str, Iterable[str]]) -> tuple[Spelling, ...]:
    """Find the doubts about the values of each column of `named`, which has them by what they are. Each value counts once."""
    spellings = []
    for what, given in named.items():
        values, alike = sorted(set(given)), dict[str, list[str]]()
        for value in values:
            alike.setdefault(plain(value), []).append(value)
        groups: dict[Doubt, list[tuple[str, ...]]] = {
            Doubt.decimal: [(value,) for value in values if DECIMAL.fullmatch(value)],
            Doubt.rounded: [(value,) for value in values if ROUNDED.fullmatch(value)],
            Doubt.alike: [tuple(group) for group in alike.values() if len(group) > 1],
        }
        spellings += [
            Spelling(what=what, doubt=doubt, of=len(values), groups=tuple(found))
            for doubt, found in groups.items()
            if found
        ]
    return tuple(spellings)


def plain(text: str) -> str:
    """Reduce a text so that case, blanks, leading zeros of its number and a final .0 do not count."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    if whole := DECIMAL.fullmatch(folded):
        folded = whole[1]
    if padded := ZEROS.fullmatch(folded):
        folded = padded[1] + padded[2]
    return folded


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two places, and the number of ids of each kind that are in both."""

    places: tuple[str, str]
    shared: dict[Kind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The places that the columns `by` make together. `shared` counts ids in more than one place, `pairs` lists the places that share some."""

    by: str
    places: tuple[str, ...]
    unplaced: int  # rows without a place
    shared: dict[Kind, int]
    pairs: tuple[Pair, ...]  # most patients first


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Patient ids with the same images, series or studies in different places: perhaps one patient."""

    patients: tuple[str, ...]
    places: tuple[str, ...]
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """Ids of one kind in several places that belong to several patient ids or none: their number and their patients."""

    count: int
    of: tuple[Alias, ...]  # those that share most first


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The ids that places of a table share; `patients` has every shared patient and its places."""

    slices: int
    missing: dict[Kind, int]  # rows without this id
    totals: dict[Kind, int]
    numbered: tuple[Kind, ...]  # kinds whose ids are numbers inside a patient; patient and number together are the id
    views: tuple[View, ...]  # the finest first
    patients: dict[str, tuple[str, ...]]
    aliases: dict[Kind, Aliases]
    spellings: tuple[Spelling, ...]  # ids and places that may be one thing written in two ways
    placeholders: int = 0  # rows under a patient id that stands for nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of an audit: its exit code and one sentence."""

    code: int
    sentence: str


def find_shared(slices: Slices) -> Sharing:
    """Count the ids that places share: first the places that all columns make together, then those of each column."""
    names = {Kind(str(kind)): pd.Index([]) for kind in slices.ids}
    codes: dict[Kind, Codes] = {}
    for kind in names:
        numbers, names[kind] = pd.factorize(slices.ids[kind])
        codes[kind] = numbers.astype(np.int64)
    written: dict[str, Iterable[str]] = {f"{kind} ids": map(str, names[kind]) for kind in COMPARED if kind in names}
    written |= {f"places of {name}": slices.places[name].dropna().unique() for name in map(str, slices.places)}
    spellings = spellings_of(written)
    numbered = _number_inside_patients(codes, names)
    columns = [str(column) for column in slices.places]
    views: list[View] = []
    patients: dict[str, tuple[str, ...]] = {}
    straddling = {kind: np.zeros(len(names[kind]), bool) for kind in names}
    for by in [columns] + [[column] for column in columns] * (len(columns) > 1):
        place, places = places_of(slices.places[by])
        tables = {kind: _incidence(code, place, (len(names[kind]), len(places))) for kind, code in codes.items()}
        views.append(_view("/".join(by), places, int((place < 0).sum()), tables))
        for kind, table in tables.items():
            straddling[kind] |= _in_several(table)
        patients = _whereabouts(tables[Kind.patient], names[Kind.patient], places) | patients
    return Sharing(
        slices=len(slices.ids),
        missing={kind: int((code < 0).sum()) for kind, code in codes.items() if kind not in (Kind.pixels, Kind.blank)},
        totals={kind: len(names[kind]) for kind in names},
        numbered=numbered,
        views=tuple(views),
        patients=dict(sorted(patients.items())),
        aliases=_aliases(codes, names, straddling, slices),
        spellings=spellings,
        placeholders=slices.placeholders,
    )


def judge(
    sharing: Sharing,
    *,
    differences: int = 0,
    leaky: str | None = None,
    strict: bool = False,
    unknown: str | None = None,
    allow_unknown: bool = False,
) -> Verdict:
    """Judge an audit: exit code 1 with a shared patient, with patients that cannot be compared and, if `strict`, with any doubt; else 0.

    `differences` counts the differences from cohort.json. `leaky` names the setting that asked for a leak. `unknown` says whose patients
    cannot be compared; with `allow_unknown` it is only a doubt.
    """
    shared, known, places = len(sharing.patients), sharing.totals[Kind.patient], len(sharing.views[0].places)
    doubts = [
        f"{found.count} {kind_in_words(kind, found.count)} in two places under two patient ids or none"
        for kind, found in sharing.aliases.items()
    ]
    doubts += [spelling.sentence for spelling in sharing.spellings]
    without = sharing.missing[Kind.patient]
    doubts += [f"{without} images have no patient id"] * bool(without)
    if sharing.placeholders:
        doubts.append(f"{sharing.placeholders} images have a patient id that stands for nobody, such as ANONYMOUS")
    doubts += [unknown] if unknown and allow_unknown else []
    doubts += [f"{differences} differences from cohort.json"] * bool(differences)
    if shared:
        why, also = f", as {leaky} asks for" if leaky else "", "".join(f"; {doubt}" for doubt in doubts)
        return Verdict(
            code=1, sentence=f"LEAK{why}: {shared} of {known} patients in more than one of {places} places{also}"
        )
    if unknown and not allow_unknown:
        return Verdict(code=1, sentence=f"UNKNOWN: {unknown}; allow_unknown_patients=true takes that for a doubt")
    clean = f"none of {known} patients in more than one of {places} places"
    if not doubts:
        return Verdict(code=0, sentence=f"CLEAN: {clean}")
    how = "REFUSED (strict=true)" if strict else "WARNING"
    return Verdict(code=int(strict), sentence=f"{how}: {clean}, but {'; '.join(doubts)}")


def kind_in_words(kind: Kind, count: int = 0) -> str:
    """Name a kind in words, in the singular for a `count` of 1."""
    one, several = {
        Kind.study: ("study", "studies"),
        Kind.series: ("series", "series"),
        Kind.pixels: ("pixel hash", "pixel hashes"),
        Kind.blank: ("blank pixel hash", "blank pixel hashes"),
    }.get(kind, (kind.value, f"{kind}s"))
    return one if count == 1 else several


def _number_inside_patients(codes: dict[Kind, Codes], names: dict[Kind, pd.Index]) -> tuple[Kind, ...]:
    """Find kinds whose ids, such as "scan 1", are unique only inside a patient, and make patient and id together their id.

    `codes` and `names` are changed in place.
    """
    patient, numbered = codes[Kind.patient], []
    for kind in (Kind.study, Kind.series, Kind.image):
        if kind not in codes or not len(names[kind]):
            continue
        known = (codes[kind] >= 0) & (patient >= 0)
        both = codes[kind][known] * len(names[Kind.patient]) + patient[known]
        distinct, numbers = np.unique(both, return_inverse=True)
        if len(distinct) > NUMBERED * len(names[kind]):
            codes[kind] = np.full(len(patient), -1)
            codes[kind][known] = numbers
            names[kind] = pd.RangeIndex(len(distinct))
            numbered.append(kind)
    return tuple(numbered)


def _incidence(ids: Codes, places: Codes, shape: tuple[int, int]) -> csr_array:
    """Build the table [ids, places] that has 1 where an id is in a place, else 0."""
    known = (ids >= 0) & (places >= 0)
    table = coo_array((np.ones(known.sum(), np.int32), (ids[known], places[known])), shape=shape).tocsr()
    table.data[:] = 1
    return table


def _in_several(table: csr_array) -> NDArray[np.bool_]:
    """Find the ids of a table [ids, places] that are in more than one place: [ids] booleans."""
    return np.asarray(np.diff(table.indptr) > 1)


def _view(by: str, places: tuple[str, ...], unplaced: int, tables: dict[Kind, csr_array]) -> View:
    """Count the shared ids of each pair of places, from a table [ids, places] for each kind."""
    pairs: dict[tuple[str, str], dict[Kind, int]] = {}
    for kind, table in tables.items():
        several = table[_in_several(table)]
        both = triu(several.T @ several, k=1).tocoo()
        for a, b, count in zip(both.row, both.col, both.data, strict=True):
            pairs.setdefault((places[a], places[b]), dict.fromkeys(tables, 0))[kind] = int(count)
    order = sorted(pairs, key=lambda pair: ([-pairs[pair][kind] for kind in tables], [natural(name) for name in pair]))
    return View(
        by=by,
        places=places,
        unplaced=unplaced,
        shared={kind: int(_in_several(table).sum()) for kind, table in tables.items()},
        pairs=tuple(Pair(places=pair, shared=pairs[pair]) for pair in order),
    )


def _whereabouts(table: csr_array, names: pd.Index, places: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """List the places of every id that is in more than one."""
    found = np.flatnonzero(_in_several(table))
    return {
        str(name): tuple(places[at] for at in sorted(table.indices[table.indptr[row] : table.indptr[row + 1]]))
        for row, name in zip(found, names[found], strict=True)
    }


def _aliases(
    codes: dict[Kind, Codes], names: dict[Kind, pd.Index], straddling: dict[Kind, NDArray[np.bool_]], slices: Slices
) -> dict[Kind, Aliases]:
    """Find ids in several places (`straddling`) that belong to several patients or to none. Constant images are no evidence and left out."""
    place, places = places_of(slices.places)
    found: dict[Kind, Aliases] = {}
    for kind in (Kind.study, Kind.series, Kind.image, Kind.pixels):
        if kind not in codes:
            continue
        rows = np.flatnonzero(codes[kind] >= 0)
        rows = rows[straddling[kind][codes[kind][rows]]]
        held = pd.DataFrame({"id": codes[kind][rows], "patient": codes[Kind.patient][rows], "place": place[rows]})
        holders = held.drop_duplicates(["id", "patient"]).groupby("id")["patient"].agg(["size", "min"])
        suspects = holders.index[(holders["size"] > 1) | (holders["min"] < 0)]
        if len(suspects):
            named = pd.Index([*names[Kind.patient].astype(str), NOBODY])
            of = _by_holders(held[held["id"].isin(suspects)], named, places)
            found[kind] = Aliases(count=len(suspects), of=of)
    return found


def _by_holders(held: pd.DataFrame, patients: pd.Index, places: tuple[str, ...]) -> tuple[Alias, ...]:
    """Group ids by their patients.

    `held` has a row for each slice: id, patient (-1 for none, the last name of `patients`) and place (-1 for none).
    """
    holders: pd.Series = held.groupby("id")["patient"].agg(lambda codes: tuple(sorted(set(codes))))
    number, groups = pd.factorize(holders)
    counts = np.bincount(number)
    group = pd.Series(number, index=holders.index)[held["id"]].to_numpy()
    where = pd.Series(held["place"].to_numpy()).groupby(group).unique()
    aliases = [
        Alias(
            patients=tuple(sorted(str(patients[code]) for code in codes)),
            places=tuple(places[at] for at in sorted(where[at_group]) if at >= 0),
            shared=int(counts[at_group]),
        )
        for at_group, codes in enumerate(groups)
    ]
    return tuple(sorted(aliases, key=lambda alias: (-alias.shared, alias.patients)))
