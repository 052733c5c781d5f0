"""The words of faults.sites: which fault, in which rounds."""

import re
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What a faulty site does when it should send its update d = y - x."""

    crash = "crash"  # raises in the middle of its round
    nan = "nan"  # sends a model with values that are no numbers
    explode = "explode"  # sends x + 1e6 d
    misshape = "misshape"  # sends a model of another size
    flip = "flip"  # sends x - d: it climbs where the others descend
    poison = "poison"  # sends x - 10 d: the same, loud enough to undo ten honest sites, too quiet to be refused


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and the rounds it strikes in, both included."""

    kind: FaultKind
    first: int
    last: float


WORD = re.compile(r"(?P<kind>[a-z]+)(@(?P<first>\d+)(?P<range>-(?P<last>\d+)?)?)?")


def parse_fault(word: str) -> Fault:
    """`crash@3` strikes in round 3, `nan@2-4` in rounds 2 to 4, `nan@2-` from 2 on, `flip` always.

    Rounds count from 1. Raises ValueError for anything else.
    """
    found = WORD.fullmatch(word)
    if found is None or found["kind"] not in list(FaultKind):
        raise ValueError(
            f"faults.sites: expected one of {', '.join(FaultKind)}, with rounds as in nan@2 or nan@2-4, got {word!r}"
        )
    kind, first, last = FaultKind(found["kind"]), int(found["first"] or 1), int(found["last"] or found["first"] or 1)
    if not 1 <= first <= last:
        raise ValueError(f"faults.sites: expected rounds from 1 up, the first before the last, got {word!r}")
    if found["first"] is None or found["range"] == "-":
        return Fault(kind, first, float("inf"))
    return Fault(kind, first, last)
