"""Record the input files of a prepared folder, and decide which of their images a new preparation keeps.

A file is recognised by its name, its size, the time of its last change (for a zip member: its checksum) and the checksum of the bytes that
were converted. Its name is stored as a hash, since a path may hold a patient's name.
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
    PREPARE_AGAIN,
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

INPUTS = "inputs.parquet"  # in a prepared folder: a row for each file, in the order of the input
INPUT = {"file": pa.string(), "bytes": pa.int64(), "stamp": pa.string(), "site": pa.string(), "checksum": pa.int64()}
OUTCOME = {"png_bytes": pa.int64(), "reason": pa.string(), "tag": pa.string(), "detail": pa.string()}
KNOWN = {**INPUT, "image_id": pa.string(), "png_sha256": pa.string(), "png_bytes": pa.int64(), "reason": pa.string()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The input files as they are now. `table` has a row for each, with the columns of INPUT that are known without reading it."""

    files: Sequence[File]
    table: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a preparation for each file of a listing.

    `kept` files are not read, `known` ones were in an earlier preparation, and `checksums` are compared with those of the files that are read.
    """

    kept: NDArray[np.bool_]
    known: NDArray[np.bool_]
    checksums: NDArray[np.int64]
    image_ids: list[str]  # of known files that gave an image; empty for the others
    gone: int  # number of known files that are not listed any more

    def images(self) -> Iterator[tuple[int, str]]:
        """Yield the place in the input and the id of each image that is kept, the last one first."""
        for place in np.flatnonzero(self.kept)[::-1].tolist():
            if image_id := self.image_ids[place]:
                yield place, image_id

    def to_read(self, files: Sequence[File]) -> tuple[list[int], list[File]]:
        """List the places in the input of the files that are read, and these files with the checksums to compare."""
        places = np.flatnonzero(~self.kept).tolist()
        return places, [replace(files[place], known=int(self.checksums[place])) for place in places]


def fields_of(rendering: Rendering) -> pa.Schema:
    """Return the columns of inputs.parquet: what a file is recognised by, the facts of its image, and why it gave no image."""
    kinds = {"float64": pa.float64(), "int32": pa.int32(), "bool": pa.bool_(), "str": pa.string()}
    columns, of_a_file = list_file_columns(rendering), facts_of_a_file(rendering)
    facts = {name: kinds[column.dtype] for name, column in columns.items() if name in of_a_file}
    return pa.schema({**INPUT, **facts, **OUTCOME})


def list_inputs(files: Sequence[File], salt: str) -> Listing:
    """List what is known of files without reading them. A name that is in a list twice gets two different hashes."""
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
    """Read inputs.parquet of a prepared folder; `facts` are those of its prepare.json. Raises ValueError when it was changed."""
    path = folder / INPUTS
    with (
        refuse_unreadable(path, "what prepare wrote of its inputs", PREPARE_AGAIN, key="data.name: "),
        path.open("rb") as file,
    ):
        check_stored(folder, facts, INPUTS)
        return pq.read_table(file, columns=columns)


def find_known_images(table: pa.Table, images: Path, indexed: frozenset[str]) -> pd.DataFrame:
    """Return the columns KNOWN of inputs.parquet, and for each file whether its image exists (`has_png`) or is not needed (`idle`).

    An image exists when its file has the recorded size. It is not needed when other slices of its series kept it out of the index
    (`indexed` has the ids in it).
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
    """Say whether the known files have the same names, in the same order, as the listed ones."""
    return len(known) == len(listing.files) and bool(
        (listing.table["file"].to_numpy() == known["file"].to_numpy()).all()
    )


def is_as_known(listing: Listing, known: pd.DataFrame) -> bool:
    """Say whether a finished folder was made of exactly these files, in this order, as far as is known without reading them."""
    if not _are_of(listing, known):
        return False
    found = plan(listing, known)
    return bool((found.kept | known["idle"].to_numpy(bool)).all())


def plan(listing: Listing, known: pd.DataFrame) -> Plan:
    """Plan which files are kept unread. `known` has the columns KNOWN and has_png, and a row for each file.

    An unchanged file that was accepted is kept while its image exists. A rejected one is kept if its rejection follows from its bytes
    alone. A second copy of an image is kept while another file with that id comes before it.
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
    """A finished prepared folder: its content, the facts of prepare.json, and what is known of its input files."""

    prepared: Prepared
    facts: dict[str, Any]
    known: pd.DataFrame

    @property
    def images(self) -> Path:
        """The folder of the PNGs."""
        return self.prepared.folder / "images"

    @property
    def is_whole(self) -> bool:
        """Say whether every image of the index exists."""
        return bool((self.known["has_png"] | self.known["idle"] | (self.known["reason"] != "")).all())

    def as_it_is(self) -> Prepared:
        """Return the folder with the changes of a preparation that converted nothing."""
        return replace(self.prepared, changes=Changes(kept=len(self.known), again=0, new=0, gone=0))


def read_finished(folder: Path, request: Mapping[str, Any], task: Task) -> Finished:
    """Read a finished prepared folder. Raises ValueError when it holds no prepared data, or data of another request."""
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
