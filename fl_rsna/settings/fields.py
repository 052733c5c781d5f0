"""Declare a setting: its default, its meaning, the values it may have and where it has an effect, in one place.

    momentum: float = declare(0.0, "of SGD", within=below(1), needs=(SGD,), off=(0,))

A setting has an effect where all of its needs hold. settings/effects.py refuses a typed setting without effect, and names one that a
file chose.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")
KEY = "fl_rsna"  # key of the Declaration in a field's metadata


class Command(StrEnum):
    """The command that reads the settings. `doctor` reads them as `simulate` does."""

    prepare = "prepare"
    assign = "partition"
    simulate = "simulate"
    coordinate = "coordinate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: the configuration, the command that got it, and the kind of its images."""

    config: Any  # the Config; its groups import this module, so its type cannot be named here
    command: Command = Command.simulate
    image: StrEnum  # the ImageKind of the prepared images, or of those to be prepared


@dataclass(frozen=True, slots=True)
class Need:
    """A condition without which a setting has no effect: in words, and as a function that tests it."""

    words: str
    holds: Callable[[Asked], bool]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting may be: in words, and as a function that tests one. `besides` lists other values allowed, such as None."""

    words: str
    holds: Callable[[float], bool]
    besides: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return ", or ".join([self.words, *("null" if value is None else str(value) for value in self.besides)])

    def or_value(self, value: Any) -> "Range":
        """Return a copy of this range that also allows `value`, which is not a number."""
        return replace(self, besides=(*self.besides, value))

    def or_null(self) -> "Range":
        """Return a copy of this range that also allows None."""
        return self.or_value(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A setting's meaning, range and needs; the dataclass field has its name, type and default."""

    meaning: str
    within: Range | None = None
    needs: tuple[Need, ...] = ()
    off: tuple[Any, ...] = ()  # values that ask for nothing: not reported where the setting has no effect
    instead: str = "leave it out"  # the advice where the setting has no effect
    may_be_idle: bool = False  # named, never refused: in a sweep it may act in one run and not in another


def declare(
    default: T,
    meaning: str = "",
    *,
    within: Range | None = None,
    needs: tuple[Need, ...] = (),
    off: tuple[Any, ...] = (),
    instead: str = "leave it out",
    may_be_idle: bool = False,
) -> T:
    """Make the dataclass field of a setting. A default that is a list or mapping is copied for each new record."""
    found = Declaration(meaning=meaning, within=within, needs=needs, off=off, instead=instead, may_be_idle=may_be_idle)
    metadata = {KEY: found}
    made: Any = (
        field(default_factory=lambda: copy.copy(default), metadata=metadata)
        if isinstance(default, list | dict)
        else field(default=default, metadata=metadata)
    )
    return made  # type: ignore[no-any-return]


def list_settings(record: Any, path: str = "") -> Iterator[tuple[str, Any, Declaration]]:
    """List the settings of a record and of the records in it: key, such as train.hu_shift, value and declaration."""
    for item in fields(record):
        value, key = getattr(record, item.name), f"{path}{item.name}"
        if is_dataclass(value):
            yield from list_settings(value, f"{key}.")
        else:
            yield key, value, item.metadata[KEY]


def at_least(least: float) -> Range:
    """Allow numbers from `least` up."""
    return Range(f"{least:g} or more", lambda value: value >= least)


def above(bound: float) -> Range:
    """Allow numbers above `bound`."""
    return Range(f"more than {bound:g}", lambda value: value > bound)


def above_up_to(bound: float, most: float, text: str = "") -> Range:
    """Allow numbers above `bound` and up to `most`, which messages write as `text`."""
    return Range(f"more than {bound:g}, up to {text or f'{most:g}'}", lambda value: bound < value <= most)


def from_to(least: float, most: float) -> Range:
    """Allow numbers from `least` to `most`, both included."""
    return Range(f"{least:g} to {most:g}", lambda value: least <= value <= most)


def below(bound: float) -> Range:
    """Allow numbers from 0 to less than `bound`."""
    return Range(f"0 to less than {bound:g}", lambda value: 0 <= value < bound)


NOT_NEGATIVE, SHARE = at_least(0), from_to(0, 1)
