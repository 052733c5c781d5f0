"""events.jsonl read as it grows, by whoever watches: a run in this process, in another, or on another machine's disk."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from fl_rsna.reading import line_of

EVENTS = "events.jsonl"
AT_ONCE = 16_000_000  # bytes
BEGIN = b'{"time": "'  # of every line
KNOWN_BY = 256  # bytes at either end of what was read, by which a file is known again

Event = dict[str, Any]  # `time`, `event` and what belongs to it


class EventLog:
    """Remembers how far it has read, and what stood there: another file under the name is read from its beginning.

    It is the content that tells files apart, not the name, nor the system's number of a file, which a new one may get again.
    `begun` counts the files that were begun; `trouble` says why nothing could be read at the last look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = 0
        self.replaced = False  # whether the last `new` began a file anew
        self.trouble: str | None = None
        self.damaged = 0  # complete lines so far that are no events
        self._offset, self._head, self._tail = 0, b"", b""

    def new(self) -> list[Event]:
        """The events that are complete and were not given yet, of at most AT_ONCE bytes; none while there is no file.

        A disk that fails for a moment is waited for: what was read stays, and `trouble` is said.
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
        """Bytes that were read so far."""
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
    """All events that a log holds."""
    return read_log(path)[0]


def kept(events: Iterable[Event]) -> list[Event]:
    """The events that count: without those of rounds that a killed run began and played again."""
    found: list[Event] = []
    for event in events:
        match event["event"]:
            case "resumed" if isinstance(event.get("round"), int):
                found = [old for old in found if old.get("round", 0) <= event["round"]]
            case "round_end" if event.get("round") == 0:
                found = [old for old in found if old["event"] == "roll_call"]
        found.append(event)
    return found


def _event(line: bytes) -> Event | None:
    """The event of a line; None for what is none. A line torn by a kill has the next one right behind it."""
    for text in (line, line[max(0, line.rfind(BEGIN)) :]):
        found = line_of(text)
        if found is not None:
            return found if isinstance(found.get("event"), str) and isinstance(found.get("time"), str) else None
    return None


def read_log(path: Path) -> tuple[list[Event], int]:
    """All complete events of a file, and how many of its lines are none: cut, changed, or something else."""
    log, found, before = EventLog(path), list[Event](), -1
    while log.read > before:
        before = log.read
        found += log.new()
    return found, log.damaged


def said_of(damaged: int, path: Path) -> str:
    """What is to be said of lines that are no events."""
    lines = "line is" if damaged == 1 else "lines are"
    return f"{damaged} {lines} damaged in {path}: what stood there is not shown"
