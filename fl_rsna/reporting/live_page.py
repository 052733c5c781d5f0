"""The live page: a run's state as HTML, in sections that are sent anew only when they changed."""

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from fl_rsna.federation.heartbeat import Beat
from fl_rsna.reporting.live import Doing, SiteState, State, Status, by_number
from fl_rsna.reporting.live_chart import Curve, chart, sparkline
from fl_rsna.reporting.outlook import clock, is_stalled, left_words, packing_line, phase_of
from fl_rsna.reporting.task_words import area_name, plural

SECTIONS = ("head", "curves", "rounds", "sites", "failures", "events")
LOSSES = {"training": "train_loss", "validation (sites)": "validation_loss", "test site": "test_loss"}
ROWS = 200  # sites at most in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the page is about: a run's state, what its sites do at this moment, and since when nothing came."""

    name: str
    state: State
    beats: Mapping[str, Beat]
    silent_s: float
    part: str  # of a run that is several
    parts: tuple[str, ...]
    trouble: str | None = None  # why nothing could be read just now
    damaged: int = 0  # lines of its events that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    name: str
    site: SiteState
    doing: str
    beat: Beat | None
    failures: int


def page(seen: Seen) -> str:
    """The whole page, with every section as it is now."""
    name, parts = titled_sections(seen)
    return _environment().get_template("live.html.j2").render(title=name, sections=parts, seen=seen)


def titled_sections(seen: Seen) -> tuple[str, dict[str, str]]:
    """The title and every section; where an event holds what cannot be shown, the run's state and that alone."""
    try:
        return title(seen), sections(seen)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        said = f"an event of this run holds what cannot be shown ({type(error).__name__}: {error})"
        bare = replace(seen, state=State(status=seen.state.status), beats={}, trouble=said)
        return title(bare), sections(bare)


def title(seen: Seen) -> str:
    state = seen.state
    at = f"{state.round}/{state.rounds} · " if state.rounds and state.status is Status.running else ""
    return f"{at}{word_of(seen)} · {seen.name}"


def word_of(seen: Seen) -> str:
    """The run's state in one word."""
    if is_stalled(seen.state, seen.silent_s):
        return "stalled"
    return "resumed" if seen.state.resumed and seen.state.status is Status.running else seen.state.status.value


def sections(seen: Seen) -> dict[str, str]:
    """The HTML of every section."""
    state, stalled = seen.state, is_stalled(seen.state, seen.silent_s)
    beats = {} if stalled or state.status is not Status.running else seen.beats
    content: dict[str, Any] = {
        "seen": seen,
        "state": state,
        "word": word_of(seen),
        "phase": (packing_line(seen.beats) if state.status is Status.waiting else "") or phase_of(state),
        "left": left_words(state, seen.silent_s).removesuffix(" left").replace("time left after", "known after"),
        "silent": clock(seen.silent_s),
        "gone": None if state.began is None or state.last is None else clock(state.last - state.began),
        "row": state.curve[-1] if state.curve else None,
        "first": state.curve[0] if state.curve else None,
        "area_name": "AUROC" if state.headline is None else area_name(state.headline),
        "pictures": plural(state.picture),
        "area": f"test_auroc_{state.headline}",
        "validation_area": f"validation_auroc_{state.headline}",
        "losses": chart(_curves(state, LOSSES), last=state.rounds, low=0.0, high=None, title="log loss by round"),
        "areas": chart(_curves(state, _areas(state)), last=state.rounds, low=0.5, high=1.0, title="AUROC by round"),
        "loss_names": list(LOSSES),
        "area_names": list(_areas(state)),
        "rows": rows(state, beats),
        "counts": _counts(state, beats),
        "sparkline": lambda points: sparkline([point.loss for point in points if point.loss is not None]),
    }
    drawn = _environment().get_template("live_sections.html.j2").make_module(content)
    return {name: str(getattr(drawn, name)()) for name in SECTIONS}


def digest(html: str) -> str:
    """By which a section is known to be the same."""
    return f"{zlib.crc32(html.encode(errors='backslashreplace')):08x}"


def rows(state: State, beats: Mapping[str, Beat]) -> list[SiteRow]:
    """The sites by number; of very many, those that train or failed before the others."""
    failures = Counter(failure.site for failure in state.failures)
    found = [
        SiteRow(name=name, site=site, doing=_doing(site, name in beats), beat=beats.get(name), failures=failures[name])
        for name, site in state.sites.items()
    ]
    if len(found) > ROWS:
        found = sorted(found, key=lambda row: (row.beat is None, -row.failures, by_number(row.name)))[:ROWS]
    return sorted(found, key=lambda row: by_number(row.name))


def _doing(site: SiteState, beats: bool) -> str:
    if beats:
        return "training"
    return "waiting" if site.doing is Doing.asked else site.doing.value


def _counts(state: State, beats: Mapping[str, Beat]) -> list[tuple[str, int]]:
    return sorted(Counter(_doing(site, name in beats) for name, site in state.sites.items()).items())


def _areas(state: State) -> dict[str, str]:
    label = state.headline or "any"
    return {f"{label}, test site": f"test_auroc_{label}", f"{label}, validation (sites)": f"validation_auroc_{label}"}


def _curves(state: State, columns: Mapping[str, str]) -> dict[str, Curve]:
    return {
        name: [(row["round"], row[column]) for row in state.curve if row.get(column) is not None]
        for name, column in columns.items()
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:.3f}" if isinstance(value, int | float) else "–"
    environment.filters["clock"] = clock
    return environment
