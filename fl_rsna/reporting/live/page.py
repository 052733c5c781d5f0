"""The live page: a run's state as HTML, in sections that are sent again only when they changed.

Curves are inline SVG, light enough to be sent with every round; their colours are the page's.
"""

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError
from markupsafe import Markup, escape

from fl_rsna.federation.site.heartbeat import Beat
from fl_rsna.reporting.live.state import (
    Doing,
    SiteState,
    State,
    Status,
    by_number,
    clock,
    describe_time_left,
    format_pack_progress,
    is_stalled,
    phase_of,
)
from fl_rsna.reporting.record.wording import area_name, plural

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 28  # margins
DOTTED = 60  # rounds at most whose points are drawn

Curve = Sequence[tuple[int, float]]  # round, value
SECTIONS = ("head", "curves", "rounds", "sites", "failures", "events")
LOSSES = {"training": "train_loss", "validation (sites)": "validation_loss", "test site": "test_loss"}
ROWS = 200  # sites at most in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where values lie: rounds from 0 to `last`, values from `low` to `high`."""

    last: int
    low: float
    high: float

    def x(self, round_: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * round_ / max(1, self.last)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))


def chart(curves: Mapping[str, Curve], *, last: int, low: float, high: float | None, title: str) -> Markup:
    """Named curves over rounds; under the pointer, every value of a round. `high` None is above the largest value."""
    values = [value for curve in curves.values() for _, value in curve]
    top = high if high is not None else 1.08 * max(values, default=1.0) or 1.0
    plot = Plot(last=max(1, last), low=min([low, *values]), high=top)
    rounds = sorted({round_ for curve in curves.values() for round_, _ in curve})
    drawn = [*_axes(plot), *(_line(plot, curve, number) for number, curve in enumerate(curves.values()))]
    drawn += [_slot(plot, round_, curves) for round_ in rounds]
    said = f"{title}; " + "; ".join(f"{name} {curve[-1][1]:.3f}" for name, curve in curves.items() if curve)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, said) + Markup(
        "{}</svg>"
    ).format(Markup("").join(drawn))


def sparkline(values: Sequence[float]) -> Markup:
    """A line without axes, from its lowest to its highest value."""
    if len(values) < 2:
        return Markup("")
    low, span = min(values), (max(values) - min(values)) or 1.0
    points = " ".join(
        f"{2 + 76 * i / (len(values) - 1):.1f},{16 - 14 * (value - low) / span:.1f}" for i, value in enumerate(values)
    )
    return Markup('<svg class="spark" viewBox="0 0 80 18" aria-hidden="true"><polyline points="{}"/></svg>').format(
        points
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers between two values."""
    step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = power * next(nice for nice in (1, 2, 5, 10) if power * nice >= step * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _axes(plot: Plot) -> list[Markup]:
    found = []
    for value in ticks(plot.low, plot.high):
        y = plot.y(value)
        found.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        found.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(
                LEFT - 6, y + 4, round(value, 6)
            )
        )
    for value in ticks(0, plot.last, 8):
        if value == int(value):
            found.append(
                Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    plot.x(value), HEIGHT - 8, int(value)
                )
            )
    return found


def _line(plot: Plot, curve: Curve, number: int) -> Markup:
    points = " ".join(f"{plot.x(round_):.1f},{plot.y(value):.1f}" for round_, value in curve)
    dots = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(plot.x(round_), plot.y(value))
        for round_, value in (curve if len(curve) <= DOTTED else curve[-1:])
    ]
    return Markup('<g class="curve c{}"><polyline points="{}"/>{}</g>').format(number, points, Markup("").join(dots))


def _slot(plot: Plot, round_: int, curves: Mapping[str, Curve]) -> Markup:
    """The part of the plot that belongs to a round, and what it says under the pointer."""
    width = (WIDTH - LEFT - RIGHT) / plot.last
    x = plot.x(round_)
    values = [f"{name} {value:.3f}" for name, curve in curves.items() for at, value in curve if at == round_]
    return Markup(
        '<g class="slot"><rect x="{:.1f}" y="0" width="{:.1f}" height="{}"/>'
        '<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><text x="{}" y="14">{}</text></g>'
    ).format(
        x - width / 2, width, HEIGHT, x, x, TOP, HEIGHT - BOTTOM, LEFT, escape(" · ".join([f"round {round_}", *values]))
    )


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
    name, parts = render_sections(seen)
    return _environment().get_template("live.html.j2").render(title=name, sections=parts, seen=seen)


def render_sections(seen: Seen) -> tuple[str, dict[str, str]]:
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
        "phase": (format_pack_progress(seen.beats) if state.status is Status.waiting else "") or phase_of(state),
        "left": describe_time_left(state, seen.silent_s)
        .removesuffix(" left")
        .replace("time left after", "known after"),
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
        SiteRow(
            name=name,
            site=site,
            doing=_describe_activity(site, name in beats),
            beat=beats.get(name),
            failures=failures[name],
        )
        for name, site in state.sites.items()
    ]
    if len(found) > ROWS:
        found = sorted(found, key=lambda row: (row.beat is None, -row.failures, by_number(row.name)))[:ROWS]
    return sorted(found, key=lambda row: by_number(row.name))


def _describe_activity(site: SiteState, beats: bool) -> str:
    if beats:
        return "training"
    return "waiting" if site.doing is Doing.asked else site.doing.value


def _counts(state: State, beats: Mapping[str, Beat]) -> list[tuple[str, int]]:
    return sorted(Counter(_describe_activity(site, name in beats) for name, site in state.sites.items()).items())


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
