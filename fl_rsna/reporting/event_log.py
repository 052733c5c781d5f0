"""events.jsonl read as it grows, by whoever watches: a run in this process, in another, or on another machine's disk."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

EVENTS = "events.jsonl"
AT_ONCE = 16_000_000  # bytes
BEGIN = b'{"time": "'  # of every line

Event = dict[str, Any]  # `time`, `event` and what belongs to it


class EventLog:
    """Remembers how far it has read; a file that was replaced by another is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset, self._file_id = 0, -1
        self.replaced = False  # whether the last `new` began a file anew

    def new(self) -> list[Event]:
        """The events that are complete and were not given yet, of at most AT_ONCE bytes; none while there is no file."""
        try:
            with self.path.open("rb") as file:
                self._look(file)
                content = file.read(AT_ONCE)
                while content and b"\n" not in content and (more := file.read(AT_ONCE)):  # one enormous line
                    content += more
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [event for line in complete.splitlines() if (event := _event(line)) is not None]

    def _look(self, file: IO[bytes]) -> None:
        found = os.fstat(file.fileno())
        self.replaced = self._file_id not in (-1, found.st_ino) or found.st_size < self._offset
        if self.replaced:
            self._offset = 0
        self._file_id = found.st_ino
        file.seek(self._offset)


def kept(events: Iterable[Event]) -> list[Event]:
    """The events that count: without those of rounds that a killed run began and played again."""
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
    """The event of a line; None for what is none. A line torn by a kill has the next one right behind it."""
    for text in (line, line[max(0, line.rfind(BEGIN)) :]):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
    return None
