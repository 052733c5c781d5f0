"""Show how far a command is: a live display in a terminal, plain lines elsewhere.

The display shows how far a run is, and its sites; many sites are summed up.
"""

import datetime
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl_rsna.common.screen import explain_loss
from fl_rsna.federation.site.heartbeat import FOLDER, Beat, read_beats
from fl_rsna.reporting.live.state import (
    Doing,
    SiteState,
    State,
    Status,
    by_number,
    clock,
    describe_time_left,
    format_pack_progress,
    phase_of,
    reduce_events,
)
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.events import round_line, sentence
from fl_rsna.reporting.record.wording import area_name

FEW = 12  # sites, each with a line of its own
BAR = 20  # characters
STYLE = {Doing.failed: "red", Doing.trained: "green", Doing.validated: "green", Doing.recalibrated: "green"}
LINE_S = 10.0
REFRESH_HZ = 4
LINES = {  # events that get a line, and its colour
    "roll_call": "",
    "resumed": "",
    "worker_died": "yellow",
    "stopped_early": "",
    "site_failed": "red",
    "tracker_failed": "yellow",
    "site_alone_done": "",
    "encoded": "",
    "warning": "yellow",
}


def rounds_view(state: State, beats: Mapping[str, Beat], silent_s: float) -> RenderableType:
    """Draw where a run is and what its sites do, which stands under the printed lines while it runs."""
    if not state.sites:
        return Text("")
    beats = {
        site: beat
        for site, beat in beats.items()
        if beat.round >= state.round and site in state.sites and not beat.packing
    }
    shown = list(state.sites) if len(state.sites) <= FEW else sorted(beats, key=by_number)[:FEW]
    parts: list[RenderableType] = [_head(state, silent_s)]
    if len(state.sites) > FEW:
        parts.append(Text(_summary(state, beats), style="dim"))
    if shown:
        parts.append(_sites(state, shown, beats))
    return Group(*parts)


def _head(state: State, silent_s: float) -> RenderableType:
    done = state.round - 1 if state.open else state.round
    grid = Table.grid(padding=(0, 1))
    elapsed = (
        "" if state.began is None or state.last is None else f"{clock(state.last - state.began + silent_s)} elapsed"
    )
    bar = ProgressBar(total=max(1, state.rounds), completed=done, width=BAR, complete_style="cyan")
    grid.add_row(Text(f"round {state.round} of {state.rounds}", style="bold"), bar, Text(phase_of(state)))
    times, scores = f"{elapsed}, {describe_time_left(state, silent_s)}", _scores(state)
    return Group(grid, *(Text(line, style="dim") for line in (times, scores) if line))


def _scores(state: State) -> str:
    if not state.curve:
        return ""
    row, headline = state.curve[-1], state.headline
    area, first = row[f"test_auroc_{headline}"], state.curve[0][f"test_auroc_{headline}"]
    parts = [f"loss {row['train_loss']:.3f}"] if row["train_loss"] is not None else []
    if area is not None and headline is not None:
        since = f" (round 0: {first:.3f})" if first is not None and row["round"] else ""
        parts.append(f"{area_name(headline)} (test site) {area:.3f}{since}")
    return " · ".join(parts)


def _summary(state: State, beats: Mapping[str, Beat]) -> str:
    counts = Counter(site.doing for site in state.sites.values())
    waiting = max(0, counts[Doing.asked] - len(beats))
    parts = [(waiting, "waiting"), (len(beats), "training")]
    parts += [(counts[doing], doing.value) for doing in Doing if doing is not Doing.asked]
    return f"{len(state.sites)} sites: " + ", ".join(f"{count} {word}" for count, word in parts if count)


def _sites(state: State, names: list[str], beats: Mapping[str, Beat]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("site")
    table.add_column("")
    table.add_column("batches", justify="right")
    for name in ("loss", "validation", _area(state), "failures" if state.failures else ""):
        table.add_column(name, justify="right")
    failures = Counter(failure.site for failure in state.failures)
    for name in names:
        site, beat = state.sites[name], beats.get(name)
        trained = site.train[-1] if site.train else None
        scored = site.validation[-1] if site.validation else None
        table.add_row(
            name,
            _what(site, beat),
            f"{beat.batch}/{beat.batches}" if beat else "",
            _number(trained.loss if trained else None),
            _number(scored.loss if scored else None),
            _number(scored.auroc if scored else None),
            Text(str(failures[name]), style="red") if failures[name] else "",
        )
    return table


def _area(state: State) -> str:
    return "AUROC" if state.headline is None else area_name(state.headline)


def _what(site: SiteState, beat: Beat | None) -> RenderableType:
    """Draw a bar for a site that trains, else a word."""
    if beat is not None:
        return ProgressBar(total=max(1, beat.batches), completed=beat.batch, width=BAR, complete_style="cyan")
    seconds = site.train[-1].seconds if site.train else None
    took = f" in {seconds:.1f} s" if site.doing is Doing.trained and seconds is not None else ""
    word = "waiting" if site.doing is Doing.asked else site.doing.value
    return Text(f"{word}{took}".ljust(BAR), style=STYLE.get(site.doing, "dim"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


class DisplayLost(Exception):
    """The display can show nothing any more; the message says why."""


@dataclass(slots=True)
class _Pace:
    """The pace of a piece of work: when it began, how much was done then, and when a line last said how far it is."""

    began: float
    first: int
    said: float


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Display:
    """A progress display; `step` shows counted steps, `event` the events of a run whose folder is `run`.

    The display takes what it shows from events and heartbeats, and nothing waits for it. Once it can show nothing any more,
    `step` does nothing and `event` raises DisplayLost, so that the owner of a list of listeners can drop it.
    """

    def __init__(self, console: Console = console, run: Path | None = None) -> None:
        self._console, self.run = console, run
        self._state, self._heard = State(), time.time()
        self._pace: dict[str, _Pace] = {}
        self._tasks: dict[str, TaskID] = {}
        self._over = threading.Event()
        self._failed: str | None = None  # why

    def __enter__(self) -> "Display":
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self._console)
        self._live = Live(
            get_renderable=self._view_or_nothing, console=self._console, refresh_per_second=REFRESH_HZ, transient=True
        )
        if self._console.is_terminal:
            self._unless_lost(self._live.start)
        else:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def _look(self) -> None:
        while not self._over.wait(LINE_S):
            self.say_packing()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._unless_lost(self._live.stop)

    def step(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a named piece of work is done; without a terminal, by a line every LINE_S seconds.

        The first call for a piece says how much of it was done before: 0 for a piece that begins.
        """
        self._unless_lost(lambda: self._step(what, done, total))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show one event of a run; raises DisplayLost once nothing can be shown any more."""
        self._unless_lost(lambda: self._event(kind, fields))
        if why := self._failed or explain_loss("stdout"):
            raise DisplayLost(why)

    def _unless_lost(self, show: Callable[[], object]) -> None:
        if self._failed is None:
            try:
                show()
            except Exception as error:  # drawing may fail: a terminal of one column, a colour it does not have
                self._failed = f"{type(error).__name__}: {error}"

    def _view_or_nothing(self) -> RenderableType:
        shown: list[RenderableType] = [""]
        self._unless_lost(lambda: shown.append(self.view()))
        return shown[-1]

    def _step(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, completed=done)
            self._pace[what] = _Pace(began=now, first=done, said=now)
            if done < total:
                self._say(f"{what}: going on after {done} of {total}" if done else f"{what}: {total} to do")
        pace = self._pace[what]
        rate = (done - pace.first) / max(now - pace.began, 1e-9)
        self._progress.update(self._tasks[what], completed=done, total=total, visible=done < total)
        if done == total:
            self._say(f"{what}: {total} done" + (f", {rate:,.0f} a second" if done > pace.first else ""))
        elif not self._console.is_terminal and now - pace.said >= LINE_S and rate:
            pace.said = now
            left = datetime.timedelta(seconds=round((total - done) / rate))
            self._say(f"{what}: {done} of {total} ({done / total:.0%}), {rate:,.0f} a second, {left} remaining")

    def _event(self, kind: str, fields: Mapping[str, Any]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        happened = {**fields, "event": kind, "time": now.isoformat(timespec="milliseconds")}
        self._state, self._heard = reduce_events(self._state, [happened]), time.time()
        if kind == "round_end":
            self._say(round_line(happened, self._state.rounds))
        elif kind in LINES:
            self._say(sentence(happened), LINES[kind])

    def view(self) -> RenderableType:
        """Draw what stands under the printed lines at this moment."""
        if self._state.status is not Status.running:
            return Group(self._progress.get_renderable(), Text(self._pack_progress()))
        return Group(
            self._progress.get_renderable(), rounds_view(self._state, self._beats(), time.time() - self._heard)
        )

    def say_packing(self) -> None:
        """Print a line about the sites that pack their images at this moment, before the first round."""
        if self._state.status is not Status.running and (line := self._pack_progress()):
            self._say(line)

    def _pack_progress(self) -> str:
        return format_pack_progress(self._beats())

    def _beats(self) -> dict[str, Beat]:
        """Read the heartbeats of the sites, of the run or of that one of its parts which runs."""
        if self.run is None:
            return {}
        folders = [self.run, *(path.parent for path in self.run.glob(f"*/{FOLDER}"))]
        return {site: beat for folder in folders for site, beat in read_beats(folder).items()}

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style), soft_wrap=True)
