"""Follows the events of a run's folder, on this machine or a disk it shares, for any number of readers."""

import threading
import time
from pathlib import Path

from fl_rsna.federation.heartbeat import read_beats
from fl_rsna.reporting.event_log import EVENTS, EventLog
from fl_rsna.reporting.live import State, fold
from fl_rsna.reporting.live_page import Seen

PLACES = (EVENTS, f"*/{EVENTS}", f"alone/*/{EVENTS}", f"*/alone/*/{EVENTS}")  # of a run, or of one that is several


class Watcher:
    """Reads what is new whenever asked; a folder that is not there yet is waited for."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._parts: dict[str, _Part] = {}
        self._lock = threading.Lock()

    def look(self, asked: str | None = None) -> Seen:
        """The run as it is now: the part that is asked for, else that with the newest event."""
        with self._lock:
            logs = {log.parent.relative_to(self._run).as_posix(): log for log in find_logs(self._run)}
            names = tuple("" if name == "." else name for name in sorted(logs))
            newest = max(logs, key=lambda name: _changed(logs[name]), default=".")
            name = asked if asked in names and asked is not None else "" if newest == "." else newest
            part = self._parts.setdefault(name, _Part(self._run / name))
            part.look()
            return Seen(
                name=self._run.resolve().name,
                state=part.state,
                beats=part.beats,
                silent_s=part.silent_s(),
                part=name,
                parts=names,
            )


def find_logs(run: Path) -> list[Path]:
    return [log for place in PLACES for log in run.glob(place)]


def _changed(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


class _Part:
    """One events.jsonl: its state so far, and since when it is silent by this machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, EventLog(folder / EVENTS)
        self.state, self.beats = State(), read_beats(folder)
        self._heard: float | None = None  # by the monotonic clock; what is found first may be old
        self._silent_before = 0.0

    def look(self) -> None:
        first, came = self._heard is None, False
        while events := self._log.new():
            self.state = fold(State() if self._log.replaced else self.state, events)
            came = True
        beats = read_beats(self._folder)
        alive = came or (not first and beats != self.beats)
        self.beats = beats
        if alive:
            self._heard = time.monotonic()
            self._silent_before = max(0.0, time.time() - (self.state.last or time.time())) if first else 0.0

    def silent_s(self) -> float:
        return 0.0 if self._heard is None else self._silent_before + time.monotonic() - self._heard
