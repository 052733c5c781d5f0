"""A prepared folder while it is being made: `<name>.part`, which a killed preparation leaves and the same request resumes.

It holds owner.json, by which it is known for such a folder, request.json, journal.jsonl with one line a file in the order of the
input, images/ with finished PNGs and incoming/ with those that have no name yet. One process at a time.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fl_rsna.cohort.whole import write_whole
from fl_rsna.ownership import (
    RECORD,
    WAIT_S,
    clear,
    drop,
    drop_folder,
    give_name,
    held,
    made_by,
    make_folder,
    take_back,
    what_is,
)
from fl_rsna.reading import checked_line, hashed_json, line_of, read_json

Row = dict[str, Any]
WHAT = "preparation"  # of a folder, in owner.json
UNWANTED = (
    "request.json",
    "journal.jsonl",
    "rejected.csv",
    "index.parquet",
    "prepare.json",
    "images",
    "images/*.png",
    "incoming",
    "incoming/*.png",
)  # all that a preparation writes


class Unfinished:
    """The folder, with its journal read back as far as it is whole."""

    def __init__(self, part: Path) -> None:
        self.part = part
        self.images, self.incoming, self.journal = part / "images", part / "incoming", part / "journal.jsonl"
        self.ids: set[str] = set()
        self.done = 0  # files
        self.images.mkdir(exist_ok=True)
        drop_folder(self.incoming)
        self.incoming.mkdir()
        self._read_journal()

    def append(self, rows: Iterable[Row]) -> None:
        """Journal consecutive files; their PNGs have their names."""
        lines = [checked_line(row, separators=(",", ":")) for row in rows]
        with self.journal.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
        self.done += len(lines)

    def forget(self) -> None:
        """Keep nothing: there is nothing in it that anybody wants."""
        drop(self.journal)

    def finish(self, folder: Path) -> None:
        """Give the folder its name; only what users read is left in it."""
        drop_folder(self.incoming)
        clear(self.part, ("journal.jsonl", "request.json"))
        give_name(self.part, folder)

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
def being_prepared(folder: Path, request: Mapping[str, Any]) -> Iterator[None]:
    """Keep `folder` to this process while it makes or looks at it; another one that prepares it is waited for.

    Raises ValueError at once when the other one prepares it for another request.
    """

    def check() -> None:
        earlier = _request(_part_of(folder))
        if earlier is not None:
            _refuse_another(folder, earlier, request)

    with held(folder, wait_s=WAIT_S, on_wait=check):
        yield


@contextmanager
def unfinished(folder: Path, request: Mapping[str, Any]) -> Iterator[Unfinished]:
    """The unfinished form of `folder` for this request, new or resumed; it stays when the body fails.

    Raises ValueError when what lies there was begun with another request, or was not made by fl_rsna.
    """
    part = _part_of(folder)
    with being_prepared(folder, request):
        _claim(part, folder, request)
        record = made_by(part)
        assert record is not None
        try:
            yield Unfinished(part)
        finally:
            if part.exists() and not _begun(part):
                take_back(part, record["token"], UNWANTED)


def _part_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def _claim(part: Path, folder: Path, request: Mapping[str, Any]) -> None:
    if os.path.lexists(folder):
        raise ValueError(f"data.name: another process finished {folder} just now; run the same command again to use it")
    if not os.path.lexists(part):
        make_folder(part, WHAT)
    elif what_is(part) != WHAT:
        raise ValueError(
            f"data.name: expected no {part} or one that fl_rsna made, got one without its {RECORD}; move it away or choose another data.name"
        )
    earlier = _request(part)
    if _begun(part) and earlier is not None:
        _refuse_another(folder, earlier, request)
    write_whole(part / "request.json", hashed_json(request))


def _request(part: Path) -> dict[str, Any] | None:
    """What an unfinished preparation is of; None where there is none, or it has not said so yet."""
    path = part / "request.json"
    if what_is(part) != WHAT or not path.exists():
        return None
    return read_json(path, f"delete {part} and prepare again")


def _refuse_another(folder: Path, earlier: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    changed = sorted(key for key in request if earlier.get(key) != request[key])
    if changed:
        raise ValueError(
            f"data.name: {_part_of(folder)} holds an unfinished preparation of another request ({', '.join(changed)} differ); "
            "choose another data.name, delete it, or repeat that request to finish it"
        )


def _begun(part: Path) -> bool:
    """Whether there is work in it that is worth keeping."""
    journal = part / "journal.jsonl"
    return journal.exists() and journal.stat().st_size > 0


def _parsed(line: bytes) -> Row | None:
    row = line_of(line) if line.endswith(b"\n") else None
    if row is None or not isinstance(row.get("reason"), str) or not isinstance(row.get("image_id"), str):
        return None
    return row if row["reason"] or isinstance(row.get("png_bytes"), int) else None
