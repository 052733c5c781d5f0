"""Files that an earlier step or run wrote, read back: whatever is wrong with one is a ValueError that names it and says what to do.

A JSON object may state a hash of its own content, as `dump_hashed_json` writes it. Then that is checked: a file with one changed
byte is refused even where it is still JSON. Without the hash it is taken as it is, so that people can write such files. Beside the
hash stands the version of the format of all that a step or run writes: of prepared sets, cohorts and run folders.
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

HASH = "content_sha256"  # key of a file's hash of the rest of its content
FORMAT_VERSION, FORMAT = (
    "format_version",
    1,
)  # of prepared, cohort and run folders; one more where a reader of the last would be wrong
AGAIN = "repeat the step that wrote it, or bring the file back from a copy"

Kinds = type | tuple[type, ...]
Keys = Mapping[str, Kinds]  # what an object must have, each of one of these kinds

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
    """What a file holds is not what was written there; the sentence names it and says what to do."""


@contextmanager
def refuse_unreadable(path: Path, expected: str, do: str = AGAIN, *, key: str = "") -> Iterator[None]:
    """The body reads `path` and takes out what it needs; where that fails, one ValueError says so. `key` begins the sentence."""
    try:
        yield
    except UnreadableFile:
        raise
    except UNREADABLE as error:
        raise UnreadableFile(f"{key}expected {expected} in {path}, {_describe_error(error)}; {do}") from None


def refuse(path: Path, expected: str, found: str, do: str = AGAIN) -> UnreadableFile:
    """The same sentence, for what a reader finds wrong by itself."""
    return UnreadableFile(f"expected {expected} in {path}, got {found}; {do}")


def read_json(
    path: Path, do: str = AGAIN, *, keys: Keys | None = None, hashed: bool = False, by_hand: bool = False
) -> dict[str, Any]:
    """The JSON object in a file, without its hash and format. Raises ValueError when it is damaged, of another format, or lacks one of `keys`.

    With `by_hand` it may be another than its hash says, as where a person changed it; that is a warning.

    With `hashed` it must have its hash. A number that JSON does not know, such as NaN, is refused where no hash vouches for it.
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
            raise _build_format_error(path, written)
    check_keys(found, path, keys or {}, do)
    return found


def read_yaml(path: Path, do: str = AGAIN, *, keys: Keys | None = None) -> dict[str, Any]:
    """The YAML mapping in a file."""
    with refuse_unreadable(path, "YAML settings", do):
        found = yaml.safe_load(path.read_bytes().decode())
    if not isinstance(found, dict):
        raise refuse(path, "YAML settings", _word(found), do)
    check_keys(found, path, keys or {}, do)
    return found


def read_csv(path: Path, do: str = AGAIN, *, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """A table of a CSV file, read as pandas.read_csv reads it with `options`."""
    return parse_csv(path, _bytes(path, "a CSV table", do), do, columns=columns, **options)


def parse_csv(
    path: Path, content: bytes, do: str = AGAIN, *, columns: Sequence[str] = (), **options: Any
) -> pd.DataFrame:
    """The same of what was read already; `path` is where."""
    with refuse_unreadable(path, "a CSV table", do):
        table = pd.read_csv(BytesIO(content), **options)
    return _with_columns(table, path, columns, do)


def read_parquet(path: Path, do: str = AGAIN, *, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of a Parquet file."""
    with (
        refuse_unreadable(path, "a Parquet table", do),
        path.open("rb") as file,
    ):  # opened here: Arrow takes no path that is not UTF-8
        table = pd.read_parquet(file)
    return _with_columns(table, path, columns, do)


def numbers(table: pd.DataFrame, names: Sequence[str], path: Path, do: str = AGAIN) -> pd.DataFrame:
    """The table, of which these columns must be numbers; what is missing is one, too."""
    for name in names:
        if table[name].dtype.kind not in "biuf":
            raise refuse(path, f"numbers in column {name}", "text", do)
        if table[name].dtype.kind == "f" and np.isinf(table[name].to_numpy(np.float64)).any():
            raise refuse(path, f"finite numbers in column {name}", "inf", do)
    return table


def check_keys(found: Mapping[str, Any], path: Path, keys: Keys, do: str = AGAIN) -> None:
    """Refuse an object without one of `keys`, or with a value of another kind there."""
    for name, kinds in keys.items():
        if name not in found:
            raise refuse(path, name, "none", do)
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(found[name], allowed) or (isinstance(found[name], bool) and bool not in allowed):
            wanted = " or ".join(WORDS.get(kind, kind.__name__) for kind in allowed)
            raise refuse(path, f"{name} as {wanted}", _word(found[name]), do)


def build_damage_error(path: Path, do: str = AGAIN) -> UnreadableFile:
    """The refusal of a file whose content is not that of its hash."""
    return UnreadableFile(
        f"{path} was changed or damaged: its content is not what was written there, by its hash; {do}"
    )


def _build_format_error(path: Path, found: object) -> UnreadableFile:
    """The refusal of a file that another version wrote."""
    whose = "a version before 0.2.0" if found is None else "another version of fl_rsna"
    return UnreadableFile(
        f"expected format {FORMAT} in {path}, got {'none' if found is None else found}: {whose} wrote it; use that version, or make "
        "the folder again"
    )


def json_sha256(content: Mapping[str, Any]) -> str:
    """Hash of a JSON object's content but its own hash, whatever the order of its keys and its blanks."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != HASH}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def dump_hashed_json(content: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """A JSON object as bytes of a file, with the version of its format and its hash as the last keys."""
    plain = {name: value for name, value in content.items() if name not in (HASH, FORMAT_VERSION)} | {
        FORMAT_VERSION: FORMAT
    }
    return (json.dumps({**plain, HASH: json_sha256(plain)}, indent=indent) + "\n").encode()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CHECKED = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"\}\s*', re.DOTALL)


def dump_checked_line(content: Mapping[str, Any], **dump: Any) -> str:
    """A line of a JSON lines file, with its own checksum as the last key."""
    text = json.dumps(content, **dump)
    return f'{text[:-1]}, "crc": "{zlib.crc32(text.encode()):08x}"}}\n'


def line_of(raw: bytes) -> dict[str, Any] | None:
    """The object of a line, without its checksum; None for a line that is cut, changed, or none. One without a checksum is taken."""
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


def _bytes(path: Path, expected: str, do: str) -> bytes:
    with refuse_unreadable(path, expected, do):
        return path.read_bytes()


def _with_columns(table: pd.DataFrame, path: Path, columns: Sequence[str], do: str) -> pd.DataFrame:
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
