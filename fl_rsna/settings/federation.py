"""What a federation does to models on their way, what sites keep to themselves, and the faults and links that are simulated."""

import re
from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Need, above, at_least, declare
from fl_rsna.settings.stages import APART


class Precision(StrEnum):
    """How a value travels."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"  # up only: a scale a thousand values, and what is lost is added to the next round's change


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


STRAGGLERS = Need("faults.stragglers above 0", lambda asked: asked.config.faults.stragglers > 0)


@dataclass(kw_only=True, slots=True)
class FaultsConfig:
    """Faults to simulate; what each does is in federation/protocol/simulated.py."""

    dropout: float = declare(0.0, "chance that a site is out of reach for a round", within=SHARE)
    stragglers: float = declare(0.0, "chance that a site is slow in a round", within=SHARE)
    slowdown: float = declare(
        10.0, "how many times as long a straggler's steps take", within=at_least(1), needs=(STRAGGLERS,), off=(1,)
    )
    deadline_s: float | None = declare(
        None, "virtual seconds after which a reply is too late", within=above(0).or_null()
    )
    sites: dict[str, str] = declare(
        {}, "fault of a site and its rounds, e.g. {site-2: crash@3, site-1: nan@2-4}", needs=(APART,)
    )


@dataclass(kw_only=True, slots=True)
class PrivacyConfig:
    """What sites keep to themselves; a site may have a floor of its own. federation/protocol/minimum_count.py has the rules."""

    min_count: int = declare(0, "no count from 1 to one less leaves a site; 0 is off", within=NOT_NEGATIVE)


@dataclass(kw_only=True, slots=True)
class LinkConfig:
    """In how many bytes models travel; and the links, machines and prices of virtual time, where nothing is slowed down."""

    down_mbit: float = declare(100.0, "Mbit/s from the server to each site", within=above(0))
    up_mbit: float = declare(20.0, "Mbit/s from each site to the server", within=above(0))
    latency_s: float = declare(0.05, "seconds that a message takes, one way", within=NOT_NEGATIVE)
    step_s: float = declare(0.2, "seconds a training step takes at a site of speed 1", within=NOT_NEGATIVE)
    speeds: dict[str, float] = declare(
        {}, "speed of a site's machine, e.g. {site-2: 0.5}; 1 is the others'", needs=(APART,)
    )
    downtime: dict[str, float] = declare(
        {}, "share of the time a site is out of reach, e.g. {site-2: 0.1}", needs=(APART,)
    )
    precision_down: Precision = declare(Precision.fp32, "how the model travels to the sites")
    precision_up: Precision = declare(Precision.fp32, "how what a site trained travels back")
    usd_per_gigabyte: float = declare(0.0, "price of a gigabyte of traffic, both ways", within=NOT_NEGATIVE)
    usd_per_hour: float = declare(
        0.0, "price of an hour of one site's machine while a round lasts", within=NOT_NEGATIVE
    )


def check_links(network: LinkConfig) -> None:
    """Refuse sites of no speed or out of reach for good, and one-byte models, for which there is nothing to round against."""
    for site, speed in network.speeds.items():
        if not speed > 0:
            raise ValueError(f"network.speeds: expected more than 0, got {speed:g} for {site}")
    for site, share in network.downtime.items():
        if not 0 <= share < 1:
            raise ValueError(f"network.downtime: expected 0 to less than 1, got {share:g} for {site}")
    if network.precision_down is Precision.int8:
        raise ValueError(
            "network.precision_down: expected fp32, fp16 or bf16, got int8, which only changes can travel in; use precision_up"
        )


def check_faults(faults: FaultsConfig, rounds: int) -> None:
    """Refuse faults that cannot be read, and those of rounds after the last, `rounds`; raises ValueError with the key's path."""
    for site, word in faults.sites.items():
        if parse_fault(word).first > rounds:
            raise ValueError(
                f"faults.sites: expected a round from 1 to {rounds}, the last of this run, got {word} for {site}; "
                "say an earlier one or more rounds"
            )
