"""Keep a prepared folder while it is being made, `<name>.part`: a killed preparation leaves it, and the same request resumes it.

It holds owner.json, which says what it is; request.json; journal.jsonl with a line for each converted file; images/ with finished PNGs; and
incoming/ with PNGs that do not have their names yet. At the end the tables of a prepared folder are written into it, and it replaces an
earlier folder. One process at a time works on it.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from fl_rsna.cohort.prepared.input_files import INPUT, INPUTS, KNOWN, read_inputs
from fl_rsna.common.atomic import replace_whole, write_whole
from fl_rsna.common.ownership import (
    RECORD,
    WAIT_S,
    clear,
    drop,
    drop_folder,
    give_name,
    hold_lock,
    make_folder,
    move_strangers,
    read_owner,
    take_back,
    take_place,
    what_is,
)
from fl_rsna.common.reading import UnreadableFile, dump_checked_line, dump_hashed_json, line_of, read_json

Row = dict[str, Any]
WHAT = "preparation"  # the kind of the folder in owner.json
RESULT = ("images", "index.parquet", "rejected.csv", INPUTS, "prepare.json")  # what a finished folder holds
# Everything that is written into an unfinished folder.
UNWANTED = ("request.json", "journal.jsonl", *RESULT, "images/*.png", "incoming", "incoming/*.png")
NUMBERS = {"bytes": int, "checksum": int}  # keys of a line that are numbers; the others are texts


class Unfinished:
    """An unfinished prepared folder, with the files that earlier tries converted, as far as their records are undamaged.

    `known` has a row for each such file, with the columns KNOWN and has_png. `tables` returns all columns.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.images, self.incoming, self.journal = part / "images", part / "incoming", part / "journal.jsonl"
        self.images.mkdir(exist_ok=True)
        drop_folder(self.incoming)
        self.incoming.mkdir()
        self._mend_journal()
        self._complete = self._read_complete()
        slim = pa.concat_tables(
            [table.select(list(KNOWN)) for table in self.tables(pa.schema(KNOWN))] or [pa.schema(KNOWN).empty_table()]
        )
        self.known = slim.to_pandas().drop_duplicates("file", keep="last").reset_index(drop=True)
        self.known["has_png"] = [
            not row.reason and self._holds(row.image_id, row.png_sha256) for row in self.known.itertuples()
        ]

    def append(self, rows: Iterable[Row]) -> None:
        """Append converted files to the journal. Their PNGs must have their names already."""
        lines = [dump_checked_line(row, separators=(",", ":")) for row in rows]
        with self.journal.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def forget(self) -> None:
        """Drop the record of all converted files, so that nothing of the folder is kept."""
        drop(self.part / "prepare.json")
        drop(self.journal)

    def tables(self, schema: pa.Schema) -> list[pa.Table]:
        """Return the converted files in the columns of inputs.parquet, later tries last."""
        found = [] if self._complete is None else [self._complete]
        if _has_bytes(self.journal):
            options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            read = pa.json.read_json(self.journal, pa.json.ReadOptions(block_size=16 << 20), options)
            found.append(read.select(schema.names))
        return found

    def finish(self, folder: Path, image_ids: Collection[str], before: Collection[str]) -> None:
        """Remove temporary files and rename the folder to `folder`, replacing an earlier one.

        Files that other people put into the earlier folder are moved into the new one. `image_ids` are the images of the new folder,
        `before` those of the earlier one.
        """
        drop_folder(self.incoming)
        here = {f"{image_id}.png" for image_id in image_ids}
        for name in set(os.listdir(self.images)) - here:
            drop(self.images / name)
        clear(self.part, ("journal.jsonl", "request.json"))
        if not os.path.lexists(folder):
            give_name(self.part, folder)
            return
        move_strangers(folder, self.part, RESULT)
        if (folder / "images").is_dir():
            move_strangers(folder / "images", self.images, {f"{image_id}.png" for image_id in before})
        take_place(self.part, folder)

    def _read_complete(self) -> pa.Table | None:
        """Read inputs.parquet of a preparation that was killed after it wrote its tables; None where it is missing or damaged."""
        path = self.part / "prepare.json"
        if not path.exists():
            return None
        try:
            return read_inputs(self.part, read_json(path))
        except UnreadableFile:
            return None

    def _mend_journal(self) -> None:
        """Rewrite the journal without torn lines, such as the last one of a killed process, where there are any."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as file:
            torn = any(not _is_whole(line) for line in file)
        if torn:
            with self.journal.open("rb") as file, replace_whole(self.journal) as mended, mended.open("wb") as kept:
                kept.writelines(line for line in file if _is_whole(line))

    def _holds(self, image_id: str, png_sha256: str) -> bool:
        """Say whether an image exists with its recorded hash. A power cut may leave a file of the right size without its bytes."""
        try:
            content = (self.images / f"{image_id}.png").read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(content).hexdigest().startswith(png_sha256)


@contextmanager
def lock_preparation(folder: Path, request: Mapping[str, Any]) -> Iterator[None]:
    """Lock `folder` while this process makes or checks it. Another process that prepares it is waited for.

    Raises ValueError at once when the other process prepares it for another request.
    """

    def check() -> None:
        earlier = _request(part_of(folder))
        if earlier is not None:
            _refuse_another(folder, earlier, request)

    with hold_lock(folder, wait_s=WAIT_S, on_wait=check):
        yield


@contextmanager
def open_unfinished(folder: Path, request: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Yield the unfinished form of `folder` for this request, new or resumed. It stays when the body fails.

    Raises ValueError when it was begun with another request, or something of that name was not made by fl_rsna.
    """
    part = part_of(folder)
    with lock_preparation(folder, request):
        if not os.path.lexists(part):
            make_folder(part, WHAT)
        elif what_is(part) != WHAT:
            raise ValueError(
                f"data.name: expected no {part} or one that fl_rsna made, got one without its {RECORD}; move it away or choose another "
                "data.name"
            )
        earlier = _request(part)
        if _has_work(part) and earlier is not None:
            _refuse_another(folder, earlier, request)
        write_whole(part / "request.json", dump_hashed_json(request))
        record = read_owner(part)
        assert record is not None
        try:
            yield Unfinished(part)
        finally:
            if part.exists() and not _has_work(part):
                take_back(part, record["token"], UNWANTED)


def part_of(folder: Path) -> Path:
    """Return the path of the unfinished form of a prepared folder."""
    return folder.with_name(folder.name + ".part")


def _request(part: Path) -> dict[str, Any] | None:
    """Read the request of an unfinished preparation; None where there is none, or it has not written its request yet."""
    if what_is(part) != WHAT:
        return None
    do = f"delete {part} and prepare again"
    if (part / "request.json").exists():
        return read_json(part / "request.json", do)
    complete = part / "prepare.json"
    return read_json(complete, do).get("request") if complete.exists() else None


def _refuse_another(folder: Path, earlier: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Raise ValueError where the `earlier` request, which began the preparation, is another one."""
    changed = sorted(key for key in request if earlier.get(key) != request[key])
    if changed:
        raise ValueError(
            f"data.name: {part_of(folder)} holds an unfinished preparation of another request ({', '.join(changed)} differ); "
            "choose another data.name, delete it, or repeat that request to finish it"
        )


def _has_work(part: Path) -> bool:
    """Say whether an unfinished folder has converted files."""
    return _has_bytes(part / "journal.jsonl") or (part / "prepare.json").exists()


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _is_whole(line: bytes) -> bool:
    """Say whether a line of the journal is complete and has all keys that `tables` needs."""
    row = line_of(line) if line.endswith(b"\n") else None
    if row is None or not all(
        isinstance(row.get(name), NUMBERS.get(name, str)) for name in (*INPUT, "image_id", "reason")
    ):
        return False
    return bool(row["reason"]) or isinstance(row.get("png_sha256"), str)
