"""Reduce the events of a run to its state, which displays show while the run runs.

The state says where a run is, how long it may still take, and whether it seems to have stopped.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from fl_rsna.federation.site.heartbeat import Beat
from fl_rsna.reporting.record.events import Event, describe_failure, picture_of, sentence
from fl_rsna.task import ICH

TAIL = 40  # events
RECENT = 5  # rounds by which the rest is estimated
PATIENCE_S, FIRST_PATIENCE_S = 120.0, 600.0  # least silence of a run that may have stalled; before round 1 is over
MOST = 6  # sites in the line about packing
PATIENCE = 3  # a run may have stalled after this many times the longest silence so far


class Status(StrEnum):
    waiting = "waiting"
    running = "running"
    finished = "finished"
    failed = "failed"


class Doing(StrEnum):
    """The last thing that a site did."""

    idle = "idle"
    asked = "asked"  # trains, or waits for its turn
    trained = "trained"
    validated = "validated"
    recalibrated = "recalibrated"
    failed = "failed"


AFTER = {"train": Doing.trained, "validation": Doing.validated, "recalibration": Doing.recalibrated}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One site's part in one round."""

    round: int
    loss: float | None
    auroc: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    round: int
    phase: str
    site: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    slices: int = 0  # to train on
    doing: Doing = Doing.idle
    train: tuple[Point, ...] = ()
    validation: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    time: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of a run, as displays show it; times are seconds since 1970 by the run's own clock."""

    status: Status = Status.waiting
    rounds: int = 0
    round: int = 0  # the last that began
    open: bool = False  # whether that round has not ended
    headline: str | None = None  # the label whose AUROC is quoted first, or the mean over classes
    picture: str = ICH.picture  # what the task calls an image
    sites: Mapping[str, SiteState] = field(default_factory=dict)
    asked: tuple[str, ...] = ()  # to train in this round
    answered: Mapping[str, int] = field(default_factory=dict)  # in this round, by phase
    curve: tuple[Mapping[str, Any], ...] = ()  # rows as in rounds.csv
    failures: tuple[Failure, ...] = ()
    deaths: tuple[int, ...] = ()  # the rounds in which workers died
    resumed: tuple[int, ...] = ()  # the rounds after which a killed run went on
    alone: tuple[str, ...] = ()  # sites whose own model is done, where every site trains alone
    end: Mapping[str, Any] = field(default_factory=dict)  # what the last event of a run says
    tail: tuple[Said, ...] = ()
    began: float | None = None  # when this attempt began
    round_began: float | None = None
    last: float | None = None  # when the last event came
    silence: float = 0.0  # the longest time between two events, in seconds


def reduce_events(state: State, events: Iterable[Event]) -> State:
    """Return the state after more events; an event that lacks what its kind has changes only the tail."""
    for event in events:
        try:
            state = apply_event(state, event)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            state = _record_event(state, event)
    return state


def apply_event(state: State, event: Event) -> State:
    """Return the state after one more event; raises LookupError, TypeError or the like where the event lacks what its kind has."""
    state = _record_event(state, event)
    match event["event"]:
        case "roll_call":
            return _roll_call(state, event)
        case "resumed":
            return replace(_rewound(state, event["round"]), resumed=(*state.resumed, event["round"]))
        case "round_start":
            return _round_start(state, event)
        case "site_done" | "site_failed":
            return _answer(state, event)
        case "worker_died":
            return replace(state, deaths=(*state.deaths, event["round"]))
        case "round_end":
            state = _rewound(state, -1) if event["round"] == 0 else state
            return replace(state, open=False, headline=event["headline"], curve=(*state.curve, event))
        case "site_alone_done":
            return replace(state, alone=(*state.alone, event["site"]))
        case "run_failed":
            return replace(state, status=Status.failed, open=False, end=event)
        case "run_end":
            return replace(state, status=Status.finished, open=False, end=event)
        case _:
            return state


def _record_event(state: State, event: Event) -> State:
    """Add the event to the tail, and its time to the clock."""
    time: float | None = None
    with contextlib.suppress(ValueError, ArithmeticError):
        time = datetime.fromisoformat(event["time"]).timestamp()
    gap = 0.0 if time is None or state.last is None or event["event"] == "roll_call" else time - state.last
    said = Said(time=event["time"][11:19], kind=event["event"], text=sentence(event))
    return replace(
        state,
        tail=(*state.tail, said)[-TAIL:],
        last=state.last if time is None else time,
        silence=max(state.silence, gap),
    )


def _roll_call(state: State, event: Event) -> State:
    here = {name: parts["train"]["slices"] for name, parts in event["sites"].items() if "train" in parts}
    return replace(
        state,
        status=Status.running,
        rounds=event["rounds"],
        picture=picture_of(event),
        sites={
            name: replace(state.sites.get(name, SiteState()), slices=here[name]) for name in sorted(here, key=by_number)
        },
        open=False,
        began=state.last,
        end={},
    )


def by_number(name: str) -> tuple[str, int, str]:
    """Make a sort key of a name that puts site-2 before site-10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1), name


def _rewound(state: State, round_: int) -> State:
    """Remove what happened in rounds after `round_`, which are played again."""

    def until(points: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple(point for point in points if point.round <= round_)

    sites = {
        name: replace(site, doing=Doing.idle, train=until(site.train), validation=until(site.validation))
        for name, site in state.sites.items()
    }
    return replace(
        state,
        status=Status.running,
        round=max(0, round_),
        open=False,
        sites=sites,
        asked=(),
        answered={},
        curve=tuple(row for row in state.curve if row["round"] <= round_),
        failures=tuple(failure for failure in state.failures if failure.round <= round_),
        deaths=tuple(death for death in state.deaths if death <= round_),
    )


def _round_start(state: State, event: Event) -> State:
    asked = frozenset(event["sites"])
    sites = {
        name: replace(site, doing=Doing.asked if name in asked else Doing.idle) for name, site in state.sites.items()
    }
    return replace(
        state,
        round=event["round"],
        open=True,
        asked=tuple(event["sites"]),
        answered={},
        sites=sites,
        round_began=state.last,
    )


def _answer(state: State, event: Event) -> State:
    """Record a site's result or failure; one that comes twice, as after a kill during a recalibration, counts once."""
    name, phase, round_ = event["site"], event["phase"], event["round"]
    site = state.sites.get(name, SiteState())
    failed, failures = event["event"] == "site_failed", state.failures
    site = replace(site, doing=Doing.failed if failed else AFTER.get(phase, site.doing))
    if failed:
        failure = Failure(round=round_, phase=phase, site=name, error=event["error"])
        failures = failures if failure in failures else (*failures, failure)
    elif phase in ("train", "validation"):
        metrics = event["metrics"]
        point = Point(
            round=round_,
            loss=metrics.get("loss"),
            auroc=metrics.get(f"auroc/{state.headline}"),
            seconds=metrics.get("seconds"),
        )
        before = site.train if phase == "train" else site.validation
        points = (*(old for old in before if old.round != round_), point)
        site = replace(site, train=points) if phase == "train" else replace(site, validation=points)
    return replace(
        state,
        sites={**state.sites, name: site},
        answered={**state.answered, phase: state.answered.get(phase, 0) + 1},
        failures=failures,
    )


def phase_of(state: State) -> str:
    """Describe in a few words what the run is doing."""
    match state.status:
        case Status.waiting:
            return "waiting for the run to begin"
        case Status.finished:
            return "finished"
        case Status.failed:
            return describe_failure(state.end)
    if not state.curve and not state.open:
        return (
            f"sites on their own: {len(state.alone)} of {len(state.sites)} done" if state.alone else "scoring the start"
        )
    if not state.open:
        over = bool(state.curve) and state.curve[-1]["round"] >= state.rounds
        recalibrated = state.answered.get("recalibration", 0)
        if recalibrated or over:
            at = f": {recalibrated} of {len(state.sites)} sites recalibrated" if recalibrated else ""
            return f"the final model{at}"
        return "between rounds"
    trained, validated = state.answered.get("train", 0), state.answered.get("validation", 0)
    if trained < len(state.asked):
        return f"training: {trained} of {len(state.asked)} sites done"
    return f"validation: {validated} of {len(state.sites)} sites done" if validated < len(state.sites) else "scoring"


def format_pack_progress(beats: Mapping[str, Beat]) -> str:
    """Describe how far the sites are that pack their images, which they do before they answer a run's first message.

    Returns "" where no site packs.
    """
    packing = {site: beat for site, beat in beats.items() if beat.packing}
    shown = [
        f"{site} {packing[site].batch:,} of {packing[site].batches:,}" for site in sorted(packing, key=by_number)[:MOST]
    ]
    more = f" and {len(packing) - MOST} sites more" if len(packing) > MOST else ""
    return f"packing images: {', '.join(shown)}{more}" if packing else ""


def seconds_left(state: State, silent_s: float) -> tuple[float, float] | None:
    """Estimate in how many seconds, at least and at most, the last round ends; None before round 1 is over.

    The rounds to come are taken to last as long as the last RECENT ones. `silent_s` is how long ago the last event was. The
    final model and its scores take time beyond that.
    """
    took = [row["seconds"] for row in state.curve if row["round"] > 0 and row["seconds"] is not None][-RECENT:]
    left = state.rounds - (state.round - 1 if state.open else state.round)
    if not took or left <= 0 or state.status is not Status.running:
        return None
    gone = (state.last or 0.0) - (state.round_began or 0.0) + silent_s if state.open else 0.0
    others = left - 1 if state.open else left
    fewest, most = min(took), max(took)
    here = (max(0.0, fewest - gone), max(0.0, most - gone)) if state.open else (0.0, 0.0)
    return fewest * others + here[0], most * others + here[1]


def is_stalled(state: State, silent_s: float) -> bool:
    """Whether a running run has been silent for much longer than ever before: it may have been killed, or its machine is off."""
    least = PATIENCE_S if any(row["round"] > 0 for row in state.curve) else FIRST_PATIENCE_S
    return state.status is Status.running and silent_s > max(least, PATIENCE * state.silence)


def describe_time_left(state: State, silent_s: float) -> str:
    """Describe how long the rest of the rounds may take, by the last rounds."""
    if state.status is not Status.running:
        return state.status.value
    left = seconds_left(state, silent_s)
    if left is None:
        return (
            "remaining time is known after round 1" if not any(row["round"] for row in state.curve) else "nearly done"
        )
    low, high = (clock(value) for value in left)
    return (
        f"about {high} remaining" if low == high or left[1] - left[0] < 0.1 * left[1] else f"{low} to {high} remaining"
    )


def clock(seconds: float) -> str:
    """Format seconds as 0:42, 12:05 or 1:05:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
