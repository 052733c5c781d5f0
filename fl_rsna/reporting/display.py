"""What a user sees while a command works: a live display in a terminal, plain lines elsewhere."""

import datetime
import threading
import time
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
from rich.text import Text

from fl_rsna.federation.heartbeat import FOLDER, Beat, read_beats
from fl_rsna.reporting.console import console
from fl_rsna.reporting.live import State, Status, fold
from fl_rsna.reporting.outlook import packing_line
from fl_rsna.reporting.rounds_view import rounds_view
from fl_rsna.reporting.sentences import round_line, sentence
from fl_rsna.screen import lost

LINE_S = 10.0
REFRESH_HZ = 4
LINES = {"roll_call": "", "resumed": "", "worker_died": "yellow", "stopped_early": "", "site_failed": "red"}
LINES |= {
    "tracker_failed": "yellow",
    "site_alone_done": "",
    "encoded": "",
    "warning": "yellow",
}  # events that get a line, and its colour


class DisplayLost(Exception):
    """There is nobody to show anything to; the message says why."""


@dataclass(slots=True)
class _Pace:
    """When a piece of work began, with how much already done, and when a line last said how far it is."""

    began: float
    first: int
    said: float


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Display:
    """A progress display; `step` follows counted steps, `event` the events of a run whose folder is `run`.

    It only looks on: what it shows comes from events and heartbeats, and nothing waits for it. Where it cannot show
    anything any more, `step` does nothing and `event` raises DisplayLost, for those who keep a list of listeners.
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
        """`done` of `total` of a named piece of work; a log that is no terminal gets a line every LINE_S seconds.

        The first that is heard of a piece is how much of it was done before: 0 of what begins.
        """
        self._unless_lost(lambda: self._step(what, done, total))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show one event of a run. Raises DisplayLost."""
        self._unless_lost(lambda: self._event(kind, fields))
        if why := self._failed or lost("stdout"):
            raise DisplayLost(why)

    def _unless_lost(self, show: Callable[[], object]) -> None:
        if self._failed is None:
            try:
                show()
            except Exception as error:  # of whatever draws: a terminal of one column, a colour it does not have
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
            self._say(f"{what}: {done} of {total} ({done / total:.0%}), {rate:,.0f} a second, {left} left")

    def _event(self, kind: str, fields: Mapping[str, Any]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        happened = {**fields, "event": kind, "time": now.isoformat(timespec="milliseconds")}
        self._state, self._heard = fold(self._state, [happened]), time.time()
        if kind == "round_end":
            self._say(round_line(happened, self._state.rounds))
        elif kind in LINES:
            self._say(sentence(happened), LINES[kind])

    def view(self) -> RenderableType:
        """What stands under the lines at this moment."""
        if self._state.status is not Status.running:
            return Group(self._progress.get_renderable(), Text(self._packing()))
        return Group(
            self._progress.get_renderable(), rounds_view(self._state, self._beats(), time.time() - self._heard)
        )

    def say_packing(self) -> None:
        """A line about the sites that pack their images at this moment, before the first round."""
        if self._state.status is not Status.running and (line := self._packing()):
            self._say(line)

    def _packing(self) -> str:
        return packing_line(self._beats())

    def _beats(self) -> dict[str, Beat]:
        """Of the run, or of that of its parts which runs."""
        if self.run is None:
            return {}
        folders = [self.run, *(path.parent for path in self.run.glob(f"*/{FOLDER}"))]
        return {site: beat for folder in folders for site, beat in read_beats(folder).items()}

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style), soft_wrap=True)
