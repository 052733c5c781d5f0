"""Serve the live page to this machine alone: two paths, by GET only, under a loopback name only.

The server follows the events of a run's folder, on this machine or on a disk it shares, for any number of readers. The page shows a
run's state as HTML, in sections that are sent again only when they changed. Curves are inline SVG, light enough to be sent with every
round; their colours are the page's.
"""

import base64
import contextlib
import hashlib
import json
import math
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError
from markupsafe import Markup, escape

from fl_rsna.federation.site.heartbeat import Beat, read_beats
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
    reduce_events,
)
from fl_rsna.reporting.record.events import EVENTS, EventLog
from fl_rsna.reporting.record.wording import area_name, plural

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 28  # margins
DOTTED = 60  # points at most that a curve shows as dots

Curve = Sequence[tuple[int, float]]  # round, value
SECTIONS = ("head", "curves", "rounds", "sites", "failures", "events")
LOSSES = {"training": "train_loss", "validation (sites)": "validation_loss", "test site": "test_loss"}
ROWS = 200  # sites at most in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The scales of a chart of WIDTH by HEIGHT pixels: rounds from 0 to `last`, values from `low` to `high`."""

    last: int
    low: float
    high: float

    def x(self, round_: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * round_ / max(1, self.last)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))


def chart(curves: Mapping[str, Curve], *, last: int, low: float, high: float | None, title: str) -> Markup:
    """Draw named curves over rounds as SVG; the pointer shows all values of a round. `high` None fits the largest value."""
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
    """Draw a line without axes, scaled from its lowest to its highest value; nothing for fewer than two values."""
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
    """Choose about `count` round numbers between two values."""
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
    """Draw the part of the plot that belongs to a round, with the text that it shows under the pointer."""
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
    """A run as it was last read: its state, the heartbeats of its sites, and for how many seconds nothing came."""

    name: str
    state: State
    beats: Mapping[str, Beat]
    silent_s: float
    part: str  # which of `parts` was read, "" for the run itself
    parts: tuple[str, ...]
    trouble: str | None = None  # why nothing could be read at the last look
    damaged: int = 0  # lines of events.jsonl that are no events


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    name: str
    site: SiteState
    doing: str
    beat: Beat | None
    failures: int


def page(seen: Seen) -> str:
    """Render the whole page, with every section as it is now."""
    name, parts = render_sections(seen)
    return _environment().get_template("live.html.j2").render(title=name, sections=parts, seen=seen)


def render_sections(seen: Seen) -> tuple[str, dict[str, str]]:
    """Render the title and every section; where an event holds what cannot be shown, only the run's status and a word on it."""
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
    """Name the run's state in one word."""
    if is_stalled(seen.state, seen.silent_s):
        return "stalled"
    return "resumed" if seen.state.resumed and seen.state.status is Status.running else seen.state.status.value


def sections(seen: Seen) -> dict[str, str]:
    """Render the HTML of every section, by name."""
    state, stalled = seen.state, is_stalled(seen.state, seen.silent_s)
    beats = {} if stalled or state.status is not Status.running else seen.beats
    content = {
        "seen": seen,
        "state": state,
        "word": word_of(seen),
        "phase": (format_pack_progress(seen.beats) if state.status is Status.waiting else "") or phase_of(state),
        "left": describe_time_left(state, seen.silent_s).removesuffix(" remaining").removeprefix("remaining time is "),
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
    """Compute a checksum of 8 hex digits, by which a section is known to be unchanged."""
    return f"{zlib.crc32(html.encode(errors='backslashreplace')):08x}"


def rows(state: State, beats: Mapping[str, Beat]) -> list[SiteRow]:
    """List the sites by number; of more than ROWS sites, those that train or failed come before the others."""
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
        name: [(row["round"], row[column]) for row in state.curve if row[column] is not None]
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


PLACES = (EVENTS, f"*/{EVENTS}", f"alone/*/{EVENTS}", f"*/alone/*/{EVENTS}")  # of a run, and of an experiment's parts
LOOPBACK = ("127.0.0.1", "localhost")
IDLE_S = 30  # before a connection that says nothing is closed


class Watcher:
    """A reader of a run's folder, which reads what is new whenever it is asked.

    The folder need not exist: one that is not there yet, or not any more, is waited for.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._name = run, run.absolute().name
        self._parts: dict[str, _Part] = {}
        self._lock = threading.Lock()

    def look(self, asked: str | None = None) -> Seen:
        """Read the run as it is now: the part that is asked for, else the part with the newest event.

        A part is named by its path below the run's folder, the run itself by "".
        """
        with self._lock:
            logs = {}
            for log in find_logs(self._run):
                place = log.parent.relative_to(self._run).as_posix().encode(errors="backslashreplace").decode()
                logs["" if place == "." else place] = log
            newest = max(logs, key=lambda name: _read_mtime(logs[name]), default="")
            name = asked if asked is not None and asked in logs else newest
            part = self._parts.setdefault(name, _Part(logs[name].parent if logs else self._run))
            part.look()
            with contextlib.suppress(OSError):
                self._name = self._run.resolve().name
            return Seen(
                name=self._name,
                state=part.state,
                beats=part.beats,
                silent_s=part.silent_s(),
                part=name,
                parts=tuple(sorted(logs)),
                trouble=part.trouble,
                damaged=part.num_damaged,
            )


def find_logs(run: Path) -> list[Path]:
    """List the event logs of a run and of its parts that the disk shows at this moment."""
    found: list[Path] = []
    for place in PLACES:
        with contextlib.suppress(OSError):  # deleted meanwhile, not readable for us, or on a disk that is away
            found += run.glob(place)
    return found


def _read_mtime(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


class _Part:
    """A reader of one events.jsonl: the state that its events give, and how long it is silent by this machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, EventLog(folder / EVENTS)
        self._begun = self._log.begun
        self.state, self.beats = State(), read_beats(folder)
        self._heard: float | None = None  # by the monotonic clock; the events that are found first may be old
        self._silent_before = 0.0

    @property
    def trouble(self) -> str | None:
        return self._log.trouble

    def look(self) -> None:
        came = False
        while True:
            events = self._log.new()
            if self._log.begun != self._begun:  # another run has this name now, or none has it any more
                self._begun, self.state, self._heard, self._silent_before = self._log.begun, State(), None, 0.0
            if not events:
                break
            self.state, came = reduce_events(self.state, events), True
        first, beats = self._heard is None, read_beats(self._folder)
        alive = came or (not first and beats != self.beats)
        self.beats = beats
        if alive:
            self._heard = time.monotonic()
            self._silent_before = max(0.0, time.time() - (self.state.last or time.time())) if first else 0.0

    @property
    def num_damaged(self) -> int:
        return self._log.damaged

    def silent_s(self) -> float:
        return 0.0 if self._heard is None else self._silent_before + time.monotonic() - self._heard


def make_server(watcher: Watcher, port: int) -> ThreadingHTTPServer:
    """Make a server on 127.0.0.1 that does not serve yet; port 0 is any free one. Raises OSError when the port is taken."""
    handler = type("Handler", (_Handler,), {"watcher": watcher})
    server = _Server(("127.0.0.1", port), handler)
    server.daemon_threads = True
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless it is a browser that left before its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    watcher: Watcher
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fl_rsna", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        parameters = {name: values[-1] for name, values in parse_qs(asked.query).items()}
        here = {f"{name}:{self.connection.getsockname()[1]}" for name in LOOPBACK}
        if self.headers.get("Host", "") not in here:  # another site's name leads to this server (DNS rebinding)
            self._send(403, "text/plain", "this page is for this machine alone\n")
        elif asked.path == "/":
            self._send(200, "text/html", page(self.watcher.look(parameters.get("part"))))
        elif asked.path == "/state":
            self._send(200, "application/json", self._state(parameters))
        else:
            self._send(404, "text/plain", "there is nothing here\n")

    def _refuse(self) -> None:
        self.close_connection = True  # what it sent is not read
        self._send(405, "text/plain", "this page is only read\n")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _state(self, parameters: dict[str, str]) -> str:
        """Render as JSON the title and those sections that differ from the page's; `parameters` has the digests of the page's."""
        named, drawn = render_sections(self.watcher.look(parameters.get("part")))
        found = {name: {"html": html, "digest": digest(html)} for name, html in drawn.items()}
        changed = {name: section for name, section in found.items() if parameters.get(name) != section["digest"]}
        return json.dumps({"title": named, "sections": changed})

    def _send(self, code: int, kind: str, text: str) -> None:
        content = text.encode(errors="backslashreplace")  # a path need not be UTF-8
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", policy(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log of requests: nobody reads it."""


def policy(text: str) -> str:
    """Build the page's Content-Security-Policy: it may run its own script, use its own styles, and ask this server."""
    script = text.partition("<script>")[2].rpartition("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
