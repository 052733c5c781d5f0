"""Settings of the federation: precision of models in transit, privacy of counts, simulated faults and simulated links."""

import re
from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Need, above, at_least, declare
from fl_rsna.settings.stages import APART


class Precision(StrEnum):
    """The number format in which a model's values are sent."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"  # sites to server only: one scale per thousand values; the rounding error is added to the next round's change


class FaultKind(StrEnum):
    """The behaviour of a faulty site. Its honest update is d = y - x: x is the model it received, y the one it trained."""

    crash = "crash"  # raises an error during its round
    nan = "nan"  # sends a model with NaN in it
    explode = "explode"  # sends x + 1e6 d
    misshape = "misshape"  # sends a model of another size
    flip = "flip"  # sends x - d, a step of gradient ascent
    poison = "poison"  # sends x - 10 d: outweighs ten honest sites, and is small enough not to be refused


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and the rounds in which it occurs: `first` to `last`, both included."""

    kind: FaultKind
    first: int
    last: float


FAULT = re.compile(r"(?P<kind>[a-z]+)(@(?P<first>\d+)(?P<range>-(?P<last>\d+)?)?)?")


def parse_fault(given: str) -> Fault:
    """Parse a fault: `crash@3` occurs in round 3, `nan@2-4` in rounds 2 to 4, `nan@2-` from round 2 on, `flip` in every round.

    Rounds count from 1. Raises ValueError for anything else.
    """
    found = FAULT.fullmatch(given)
    if found is None or found["kind"] not in list(FaultKind):
        raise ValueError(
            f"faults.sites: expected one of {', '.join(FaultKind)}, with rounds as in nan@2 or nan@2-4, got {given!r}"
        )
    kind, first, last = FaultKind(found["kind"]), int(found["first"] or 1), int(found["last"] or found["first"] or 1)
    if not 1 <= first <= last:
        raise ValueError(f"faults.sites: expected rounds from 1 up, the first before the last, got {given!r}")
    if found["first"] is None or found["range"] == "-":
        return Fault(kind, first, float("inf"))
    return Fault(kind, first, last)


STRAGGLERS = Need("faults.stragglers above 0", lambda asked: asked.config.faults.stragglers > 0)


@dataclass(kw_only=True, slots=True)
class FaultsConfig:
    """Settings of simulated faults; federation/protocol/simulated.py carries them out."""

    dropout: float = declare(0.0, "probability that a site is unreachable for a round", within=SHARE)
    stragglers: float = declare(0.0, "probability that a site is slow in a round", within=SHARE)
    slowdown: float = declare(
        10.0,
        "factor by which a slow site's training steps take longer",
        within=at_least(1),
        needs=(STRAGGLERS,),
        off=(1,),
    )
    deadline_s: float | None = declare(
        None, "virtual seconds after which a reply is discarded; null: never", within=above(0).or_null()
    )
    sites: dict[str, str] = declare(
        {}, "fault and its rounds by site, e.g. {site-2: crash@3, site-1: nan@2-4}", needs=(APART,)
    )


@dataclass(kw_only=True, slots=True)
class PrivacyConfig:
    """Settings of small-cell suppression, by the rules of federation/protocol/minimum_count.py. A site may set a minimum of its own."""

    min_count: int = declare(
        0, "counts from 1 to one less than this do not leave a site; 0 is off", within=NOT_NEGATIVE
    )


@dataclass(kw_only=True, slots=True)
class LinkConfig:
    """Settings of how models are sent, and of the simulated links, machines and prices.

    The simulation computes virtual seconds and costs; it does not slow the run down.
    """

    down_mbit: float = declare(100.0, "speed of the link from the server to each site, in Mbit/s", within=above(0))
    up_mbit: float = declare(20.0, "speed of the link from each site to the server, in Mbit/s", within=above(0))
    latency_s: float = declare(0.05, "delay of a message one way, in seconds", within=NOT_NEGATIVE)
    step_s: float = declare(
        0.2, "duration of a training step at a site of speed 1, in virtual seconds", within=NOT_NEGATIVE
    )
    speeds: dict[str, float] = declare(
        {}, "relative speed of machines by site, e.g. {site-2: 0.5}; 1 for sites not named", needs=(APART,)
    )
    downtime: dict[str, float] = declare(
        {}, "share of the time that a site is unreachable, by site, e.g. {site-2: 0.1}", needs=(APART,)
    )
    precision_down: Precision = declare(Precision.fp32, "number format of the model sent to the sites")
    precision_up: Precision = declare(Precision.fp32, "number format of the update that a site sends back")
    usd_per_gigabyte: float = declare(
        0.0, "price of a gigabyte of traffic, in either direction, in US dollars", within=NOT_NEGATIVE
    )
    usd_per_hour: float = declare(
        0.0, "price of an hour of one site's machine, counted while a round lasts, in US dollars", within=NOT_NEGATIVE
    )


def check_links(network: LinkConfig) -> None:
    """Raise ValueError for a speed of 0 or less, a site that is always unreachable, and int8 from the server to the sites.

    int8 can send only changes of a model, and what the server sends is a whole model.
    """
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
    """Raise ValueError for a fault that cannot be parsed, or that first occurs after round `rounds`, the last one."""
    for site, given in faults.sites.items():
        if parse_fault(given).first > rounds:
            raise ValueError(
                f"faults.sites: expected a round from 1 to {rounds}, the last of this run, got {given} for {site}; "
                "say an earlier one or more rounds"
            )
