"""Write files with a hash of their content, and check the hash when they are read: JSON records, vectors, tables and arrays.

The hash is stored in the file: as a key of a JSON object, in the metadata of safetensors and Parquet, or after the values of an array.
It covers the facts beside the content, too, such as the run and the round. A reader says which facts it expects, so an undamaged file
of another run is refused as well.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray
from safetensors import safe_open
from safetensors.numpy import save

from fl_rsna.common.atomic import replace_whole, write_whole
from fl_rsna.common.reading import HASH, build_damage_error, dump_hashed_json, read_json, refuse, refuse_unreadable

Array = NDArray[Any]
Facts = Mapping[str, Any]

DIGEST = hashlib.sha256().digest_size  # bytes of the hash after an array's values


def write_record(path: Path, content: Facts) -> None:
    """Write a JSON object with its hash."""
    write_whole(path, dump_hashed_json(content, indent=None))


def read_record(path: Path, do: str, of: Facts | None = None) -> dict[str, Any]:
    """Read a JSON object that `write_record` wrote. Raises ValueError when it was changed, or a fact in it is not as in `of`.

    `do` is the advice at the end of the refusal.
    """
    found = read_json(path, do, hashed=True)
    _check_facts(path, found, of or {}, do)
    return found


def write_vectors(path: Path, vectors: Mapping[str, Array], facts: Facts) -> None:
    """Write arrays as safetensors, with `facts` as JSON values and the hash in the metadata."""
    kept = {name: np.ascontiguousarray(vector) for name, vector in vectors.items()}
    said = {name: json.dumps(value) for name, value in facts.items()}
    write_whole(path, save(kept, {**said, HASH: vectors_sha256(kept, said)}))


def read_vectors(path: Path, do: str, of: Facts | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the arrays and facts that `write_vectors` wrote. Raises ValueError when they were changed, or a fact is not as in `of`.

    `do` is the advice at the end of the refusal.
    """
    with refuse_unreadable(path, "a safetensors file", do), safe_open(path, "numpy") as file:
        vectors, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if said.pop(HASH, None) != vectors_sha256(vectors, said):
            raise build_damage_error(path, do)
        facts = {name: json.loads(value) for name, value in said.items()}
    _check_facts(path, facts, of or {}, do)
    return vectors, facts


def vectors_sha256(vectors: Mapping[str, Array], said: Mapping[str, str]) -> str:
    """Hash arrays with their names, types and shapes, and the metadata without the hash itself."""
    told = {name: value for name, value in said.items() if name != HASH}
    shapes = {name: [vector.dtype.str, list(vector.shape)] for name, vector in vectors.items()}
    digest = hashlib.sha256(json.dumps([told, shapes], sort_keys=True).encode())
    for name in sorted(vectors):
        digest.update(np.ascontiguousarray(vectors[name]).data)
    return digest.hexdigest()


def write_table(path: Path, table: pd.DataFrame, facts: Facts | None = None) -> None:
    """Write a table as Parquet, with `facts` as JSON values and the hash in the metadata."""
    said = json.dumps(dict(facts or {}), sort_keys=True)
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    known = arrow.schema.metadata or {}
    arrow = arrow.replace_schema_metadata({**known, b"facts": said, HASH.encode(): _table_sha256(table, said)})
    with replace_whole(path) as part, part.open("wb") as file:  # opened here: Arrow takes no path that is not UTF-8
        pq.write_table(arrow, file)


def read_table(path: Path, do: str, of: Facts | None = None, *, hashed: bool = True) -> pd.DataFrame:
    """Read a table that `write_table` wrote. Raises ValueError when it was changed, or a fact of it is not as in `of`.

    `do` is the advice at the end of the refusal. With `hashed=False` a table without a hash, as another program writes it, is accepted.
    """
    with refuse_unreadable(path, "a Parquet table", do), path.open("rb") as file:
        arrow = pq.read_table(file)
        known = arrow.schema.metadata or {}
        table: pd.DataFrame = arrow.to_pandas()
        said = known.get(b"facts", b"{}").decode()
        stated = known.get(HASH.encode(), b"").decode()
        if stated != _table_sha256(table, said) and (stated or hashed):
            raise build_damage_error(path, do)
        facts = json.loads(said)
    _check_facts(path, facts, (of or {}) if stated else {}, do)
    return table


def _table_sha256(table: pd.DataFrame, said: str) -> str:
    """Hash a table's content, its columns' types, and its facts as JSON."""
    kinds = json.dumps([str(dtype) for dtype in table.dtypes])
    return hashlib.sha256(f"{said}\0{kinds}\0{table_sha256(table)}".encode()).hexdigest()


@contextmanager
def array_written(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Yield an array to fill, mapped from a file in numpy's format that replaces `path` when the body succeeds.

    The hash is written after the values. The disk space is reserved first, so a full disk raises OSError here instead of ending the
    process by a signal later.
    """
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, described)
    header = buffer.getvalue()
    size = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
    with replace_whole(path) as part:
        with part.open("w+b") as file:
            file.write(header)
            file.flush()
            allocate(file.fileno(), size + DIGEST)
        array = np.memmap(part, dtype, "r+", len(header), shape) if math.prod(shape) else np.zeros(shape, dtype)
        yield array
        if isinstance(array, np.memmap):
            array.flush()
        digest = hashlib.sha256(header)
        digest.update(np.ascontiguousarray(array).data)
        with part.open("r+b") as file:
            file.seek(size)
            file.write(digest.digest())


def map_array(path: Path) -> NDArray[Any]:
    """Map the array of a file, read-only. The hash is not checked."""
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def is_whole(path: Path) -> bool:
    """Say whether an array's file exists and has the content that its hash states. A process checks a file again only when it changed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return _is_whole(path.absolute(), found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=4096)
def _is_whole(path: Path, changed_ns: int, size: int, number: int) -> bool:
    with path.open("rb") as file:
        digest, left = hashlib.sha256(), size - DIGEST
        while left > 0 and (block := file.read(min(left, 1 << 24))):
            digest.update(block)
            left -= len(block)
        return file.read() == digest.digest()


def allocate(descriptor: int, size: int) -> None:
    """Make a file `size` bytes long and reserve the disk space now. Raises OSError when the disk is full."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(1 << 20)  # where the system has no posix_fallocate: write zeros
    at = os.fstat(descriptor).st_size
    while at < size:
        at += os.pwrite(descriptor, block[: size - at], at)


def _check_facts(path: Path, found: Facts, expected: Facts, do: str) -> None:
    """Raise ValueError for an undamaged file of another run, site or round."""
    for name, value in expected.items():
        if found.get(name) != value:
            raise refuse(path, f"{name} {value}", f"{found.get(name)}: it is another one's", do)


def table_sha256(table: pd.DataFrame) -> str:
    """Hash a table's column names and values in order, whatever their types in a file or in memory.

    Whole numbers of any width give the same hash; so do floats, which are not rounded. Texts count by their UTF-8 bytes.
    """
    digest = hashlib.sha256(str(len(table)).encode())
    for name in table.columns:
        digest.update(f"\0{name}\0".encode())
        for part in _value_bytes(table[name]):
            digest.update(part)
    return digest.hexdigest()


def _value_bytes(column: pd.Series) -> tuple[Any, ...]:
    """Return a column as parts to hash: its kind, then little-endian numbers, or the lengths of texts (-1 if missing) and the joined texts."""
    if column.dtype.kind in "biu":
        return b"whole", np.ascontiguousarray(column.to_numpy("<i8"))
    if column.dtype.kind == "f":
        values = column.to_numpy("<f8") + 0.0  # a copy, in which -0 is 0
        values[np.isnan(values)] = np.nan
        return b"float", values
    texts = pa.array(column, pa.large_string(), from_pandas=True)
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    lengths = pc.fill_null(pc.binary_length(texts), -1).to_numpy(zero_copy_only=False).astype("<i8")
    filled = pc.fill_null(texts, "")
    _, offsets, values = filled.buffers()
    if not values:
        return b"text", lengths
    first, last = np.frombuffer(offsets, np.int64)[filled.offset :][[0, len(filled)]]
    return b"text", lengths, memoryview(values)[first:last]
