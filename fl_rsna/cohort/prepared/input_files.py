"""Know the input files of a prepared folder, and decide which of them a new preparation may keep as they are.

A file is known by its name, its size, when it last changed (of a zip member: its checksum) and the checksum of the bytes that
were converted. Its name is kept as a hash: a path may hold a patient's name.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import (
    ANEW,
    Changes,
    Prepared,
    check_stored,
    hash_id,
    list_file_columns,
    read_facts,
    read_prepared,
)
from fl_rsna.common.reading import refuse_unreadable
from fl_rsna.imaging.convert import facts_of_a_file
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.imaging.sources import UNREAD, File
from fl_rsna.task import Rendering, Task

INPUTS = "inputs.parquet"  # in a prepared folder: a row a file, in the order of the input
INPUT = {"file": pa.string(), "bytes": pa.int64(), "stamp": pa.string(), "site": pa.string(), "checksum": pa.int64()}
OUTCOME = {"png_bytes": pa.int64(), "reason": pa.string(), "tag": pa.string(), "detail": pa.string()}
KNOWN = {**INPUT, "image_id": pa.string(), "png_sha256": pa.string(), "png_bytes": pa.int64(), "reason": pa.string()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The input files as they are now; `table` has a row each, with the columns of INPUT that can be told without reading."""

    files: Sequence[File]
    table: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """For each file of a listing: whether it is kept unread, whether its name was known, and else the checksum to compare."""

    kept: NDArray[np.bool_]
    known: NDArray[np.bool_]
    checksums: NDArray[np.int64]
    image_ids: list[str]  # of those that were known and gave an image; else empty
    gone: int  # files that were known and are not listed

    def images(self) -> Iterator[tuple[int, str]]:
        """The places and ids of the images that are kept, the last first."""
        for place in np.flatnonzero(self.kept)[::-1].tolist():
            if image_id := self.image_ids[place]:
                yield place, image_id

    def to_read(self, files: Sequence[File]) -> tuple[list[int], list[File]]:
        """The places of the files that are read, and the files with the checksum to compare."""
        places = np.flatnonzero(~self.kept).tolist()
        return places, [replace(files[place], known=int(self.checksums[place])) for place in places]


def fields_of(rendering: Rendering) -> pa.Schema:
    """Columns of inputs.parquet: what a file is known by, what it gave by itself, and why it gave no image."""
    kinds = {"float64": pa.float64(), "int32": pa.int32(), "bool": pa.bool_(), "str": pa.string()}
    columns, of_a_file = list_file_columns(rendering), facts_of_a_file(rendering)
    facts = {name: kinds[column.dtype] for name, column in columns.items() if name in of_a_file}
    return pa.schema({**INPUT, **facts, **OUTCOME})


def list_inputs(files: Sequence[File], salt: str) -> Listing:
    """What can be told of files without reading them. A name that stands twice in a list counts each time."""
    seen: Counter[str] = Counter()
    keys = []
    for file in files:
        times = seen[file.name]
        seen[file.name] += 1
        keys.append(hash_id(f"file\0{file.name}\0{times}", salt))
    facts = {
        "file": keys,
        "bytes": np.array([file.size for file in files], np.int64),
        "stamp": [file.stamp for file in files],
        "site": [file.origin for file in files],
    }
    return Listing(files=files, table=pd.DataFrame(facts))


def read_inputs(folder: Path, facts: Mapping[str, Any], columns: list[str] | None = None) -> pa.Table:
    """inputs.parquet of a prepared folder; `facts` is its prepare.json. Raises ValueError when it is not the one that was written."""
    path = folder / INPUTS
    with refuse_unreadable(path, "what prepare wrote of its inputs", ANEW, key="data.name: "), path.open("rb") as file:
        check_stored(folder, facts, INPUTS)
        return pq.read_table(file, columns=columns)


def find_known_images(table: pa.Table, images: Path, indexed: frozenset[str]) -> pd.DataFrame:
    """KNOWN of a finished folder. `has_png` is whether the image lies there in its size.

    `idle` are images that are neither in the index nor there, because of others of their series: there is nothing to keep.
    """
    known: pd.DataFrame = table.select(list(KNOWN)).to_pandas()
    sizes = {}
    if images.is_dir():
        with os.scandir(images) as entries:
            sizes = {entry.name.removesuffix(".png"): entry.stat().st_size for entry in entries}
    found = known["image_id"].map(sizes)
    accepted = known["reason"] == ""
    return known.assign(
        has_png=(found == known["png_bytes"]) & accepted, idle=accepted & ~known["image_id"].isin(indexed)
    )


def _are_of(listing: Listing, known: pd.DataFrame) -> bool:
    """Whether what is known is of the same names in the same order."""
    return len(known) == len(listing.files) and bool(
        (listing.table["file"].to_numpy() == known["file"].to_numpy()).all()
    )


def is_as_known(listing: Listing, known: pd.DataFrame) -> bool:
    """Whether a finished folder is of exactly these files, in this order, as far as can be told without reading them."""
    if not _are_of(listing, known):
        return False
    found = plan(listing, known)
    return bool((found.kept | known["idle"].to_numpy(bool)).all())


def plan(listing: Listing, known: pd.DataFrame) -> Plan:
    """What is kept of `known` (KNOWN, has_png; a row a file).

    An accepted file is kept while its image lies there, a rejected one while its rejection follows from its bytes, and a second copy while
    an image of that id comes before it.
    """
    now = listing.table
    before = known.reset_index(drop=True)
    if not _are_of(listing, known):
        before = known.set_index("file").reindex(now["file"]).reset_index(drop=True)
    there = before["bytes"].notna()
    alike = there & (before["bytes"] == now["bytes"]) & (before["site"] == now["site"])
    same = alike & (before["stamp"] == now["stamp"])
    accepted, copy = before["reason"] == "", before["reason"] == Reason.duplicate_id
    by_chance = (before["reason"] == Reason.unreadable) | (before["reason"] == Reason.crashed)
    with_png = accepted & before["has_png"].eq(True)
    valid = with_png | (there & ~accepted & ~copy & ~by_chance)
    kept = same & valid
    if copy.any():
        places = pd.Series(np.arange(len(now)))
        first = places[kept & accepted].groupby(before["image_id"]).min()
        kept |= same & copy & (before["image_id"].map(first) < places)
    checksums = before["checksum"].where(alike & valid & ~kept, UNREAD)
    return Plan(
        kept=kept.to_numpy(bool),
        known=there.to_numpy(bool),
        checksums=checksums.to_numpy(np.int64),
        image_ids=before["image_id"].where(accepted, "").to_list(),
        gone=len(known) - int(there.sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The folder, the facts of its prepare.json, and what it knows of its inputs."""

    prepared: Prepared
    facts: dict[str, Any]
    known: pd.DataFrame

    @property
    def images(self) -> Path:
        return self.prepared.folder / "images"

    @property
    def is_whole(self) -> bool:
        """Whether every image of the index lies there."""
        return bool((self.known["has_png"] | self.known["idle"] | (self.known["reason"] != "")).all())

    def as_it_is(self) -> Prepared:
        """The folder as it was found: of the files that are listed now, none had to be converted."""
        return replace(self.prepared, changes=Changes(kept=len(self.known), again=0, new=0, gone=0))


def read_finished(folder: Path, request: Mapping[str, Any], task: Task) -> Finished:
    """Raises ValueError when the folder holds no prepared data, or data of another request."""
    facts = read_facts(
        folder / "prepare.json", f"data.name: {folder} exists but holds no prepared data; choose another data.name"
    )
    earlier = facts.get("request", {})
    changed = sorted(key for key, value in request.items() if earlier.get(key) != value)
    if changed:
        raise ValueError(
            f"data.name: {folder} was prepared from another request ({', '.join(changed)} differ); "
            "choose another data.name or delete the folder"
        )
    prepared = read_prepared(folder, task)
    table = read_inputs(folder, facts, list(KNOWN))
    known = find_known_images(table, folder / "images", frozenset(prepared.index["image_id"]))
    return Finished(prepared=prepared, facts=facts, known=known)
