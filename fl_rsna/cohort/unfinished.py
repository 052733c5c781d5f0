"""A prepared folder while it is being made: `<name>.part`, which a killed preparation leaves and the same request resumes.

It holds request.json, journal.jsonl with one line a file in the order of the input, images/ with finished PNGs and
incoming/ with those that have no name yet. One process at a time.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fl_rsna.cohort.whole import write_whole

Row = dict[str, Any]


class Unfinished:
    """The folder, with its journal read back as far as it is whole."""

    def __init__(self, part: Path) -> None:
        self.part = part
        self.images, self.incoming, self.journal = part / "images", part / "incoming", part / "journal.jsonl"
        self.ids: set[str] = set()
        self.done = 0  # files
        self.images.mkdir(exist_ok=True)
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir()
        self._read_journal()

    def append(self, rows: Iterable[Row]) -> None:
        """Journal consecutive files; their PNGs have their names."""
        lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
        with self.journal.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        self.done += len(lines)

    def forget(self) -> None:
        """Keep nothing: there is nothing in it that anybody wants."""
        self.journal.unlink()

    def finish(self, folder: Path) -> None:
        """Give the folder its name; only what users read is left in it."""
        shutil.rmtree(self.incoming)
        for name in ("journal.jsonl", "request.json", "lock"):
            (self.part / name).unlink(missing_ok=True)
        os.replace(self.part, folder)

    def _read_journal(self) -> None:
        """Keep the lines that are whole and whose PNG is; the rest is done again."""
        kept = 0
        if self.journal.exists():
            with self.journal.open("rb") as file:
                for line in file:
                    row = _parsed(line)
                    if row is None or not self._is_there(row):
                        break
                    kept += len(line)
                    self.done += 1
                    if row["image_id"] and not row["reason"]:
                        self.ids.add(row["image_id"])
            os.truncate(self.journal, kept)

    def _is_there(self, row: Row) -> bool:
        if row["reason"]:
            return True
        try:
            size: int = row["png_bytes"]
            return (self.images / f"{row['image_id']}.png").stat().st_size == size
        except FileNotFoundError:
            return False


@contextmanager
def unfinished(folder: Path, request: Mapping[str, Any]) -> Iterator[Unfinished]:
    """The unfinished form of `folder` for this request, new or resumed; it stays when the body fails.

    Raises ValueError when another process works on it or when what lies there was begun with another request.
    """
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    lock = FileLock(part / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"data.name: another process is preparing {folder} at this moment; wait for it or choose another data.name"
        ) from None
    try:
        _claim(part, folder, request)
        yield Unfinished(part)
    finally:
        if part.exists() and not _begun(part):
            shutil.rmtree(part)
        lock.release()


def _claim(part: Path, folder: Path, request: Mapping[str, Any]) -> None:
    if folder.exists():
        raise ValueError(f"data.name: another process finished {folder} just now; run the same command again to use it")
    if _begun(part):
        earlier = json.loads((part / "request.json").read_text())
        changed = sorted(key for key in request if earlier.get(key) != request[key])
        if changed:
            raise ValueError(
                f"data.name: {part} holds an unfinished preparation of another request ({', '.join(changed)} differ); "
                "choose another data.name, delete it, or repeat that request to finish it"
            )
    write_whole(part / "request.json", (json.dumps(request, indent=2) + "\n").encode())


def _begun(part: Path) -> bool:
    """Whether there is work in it that is worth keeping."""
    journal = part / "journal.jsonl"
    return journal.exists() and journal.stat().st_size > 0


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and line.endswith(b"\n") else None
