"""How a setting is declared: its default, what it means, which values it may have and where it acts, all beside each other.

    momentum: float = declare(0.0, "of SGD", within=below(1), needs=(SGD,), off=(0,))

A setting acts where all of its needs hold. One that acts nowhere in a run is refused where somebody typed it, and named where a file
chose it: effects.py.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")
KEY = "fl_rsna"  # of a setting's declaration in its field's metadata


class Command(StrEnum):
    """Who reads the settings; a doctor reads them as simulate does."""

    prepare = "prepare"
    deal = "partition"
    simulate = "simulate"
    coordinate = "coordinate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of which command."""

    config: Any  # the Config, whose groups are declared with the needs that read it
    command: Command = Command.simulate
    image: StrEnum  # the ImageKind of the images as they lie there, or as they will


@dataclass(frozen=True, slots=True)
class Need:
    """Something without which a setting has no effect: in words, and whether it is there."""

    words: str
    holds: Callable[[Asked], bool]


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers a setting may be: in words, and as a rule. `besides` are values that are no numbers, such as None."""

    words: str
    holds: Callable[[float], bool]
    besides: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return ", or ".join([self.words, *("null" if value is None else str(value) for value in self.besides)])

    def or_value(self, value: Any) -> "Range":
        """The same range and one more value, which is no number."""
        return replace(self, besides=(*self.besides, value))

    def or_null(self) -> "Range":
        return self.or_value(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """All that is known of a setting but its name, type and default."""

    meaning: str
    within: Range | None = None
    needs: tuple[Need, ...] = ()
    off: tuple[Any, ...] = ()  # values that ask for nothing, of which nothing is said where the setting has no effect
    instead: str = "leave it out"  # what to do where it has no effect
    may_be_idle: bool = (
        False  # is only named, never refused: what has no effect in one run of a sweep may have in another
    )


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
    """The field of a dataclass that is this setting; a list or mapping is copied for each new record."""
    found = Declaration(meaning=meaning, within=within, needs=needs, off=off, instead=instead, may_be_idle=may_be_idle)
    metadata = {KEY: found}
    made: Any = (
        field(default_factory=lambda: copy.copy(default), metadata=metadata)
        if isinstance(default, list | dict)
        else field(default=default, metadata=metadata)
    )
    return made  # type: ignore[no-any-return]


def list_settings(record: Any, path: str = "") -> Iterator[tuple[str, Any, Declaration]]:
    """Every setting of a record and of the records in it: its key, as in train.hu_shift, its value and its declaration."""
    for item in fields(record):
        value, key = getattr(record, item.name), f"{path}{item.name}"
        if is_dataclass(value):
            yield from list_settings(value, f"{key}.")
        else:
            yield key, value, item.metadata[KEY]


def at_least(least: float) -> Range:
    return Range(f"{least:g} or more", lambda value: value >= least)


def above(bound: float) -> Range:
    return Range(f"more than {bound:g}", lambda value: value > bound)


def above_up_to(bound: float, most: float, text: str = "") -> Range:
    """More than `bound`, up to `most`; `text` is `most` as it is said."""
    return Range(f"more than {bound:g}, up to {text or f'{most:g}'}", lambda value: bound < value <= most)


def from_to(least: float, most: float) -> Range:
    return Range(f"{least:g} to {most:g}", lambda value: least <= value <= most)


def below(bound: float) -> Range:
    """From 0 to less than `bound`."""
    return Range(f"0 to less than {bound:g}", lambda value: 0 <= value < bound)


NOT_NEGATIVE, SHARE = at_least(0), from_to(0, 1)
