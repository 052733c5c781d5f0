"""Let trackers follow a run: each reads its events.jsonl in a thread of its own, so that none can hold up or end training.

A tracker that fails, or does not end in time, becomes an event `tracker_failed`; the run goes on without it. Trackers begin
when the first site has trained: importing their packages takes time, for which no round should wait.
"""

import contextlib
import hashlib
import importlib.util
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from fl_rsna.common.command_end import EndKind
from fl_rsna.reporting.record.events import EVENTS, Event, EventLog, drop_stale_events
from fl_rsna.reporting.trackers.points import Values, final_points, points
from fl_rsna.run_folder.run_folder import RunFolder, read_summary
from fl_rsna.settings.config import Config
from fl_rsna.settings.runtime import TrackingConfig

GRACE_S = 60.0  # for all trackers to end after the run
BEGIN = ("site_done",)
CATCH_UP = ("round_end", "site_alone_done")


class Tracker(Protocol):
    """A service that takes the numbers of a run; every method may raise."""

    def log(self, round_: int, values: Values, time_s: float) -> None: ...
    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None: ...
    def close(self, status: str) -> None: ...


class TrackerName(StrEnum):
    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


def select_trackers(tracking: TrackingConfig) -> list[TrackerName]:
    return [name for name in TrackerName if getattr(tracking, name)]


def check_packages(tracking: TrackingConfig) -> None:
    """Refuse a tracker whose package is not installed, before anything is trained."""
    for name in select_trackers(tracking):
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"tracking.{name}: expected the package {name}, which is not installed; pip install 'fl-rsna[{name}]' or leave it out"
            )


def open_tracker(name: TrackerName, run: Path, config: Config) -> Tracker:
    match name:
        case TrackerName.tensorboard:
            from fl_rsna.reporting.trackers.tensorboard import EventFile

            return EventFile(run, config)
        case TrackerName.mlflow:
            from fl_rsna.reporting.trackers.mlflow import MlflowRun

            return MlflowRun(run, config, run_key(run))
        case TrackerName.wandb:
            from fl_rsna.reporting.trackers.wandb import WandbRun

            return WandbRun(run, config, run_key(run))


def run_key(run: Path) -> str:
    """Name a run in a service by 16 hex digits, which stay the same when the run goes on after a kill."""
    manifest = (run / "manifest.json").read_bytes()
    return hashlib.sha256(run.name.encode() + manifest).hexdigest()[:16]


@dataclass(slots=True)
class _Follower:
    """A tracker's thread, and why the tracker failed, if it did."""

    name: TrackerName
    wake: "queue.SimpleQueue[bool]" = field(default_factory=queue.SimpleQueue)  # True: look; False: the run has ended
    error: str | None = None
    told: bool = False
    thread: threading.Thread | None = None


@contextlib.contextmanager
def track_run(run: RunFolder, config: Config) -> Iterator[None]:
    """Have the trackers that `config.tracking` asks for follow a run while the body lasts."""
    followers = [_Follower(name) for name in select_trackers(config.tracking)]

    def hear(kind: str, fields: Mapping[str, Any]) -> None:
        for follower in followers:
            if follower.thread is None and kind in BEGIN + CATCH_UP and fields.get("round") != 0:
                act = lambda follower=follower: _follow(follower, run.folder, config)  # noqa: E731
                follower.thread = threading.Thread(target=act, name=f"tracker-{follower.name}", daemon=True)
                follower.thread.start()
            if kind in CATCH_UP:
                follower.wake.put(True)
        _tell(run, followers)

    run.listen(hear)
    try:
        yield
    finally:
        for follower in followers:
            follower.wake.put(False)
        end = time.monotonic() + GRACE_S
        for follower in followers:
            if follower.thread is not None:
                follower.thread.join(max(0.0, end - time.monotonic()))
                if follower.thread.is_alive():
                    follower.error = f"not done {GRACE_S:.0f} s after the run; given up"
        _tell(run, followers)


def _tell(run: RunFolder, followers: list[_Follower]) -> None:
    for follower in followers:
        if follower.error is not None and not follower.told:
            follower.told = True
            run.event("tracker_failed", tracker=follower.name.value, error=follower.error)


def _follow(follower: _Follower, run: Path, config: Config) -> None:
    """Give a tracker all events of the log, and those that still come, until the run ends."""
    try:
        tracker = open_tracker(follower.name, run, config)
        feed = Feed(run, tracker)
        while True:
            feed.catch_up()
            if not follower.wake.get():
                break
        feed.catch_up()
        feed.end()
    except BaseException as error:  # whatever a tracker's library or a service raises, the run goes on
        follower.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Feed:
    """A reader of a run's log that hands its numbers to a tracker, a round at a time and each once."""

    def __init__(self, run: Path, tracker: Tracker) -> None:
        self._run, self._tracker = run, tracker
        self._log, self._values, self._status, self._round = EventLog(run / EVENTS), dict[int, Values](), "killed", 0

    def catch_up(self) -> None:
        found: list[Event] = []
        while events := self._log.new():
            found += events
        for event in drop_stale_events(found):
            self._take(event, "")

    def _take(self, event: Event, prefix: str) -> None:
        named = {prefix + name: value for name, value in points(event).items()}
        round_ = event.get("round", 0)
        self._values.setdefault(round_, {}).update(named)
        match event["event"]:
            case "round_end":
                self._tracker.log(round_, self._values.pop(round_), datetime.fromisoformat(event["time"]).timestamp())
                self._round = max(self._round, round_)
            case "site_alone_done":
                alone = EventLog(self._run / "alone" / event["site"] / EVENTS)
                for other in drop_stale_events(alone.new()):
                    self._take(other, f"{event['site']}/")
            case "run_end":
                self._status = "finished"
            case "run_failed" if event["kind"] not in (EndKind.interrupted, EndKind.stopped):
                self._status = "failed"

    def end(self) -> None:
        summary = self._run / "summary.json"
        if self._status == "finished" and summary.exists():
            content = read_summary(self._run)
            model = self._run / "model.safetensors"
            self._tracker.finish(self._round, final_points(content), model, content.get("model_sha256"))
        self._tracker.close(self._status)
