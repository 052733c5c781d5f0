"""Ids and places that may be one thing written in two ways, or several things written as one: what an audit cannot decide.

Ids are text, so that "007" is not "7". But a table that went through a spreadsheet or a float column may hold "1.0" beside "1", and
1.23457E+11 for every long number that begins so. Whoever is in two places under two such ids is not seen.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

DECIMAL = re.compile(r"(\d+)\.0+")
ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+\d+")  # with its plus, which no hexadecimal id has
ZEROS = re.compile(r"(\D*)0+(\d+)")


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
