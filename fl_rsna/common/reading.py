"""Read files that an earlier step or run wrote. An unreadable file raises a ValueError that names it and says what to do.

A JSON object may state a hash of its own content, as `dump_hashed_json` writes it. The hash is checked: a file with one changed byte is
refused even where it is still JSON. An object without a hash is accepted, so that people can write such files. Beside the hash stands
the version of the format, one for prepared sets, cohorts and run folders.
"""

import csv
import hashlib
import json
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from safetensors import SafetensorError

HASH = "content_sha256"  # key of the hash of the other keys
FORMAT_VERSION = "format_version"
FORMAT = 1  # of prepared sets, cohorts and run folders; increased when an earlier version would misread the new files
AGAIN = "repeat the step that wrote it, or bring the file back from a copy"

Kinds = type | tuple[type, ...]
Keys = Mapping[str, Kinds]  # the keys that an object must have, with the types each may be of

UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError, RecursionError,
    MemoryError, EOFError, struct.error, zlib.error, csv.Error, yaml.YAMLError, pa.ArrowException, SafetensorError,
)  # fmt: skip
WORDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class UnreadableFile(ValueError):
    """A file is missing, damaged or another one than expected. The message names it and says what to do."""


@contextmanager
def refuse_unreadable(path: Path, expected: str, do: str = AGAIN, *, key: str = "") -> Iterator[None]:
    """Turn errors of the body, which reads `path`, into one UnreadableFile.

    The sentence begins with `key`, says what was `expected`, and ends with the advice `do`.
    """
    try:
        yield
    except UnreadableFile:
        raise
    except UNREADABLE as error:
        raise UnreadableFile(f"{key}expected {expected} in {path}, {_describe_error(error)}; {do}") from None


def refuse(path: Path, expected: str, found: str, do: str = AGAIN) -> UnreadableFile:
    """Build the UnreadableFile for a file that holds `found` instead of `expected`; `do` is the advice at its end."""
    return UnreadableFile(f"expected {expected} in {path}, got {found}; {do}")


def read_json(
    path: Path, do: str = AGAIN, *, keys: Keys | None = None, hashed: bool = False, by_hand: bool = False
) -> dict[str, Any]:
    """Read the JSON object of a file, without its hash and format version.

    Raises ValueError when it is damaged, of another format, or lacks one of `keys`. With `by_hand` a person may have changed it: a wrong
    hash is only a warning. With `hashed` it must have a hash. NaN and infinity, which JSON does not know, are refused in an object
    without a hash.
    """
    with refuse_unreadable(path, "a JSON object", do):
        strange: list[str] = []

        def constant(name: str) -> float:
            strange.append(name)
            return float(name)

        found = json.loads(path.read_bytes().decode(), parse_constant=constant)
        if not isinstance(found, dict):
            raise refuse(path, "a JSON object", _word(found), do)
        stated = found.pop(HASH, None)
        if stated != json_sha256(found) if stated is not None else hashed:
            if not by_hand:
                raise build_damage_error(path, do)
            warnings.warn(str(build_damage_error(path, do)), stacklevel=2)
        if strange and stated is None:
            raise refuse(path, "finite numbers", strange[0], do)
        written = found.pop(FORMAT_VERSION, None)
        if stated is not None and written != FORMAT:
            whose = "a version before 0.2.0" if written is None else "another version of fl_rsna"
            raise UnreadableFile(
                f"expected format {FORMAT} in {path}, got {'none' if written is None else written}: {whose} wrote it; use that version, "
                "or make the folder again"
            )
    check_keys(found, path, keys or {}, do)
    return found


def read_yaml(path: Path, do: str = AGAIN, *, keys: Keys | None = None) -> dict[str, Any]:
    """Read the YAML mapping of a file. Raises ValueError when it cannot be read or lacks one of `keys`."""
    with refuse_unreadable(path, "YAML settings", do):
        found = yaml.safe_load(path.read_bytes().decode())
    if not isinstance(found, dict):
        raise refuse(path, "YAML settings", _word(found), do)
    check_keys(found, path, keys or {}, do)
    return found


def read_csv(path: Path, do: str = AGAIN, *, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Read a CSV file by pandas.read_csv with `options`. Raises ValueError when it cannot be read or lacks one of `columns`."""
    with refuse_unreadable(path, "a CSV table", do):
        content = path.read_bytes()
    return parse_csv(path, content, do, columns=columns, **options)


def parse_csv(
    path: Path, content: bytes, do: str = AGAIN, *, columns: Sequence[str] = (), **options: Any
) -> pd.DataFrame:
    """Parse the content of a CSV file by pandas.read_csv with `options`; `path` is where it was read.

    Raises ValueError when it cannot be parsed or lacks one of `columns`.
    """
    with refuse_unreadable(path, "a CSV table", do):
        table = pd.read_csv(BytesIO(content), **options)
    return _with_columns(table, path, columns, do)


def read_parquet(path: Path, do: str = AGAIN, *, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a Parquet file. Raises ValueError when it cannot be read or lacks one of `columns`."""
    with (
        refuse_unreadable(path, "a Parquet table", do),
        path.open("rb") as file,
    ):  # opened here: Arrow takes no path that is not UTF-8
        table = pd.read_parquet(file)
    return _with_columns(table, path, columns, do)


def numbers(table: pd.DataFrame, names: Sequence[str], path: Path, do: str = AGAIN) -> pd.DataFrame:
    """Return the table. Raises ValueError unless the named columns are finite numbers; missing values are allowed."""
    for name in names:
        if table[name].dtype.kind not in "biuf":
            raise refuse(path, f"numbers in column {name}", "text", do)
        if table[name].dtype.kind == "f" and np.isinf(table[name].to_numpy(np.float64)).any():
            raise refuse(path, f"finite numbers in column {name}", "inf", do)
    return table


def check_keys(found: Mapping[str, Any], path: Path, keys: Keys, do: str = AGAIN) -> None:
    """Raise ValueError for an object that lacks one of `keys`, or has a value of another type there."""
    for name, kinds in keys.items():
        if name not in found:
            raise refuse(path, name, "none", do)
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(found[name], allowed) or (isinstance(found[name], bool) and bool not in allowed):
            wanted = " or ".join(WORDS.get(kind, kind.__name__) for kind in allowed)
            raise refuse(path, f"{name} as {wanted}", _word(found[name]), do)


def build_damage_error(path: Path, do: str = AGAIN) -> UnreadableFile:
    """Build the refusal of a file whose content does not match its hash."""
    return UnreadableFile(
        f"{path} was changed or damaged: its content is not what was written there, by its hash; {do}"
    )


def json_sha256(content: Mapping[str, Any]) -> str:
    """Hash a JSON object without its own hash. The order of keys and blanks do not count."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != HASH}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def dump_hashed_json(content: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """Write a JSON object as bytes, with the format version and the hash as its last keys."""
    plain = {name: value for name, value in content.items() if name not in (HASH, FORMAT_VERSION)} | {
        FORMAT_VERSION: FORMAT
    }
    return (json.dumps({**plain, HASH: json_sha256(plain)}, indent=indent) + "\n").encode()


def file_sha256(path: Path) -> str:
    """Hash a file's bytes by SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CHECKED = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"\}\s*', re.DOTALL)


def dump_checked_line(content: Mapping[str, Any], **dump: Any) -> str:
    """Write an object as a line of a JSON lines file, with the CRC-32 of the rest as its last key."""
    text = json.dumps(content, **dump)
    return f'{text[:-1]}, "crc": "{zlib.crc32(text.encode()):08x}"}}\n'


def line_of(raw: bytes) -> dict[str, Any] | None:
    """Read the object of a line, without its checksum; None for a line that is cut, changed or no object.

    A line without a checksum is accepted.
    """
    found = CHECKED.fullmatch(raw)
    if found is not None:
        raw = found[1] + b"}"
        if zlib.crc32(raw) != int(found[2], 16):
            return None
    try:
        row = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and "crc" not in row else None


def _with_columns(table: pd.DataFrame, path: Path, columns: Sequence[str], do: str) -> pd.DataFrame:
    """Return the table. Raises ValueError when it lacks one of `columns`."""
    if missing := [name for name in columns if name not in table]:
        raise refuse(path, f"columns {', '.join(missing)}", "none", do)
    return table


def _describe_error(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "found no such file"
    if isinstance(error, OSError):
        return f"which cannot be read: {error.strerror or error}"
    if isinstance(error, KeyError):
        return f"got none for {error.args[0] if error.args else 'a key'}"
    if isinstance(error, UnicodeDecodeError):
        return "got bytes that are no UTF-8 text"
    if isinstance(error, RecursionError):
        return "got one that is nested too deep"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "nothing")
    return f"got one that cannot be read ({type(error).__name__}: {first})"


def _word(found: object) -> str:
    if found is None:
        return "nothing"
    return WORDS.get(type(found), type(found).__name__)
