"""Find who is in more than one place: patients, studies, series, images and pixels that sites or splits share.

A place is a value of a column that says where a slice is (a site, a split), or a combination of several. Ids are
counted by one sparse product, [places, ids] times [ids, places]; no row is ever compared with another.

Some ids and places may be one thing written in two ways, or several things written as one; these are warned of. Ids are text, so
that "007" is not "7". But a table that went through a spreadsheet or a float column may hold "1.0" beside "1", and 1.23457E+11 for
every long number that begins so. Whoever is in two places under two such ids is not seen.
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
ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+\d+")  # with its plus, which no hexadecimal id has
ZEROS = re.compile(r"(\D*)0+(\d+)")
NOBODY = "(no patient id)"
COMPARED = (Kind.patient, Kind.study, Kind.series)  # whose spelling is looked at
NUMBERED = 3.0  # mean patients an id from which on it is a number inside a patient, such as "scan 1"


class Doubt(StrEnum):
    """What is wrong with how something is written."""

    decimal = "written with a decimal point"
    rounded = "rounded, as a spreadsheet shows long numbers"
    alike = "apart from another only in case, blanks, leading zeros or .0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """One doubt about the values of one column, and all groups of values that raise it."""

    what: str  # "patient ids", "places of split"
    doubt: Doubt
    of: int  # values in all
    groups: tuple[tuple[str, ...], ...]

    @property
    def sentence(self) -> str:
        """How many, and the first of them."""
        count = sum(map(len, self.groups))
        return f"{count} of {self.of} {self.what} {'is' if count == 1 else 'are'} {self.doubt} (first: {' and '.join(self.groups[0])})"


def spellings_of(named: Mapping[str, Iterable[str]]) -> tuple[Spelling, ...]:
    """The doubts about values by what they are; each value counts once."""
    return tuple(found for what, values in named.items() for found in _of_one(what, sorted(set(values))))


def plain(text: str) -> str:
    """A text in which case, blanks, leading zeros of its number and a .0 do not count."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    if whole := DECIMAL.fullmatch(folded):
        folded = whole[1]
    if padded := ZEROS.fullmatch(folded):
        folded = padded[1] + padded[2]
    return folded


def _of_one(what: str, values: list[str]) -> list[Spelling]:
    alike: dict[str, list[str]] = {}
    for value in values:
        alike.setdefault(plain(value), []).append(value)
    groups: dict[Doubt, list[tuple[str, ...]]] = {
        Doubt.decimal: [(value,) for value in values if DECIMAL.fullmatch(value)],
        Doubt.rounded: [(value,) for value in values if ROUNDED.fullmatch(value)],
        Doubt.alike: [tuple(group) for group in alike.values() if len(group) > 1],
    }
    return [
        Spelling(what=what, doubt=doubt, of=len(values), groups=tuple(found))
        for doubt, found in groups.items()
        if found
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two places and how many ids of each kind are in both."""

    places: tuple[str, str]
    shared: dict[Kind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The places that columns make together; `shared` counts ids in more than one, `pairs` lists who shares them."""

    by: str
    places: tuple[str, ...]
    unplaced: int  # rows without a place
    shared: dict[Kind, int]
    pairs: tuple[Pair, ...]  # most patients first


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Patient ids that hold the same things in different places: perhaps one patient."""

    patients: tuple[str, ...]
    places: tuple[str, ...]
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """How many ids of one kind are in two places and not explained by one patient id, and whose they are."""

    count: int
    of: tuple[Alias, ...]  # who shares most first


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What the places of a table share; `patients` has every shared patient and its places."""

    slices: int
    missing: dict[Kind, int]  # rows without this id
    totals: dict[Kind, int]
    numbered: tuple[Kind, ...]  # kinds that are numbers inside a patient: patient and number are their id
    views: tuple[View, ...]  # the finest first
    patients: dict[str, tuple[str, ...]]
    aliases: dict[Kind, Aliases]
    spellings: tuple[Spelling, ...]  # ids and places that may be one thing written in two ways
    placeholders: int = 0  # rows under a patient id that stands for nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an audit ends."""

    code: int
    sentence: str


def find_shared(slices: Slices) -> Sharing:
    """Count what places share: the places that all place columns make together, then those of each column."""
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
    """One sentence and the exit code: 1 with a shared patient, where nobody can tell and, where strict, with any doubt; 0 otherwise.

    `differences` counts where a cohort is not what cohort.json says; `leaky` names the setting that asked for a leak;
    `unknown` says whose patients cannot be compared, a doubt as any other where that is allowed.
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
    """The words for `count` of a kind."""
    one, several = {
        Kind.study: ("study", "studies"),
        Kind.series: ("series", "series"),
        Kind.pixels: ("pixel hash", "pixel hashes"),
        Kind.blank: ("blank pixel hash", "blank pixel hashes"),
    }.get(kind, (kind.value, f"{kind}s"))
    return one if count == 1 else several


def _number_inside_patients(codes: dict[Kind, Codes], names: dict[Kind, pd.Index]) -> tuple[Kind, ...]:
    """Where an id such as "scan 1" is one patient's own, make patient and id together the id; change both in place."""
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
    """Which id is in which place: 0 or 1, [ids, places]."""
    known = (ids >= 0) & (places >= 0)
    table = coo_array((np.ones(known.sum(), np.int32), (ids[known], places[known])), shape=shape).tocsr()
    table.data[:] = 1
    return table


def _in_several(table: csr_array) -> NDArray[np.bool_]:
    """Which ids are in more than one place."""
    return np.asarray(np.diff(table.indptr) > 1)


def _view(by: str, places: tuple[str, ...], unplaced: int, tables: dict[Kind, csr_array]) -> View:
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
    """The places of every id that is in more than one."""
    found = np.flatnonzero(_in_several(table))
    return {
        str(name): tuple(places[at] for at in sorted(table.indices[table.indptr[row] : table.indptr[row + 1]]))
        for row, name in zip(found, names[found], strict=True)
    }


def _aliases(
    codes: dict[Kind, Codes], names: dict[Kind, pd.Index], straddling: dict[Kind, NDArray[np.bool_]], slices: Slices
) -> dict[Kind, Aliases]:
    """Straddling ids held by several patients, or by none that is known; constant images prove nothing."""
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
    """Group ids by the patients that hold them; held has one row a slice: id, patient (-1 the last), place (-1 none)."""
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
