"""Read events.jsonl as it grows, and describe each event in one line.

The log may be written by this process, by another one, or by another machine on a shared disk.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from fl_rsna.common.command_end import EndKind
from fl_rsna.common.reading import line_of
from fl_rsna.reporting.record.wording import area_name, plural
from fl_rsna.run_folder.run_folder import REST
from fl_rsna.run_folder.summary import Rests
from fl_rsna.task import find_task

EVENTS = "events.jsonl"
AT_ONCE = 16_000_000  # bytes
BEGIN = b'{"time": "'  # of every line
KNOWN_BY = 256  # bytes at either end of what was read, by which a file is recognized

Event = dict[str, Any]  # a line of JSON: `time`, `event` (its kind) and what belongs to that kind
DONE = {
    "train": "trained",
    "validation": "validated",
    "recalibration": "recalibrated",
    "encoding": "made features",
    "operating points": "counted for the operating points",
    "scorecard": "scored the final model",
}


class EventLog:
    """A reader of an event log that goes on where it stopped; another file under the same name is read from its beginning.

    Files are told apart by their content: not by their name, nor by the system's number of a file, which a new one may get
    again. `begun` counts the files that were begun; `trouble` says why nothing could be read at the last look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = 0
        self.replaced = False  # whether the last `new` began another file
        self.trouble: str | None = None
        self.damaged = 0  # complete lines so far that are no events
        self._offset, self._head, self._tail = 0, b"", b""

    def new(self) -> list[Event]:
        """Return the complete events that were not returned before, of at most AT_ONCE bytes; none while there is no file.

        A disk that fails for a moment is waited for: the log goes on where it stopped, and `trouble` says what failed.
        """
        self.replaced, self.trouble = False, None
        try:
            with self.path.open("rb") as file:
                if not self._is_known(file):
                    self._forget()
                file.seek(self._offset)
                content = file.read(AT_ONCE)
                while content and b"\n" not in content and (more := file.read(AT_ONCE)):  # one enormous line
                    content += more
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) and self._offset:
                self._forget()
            if not isinstance(error, FileNotFoundError):
                self.trouble = f"{self.path.name} cannot be read: {error.strerror or error}"
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        self._head = self._head or complete[:KNOWN_BY]
        self._tail = (self._tail + complete[-KNOWN_BY:])[-KNOWN_BY:]
        found = [_event(line) for line in complete.split(b"\n") if line.strip()]
        self.damaged += found.count(None)
        return [event for event in found if event is not None]

    @property
    def read(self) -> int:
        """The number of bytes that were read so far."""
        return self._offset

    def _is_known(self, file: IO[bytes]) -> bool:
        """Whether what was read still stands where it was: the first bytes, and the last before the next ones."""
        if os.fstat(file.fileno()).st_size < self._offset:
            return False
        first = file.read(len(self._head))
        file.seek(self._offset - len(self._tail))
        return (first, file.read(len(self._tail))) == (self._head, self._tail)

    def _forget(self) -> None:
        self._offset, self._head, self._tail, self.damaged = 0, b"", b"", 0
        self.begun, self.replaced = self.begun + 1, True


def read_events(path: Path) -> list[Event]:
    """Read all events that a log holds."""
    return read_log(path)[0]


def drop_stale_events(events: Iterable[Event]) -> list[Event]:
    """Return the events that count: all but those of rounds that a killed run began and played again."""
    found: list[Event] = []
    for event in events:
        match event["event"]:
            case "resumed":
                found = [old for old in found if old.get("round", 0) <= event["round"]]
            case "round_end" if event["round"] == 0:
                found = [old for old in found if old["event"] == "roll_call"]
        found.append(event)
    return found


def _event(line: bytes) -> Event | None:
    """Parse the event of a line; None where it holds none. A line that a kill cut has the next event right behind it."""
    for text in (line, line[max(0, line.rfind(BEGIN)) :]):
        found = line_of(text)
        if found is not None:
            return found if isinstance(found.get("event"), str) and isinstance(found.get("time"), str) else None
    return None


def read_log(path: Path) -> tuple[list[Event], int]:
    """Read all complete events of a file, and count its lines that are no events: cut, changed, or something else."""
    log, found, before = EventLog(path), list[Event](), -1
    while log.read > before:
        before = log.read
        found += log.new()
    return found, log.damaged


def describe_damage(damaged: int, path: Path) -> str:
    """Describe how many lines of a log are no events."""
    lines = "line is" if damaged == 1 else "lines are"
    return f"{damaged} {lines} damaged in {path}: what stood there is not shown"


def sentence(event: Mapping[str, Any]) -> str:
    """Describe an event in one line; by its kind alone where it lacks what its kind has."""
    try:
        return _sentence(event)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return str(event["event"])


def _sentence(event: Mapping[str, Any]) -> str:
    match event["event"]:
        case "waiting":
            return f"waiting for sites: {event['sites']} of {event['expected']} are there"
        case "answered":
            return f"roll call: {event['sites']} of {event['expected']} sites answered, the others pack their images"
        case "roll_call":
            here = [parts["train"]["slices"] for parts in event["sites"].values() if "train" in parts]
            return f"roll call: {len(here)} sites, {sum(here)} training {plural(picture_of(event))}"
        case "resumed":
            return f"resumed after round {event['round']}"
        case "warning":
            return str(event["text"])
        case "encoded":
            return f"{event['sites']} sites have features under the slice model, {event['computed']} made them now"
        case "round_start":
            return f"round {event['round']}: {len(event['sites'])} sites train"
        case "site_done":
            loss, seconds = (event["metrics"].get(name) for name in ("loss", "seconds"))
            did = f"round {event['round']}: {event['site']} {DONE.get(event['phase'], event['phase'])}"
            return (
                did + ("" if loss is None else f", loss {loss:.3f}") + ("" if seconds is None else f", {seconds:.1f} s")
            )
        case "site_failed":
            return f"round {event['round']}: {event['site']} failed in {event['phase']}: {event['error']}"
        case "worker_died":
            return f"round {event['round']}: a worker died under {event['site']} ({event['how']})"
        case "round_end":
            return round_line(event, None)
        case "stopped_early":
            return f"stopped early after round {event['round']}: none was better than round {event['best_round']}"
        case "site_alone_done":
            return f"{event['site']} alone: its own model is done"
        case "fold_start":
            return f"fold {event['fold']} of {event['folds']}: a model that every site leaves it out of"
        case "fold_end":
            return f"fold {event['fold']} of {event['folds']}: its model is done"
        case "tracker_failed":
            return f"tracking with {event['tracker']} ended, the run goes on: {event['error']}"
        case "run_failed":
            words = describe_failure(event)
            return f"the run {words}" if words.startswith("failed") else f"the run was {words}"
        case "run_end":
            rests, chosen = event.get("selected_on"), ""  # None where every site trained alone
            if rests and (rests["carried"] or rests["unknown"]):
                chosen = f"; round {event['selected_round']} was chosen {choice_rests(rests)}"
            return f"the run is finished, {event['wall_s']:.0f} s in all rounds{chosen}"
        case other:
            return str(other)


def describe_failure(event: Mapping[str, Any]) -> str:
    """Describe how a run that is not finished ended: `failed: why`, `refused: why`, or what interrupted it."""
    reason = str(event["reason"])
    match event["kind"]:
        case EndKind.interrupted | EndKind.stopped:
            return reason
        case EndKind.refused:
            return f"refused: {reason}"
        case _:
            return f"failed: {reason}"


def _rests(row: Mapping[str, Any]) -> str:
    """Describe on how many sites a round's validation rests; "" where it rests on fresh answers of all sites."""
    sites, carried, unknown = (row[name] or 0 for name in REST)
    if not carried and not unknown:
        return ""
    return f" on {sites:.0f} of {sites + unknown:.0f} sites" + (
        f" ({carried:.0f} by an earlier answer)" if carried else ""
    )


def choice_rests(rests: Rests) -> str:
    """Describe on which sites' answers the choice of a round rests, as summary.json and the run's last event state it."""
    carried = [f"{site} by its answer of round {round_}" for site, round_ in rests["carried"].items()]
    unknown = [f"{', '.join(rests['unknown'])} never answered by then"] if rests["unknown"] else []
    return "; ".join([f"on {rests['sites']} of {rests['of']} sites", *carried, *unknown])


def picture_of(roll_call: Mapping[str, Any]) -> str:
    """Name what a run's task calls an image, by the event of its roll call."""
    return find_task(roll_call["task"]).picture


def round_line(row: Mapping[str, Any], rounds: int | None) -> str:
    """Describe a row of rounds.csv, with the AUROC that the run is judged by; `rounds` is how many there will be, if known."""
    name, test = area_name(row["headline"]), row[f"test_auroc_{row['headline']}"]
    parts = [f"round {row['round']}" + ("" if rounds is None else f"/{rounds}")]
    validation = row["validation_loss"]
    if row["train_loss"] is not None:
        parts.append(f"train loss {row['train_loss']:.3f}")
    if row["train_loss"] is not None or validation is not None:
        parts.append(
            f"validation loss {validation:.3f}{_rests(row)}" if validation is not None else "validation failed"
        )
    parts.append(f"{name} (test site) {test:.3f}" if test is not None else f"{name} (test site) undefined")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])
