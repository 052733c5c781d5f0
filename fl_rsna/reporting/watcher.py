"""Follows the events of a run's folder, on this machine or a disk it shares, for any number of readers."""

import contextlib
import threading
import time
from pathlib import Path

from fl_rsna.federation.heartbeat import read_beats
from fl_rsna.reporting.event_log import EVENTS, EventLog
from fl_rsna.reporting.live import State, fold
from fl_rsna.reporting.live_page import Seen

PLACES = (EVENTS, f"*/{EVENTS}", f"alone/*/{EVENTS}", f"*/alone/*/{EVENTS}")  # of a run, or of one that is several


class Watcher:
    """Reads what is new whenever asked; a folder that is not there, yet or any more, is waited for."""

    def __init__(self, run: Path) -> None:
        self._run, self._name = run, run.absolute().name
        self._parts: dict[str, _Part] = {}
        self._lock = threading.Lock()

    def look(self, asked: str | None = None) -> Seen:
        """The run as it is now: the part that is asked for, else that with the newest event."""
        with self._lock:
            logs = {_named(log.parent.relative_to(self._run)): log for log in find_logs(self._run)}
            newest = max(logs, key=lambda name: _changed(logs[name]), default="")
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
                damaged=part.damaged,
            )


def find_logs(run: Path) -> list[Path]:
    """Those that the disk shows at this moment."""
    found: list[Path] = []
    for place in PLACES:
        with contextlib.suppress(OSError):  # gone while it was looked at, not ours to read, or a disk that is away
            found += run.glob(place)
    return found


def _named(part: Path) -> str:
    """What a part is called on the page: its path below the run's folder, which need not be UTF-8; none of the run itself."""
    return "" if part == Path() else part.as_posix().encode(errors="backslashreplace").decode()


def _changed(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


class _Part:
    """One events.jsonl: its state so far, and since when it is silent by this machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, EventLog(folder / EVENTS)
        self._begun = self._log.begun
        self.state, self.beats = State(), read_beats(folder)
        self._heard: float | None = None  # by the monotonic clock; what is found first may be old
        self._silent_before = 0.0

    @property
    def trouble(self) -> str | None:
        return self._log.trouble

    def look(self) -> None:
        came = False
        while True:
            events = self._log.new()
            if self._log.begun != self._begun:  # another run under this name, or none any more
                self._begun, self.state, self._heard, self._silent_before = self._log.begun, State(), None, 0.0
            if not events:
                break
            self.state, came = fold(self.state, events), True
        first, beats = self._heard is None, read_beats(self._folder)
        alive = came or (not first and beats != self.beats)
        self.beats = beats
        if alive:
            self._heard = time.monotonic()
            self._silent_before = max(0.0, time.time() - (self.state.last or time.time())) if first else 0.0

    @property
    def damaged(self) -> int:
        return self._log.damaged

    def silent_s(self) -> float:
        return 0.0 if self._heard is None else self._silent_before + time.monotonic() - self._heard
