"""What is known of a run while it runs: its events, folded one by one into a state. Displays show the state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from fl_rsna.reporting.event_log import Event
from fl_rsna.reporting.sentences import picture_of, sentence
from fl_rsna.task import ICH

TAIL = 40  # events


class Status(StrEnum):
    waiting = "waiting"
    running = "running"
    finished = "finished"
    failed = "failed"


class Doing(StrEnum):
    """What a site did last."""

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
    slices: int = 0  # or what the task calls an image, to train on
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
    """All that a display shows; times are seconds since 1970 by the run's own clock."""

    status: Status = Status.waiting
    rounds: int = 0
    round: int = 0  # the last that began
    open: bool = False  # it has not ended
    headline: str | None = None  # the label whose AUROC is quoted first, or the mean over classes
    picture: str = ICH.picture  # what the task calls an image
    sites: Mapping[str, SiteState] = field(default_factory=dict)
    asked: tuple[str, ...] = ()  # to train in this round
    answered: Mapping[str, int] = field(default_factory=dict)  # in this round, by phase
    curve: tuple[Mapping[str, Any], ...] = ()  # rows as in rounds.csv
    failures: tuple[Failure, ...] = ()
    deaths: tuple[int, ...] = ()  # of workers, the rounds
    resumed: tuple[int, ...] = ()  # after which rounds
    alone: tuple[str, ...] = ()  # sites whose own model is done, of a baseline
    end: Mapping[str, Any] = field(default_factory=dict)  # what the last event of a run says
    tail: tuple[Said, ...] = ()
    began: float | None = None  # this attempt
    round_began: float | None = None
    last: float | None = None  # event
    silence: float = 0.0  # the longest, in seconds


def fold(state: State, events: Iterable[Event]) -> State:
    """The state after more events. One that lacks what its kind has, e.g. of another version, changes only the tail."""
    for event in events:
        try:
            state = advance(state, event)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            state = _told(state, event)
    return state


def advance(state: State, event: Event) -> State:
    """The state after one more event."""
    state = _told(state, event)
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


def _told(state: State, event: Event) -> State:
    """With the event in the tail and the clock."""
    time = _seconds(event.get("time"))
    gap = 0.0 if time is None or state.last is None or event["event"] == "roll_call" else time - state.last
    said = Said(time=str(event.get("time", ""))[11:19], kind=event["event"], text=sentence(event))
    return replace(
        state,
        tail=(*state.tail, said)[-TAIL:],
        last=state.last if time is None else time,
        silence=max(state.silence, gap),
    )


def _seconds(time: object) -> float | None:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except (ValueError, ArithmeticError):
        return None


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


def by_number(name: str) -> tuple[Any, ...]:
    """Sorts site-2 before site-10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1), name


def _rewound(state: State, round_: int) -> State:
    """Without what happened in rounds after `round_`, which are played again."""

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
    """A site's result or failure. What comes twice, as after a kill during a recalibration, counts once."""
    name, phase, round_ = event["site"], event["phase"], event["round"]
    site = state.sites.get(name, SiteState())
    failed = event["event"] == "site_failed"
    site = replace(site, doing=Doing.failed if failed else AFTER.get(phase, site.doing))
    if not failed and phase in ("train", "validation"):
        metrics = event["metrics"]
        point = Point(
            round=round_,
            loss=metrics.get("loss"),
            auroc=metrics.get(f"auroc/{state.headline}"),
            seconds=metrics.get("seconds"),
        )
        site = _with_point(site, phase, point)
    failure = Failure(round=round_, phase=phase, site=name, error=str(event.get("error")))
    return replace(
        state,
        sites={**state.sites, name: site},
        answered={**state.answered, phase: state.answered.get(phase, 0) + 1},
        failures=(*state.failures, failure) if failed and failure not in state.failures else state.failures,
    )


def _with_point(site: SiteState, phase: str, point: Point) -> SiteState:
    """With a point, the last one of its round."""
    before = site.train if phase == "train" else site.validation
    points = (*(old for old in before if old.round != point.round), point)
    return replace(site, train=points) if phase == "train" else replace(site, validation=points)
