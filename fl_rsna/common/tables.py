"""Read tables that people give, a CSV as pandas, Excel and R write it or a Parquet file, with every cell as text.

Blanks around a cell, invisible characters and Excel's ="001" are removed. A missing cell is empty. Whole numbers of a Parquet column are
written without a point, whatever their type: pandas makes 12 into 12.0 where the column has a gap. In a CSV "1.0" stays "1.0", since it
may be a text.
"""

import csv
import functools
import io
import operator
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SEPARATORS = ",;\t"
UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the first bytes of a UTF-16 file, such as Excel's "Unicode text"
WORDS, DIGITS = ("False", "True"), ("0", "1")  # the texts of a boolean column's cells
UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, zlib.error, BadZipFile, pa.ArrowException)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenTable:
    """A table as read. `key` is the setting that named it; refusals begin with it."""

    key: str
    path: Path
    columns: dict[str, "pd.Series[str] | pa.ChunkedArray"]  # by name; of two with one name, the first
    twice: frozenset[str]  # names that more than one column has

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def find(self, names: Iterable[str]) -> str | None:
        """Find the column with one of `names`: first letter by letter, then without case, blanks and punctuation.

        Returns None where there is none. Raises ValueError where two columns match.
        """
        names = list(names)
        for name in names:
            if name in self.columns and name not in self.twice:
                return name
        for name in names:
            alike = [column for column in self.columns if bare(column) == bare(name)]
            alike += [column for column in alike if column in self.twice]
            if len(alike) > 1:
                raise ValueError(
                    f"{self.key}: expected one column {name} in {self.path}, got {' and '.join(map(repr, alike))}; rename one"
                )
            if alike:
                return alike[0]
        return None

    def texts(self, column: str, booleans: Sequence[str] = WORDS) -> "pd.Series[str]":
        """Read the cells of a column as texts, cleaned. Raises ValueError where they are neither text nor numbers."""
        return clean(self.as_written(column, booleans))

    def as_written(self, column: str, booleans: Sequence[str] = WORDS) -> "pd.Series[str]":
        """Read the cells of a column as texts with the blanks around them, which a file's name may have.

        Raises ValueError where they are neither text nor numbers.
        """
        cells = self.columns[column]
        if isinstance(cells, pd.Series):
            return cells
        try:
            return texts_of(cells, booleans)
        except TypeError as error:
            raise ValueError(
                f"{self.key}: expected text or whole numbers in column {column} of {self.path}, got {error}; write it as text"
            ) from None


def read_given(path: Path, key: str, expected: str, content: bytes | None = None) -> GivenTable:
    """Read the table at `path` or, where it is inside an archive, from the bytes `content`.

    Rows of a CSV without any text are left out. Raises ValueError, which says what was `expected`, where it is no table.
    """
    try:
        if path.suffix.lower() == ".parquet":
            source = io.BytesIO(path.read_bytes() if content is None else content)
            arrow = pq.read_table(source)
            header = [str(name).strip() for name in arrow.column_names]
            cells = list(arrow.columns)
        else:
            header, cells = _csv(path, content)
    except UNREADABLE as error:
        raise ValueError(
            f"{key}: expected {expected} at {path}, got {_describe_error(error)}; give the whole file"
        ) from None
    columns: dict[str, pd.Series[str] | pa.ChunkedArray] = {}
    for name, own in zip(header, cells, strict=True):
        columns.setdefault(name, own)
    named = Counter(header)
    return GivenTable(key=key, path=path, columns=columns, twice=frozenset(name for name in named if named[name] > 1))


def dialect(path: Path, content: bytes | None = None) -> tuple[str, str]:
    """Find the encoding of a CSV by its first bytes, and its separator by its first line."""
    if content is not None:
        first = content[:2]
    else:
        with path.open("rb") as file:
            first = file.read(2)
    encoding = "utf-16" if first in UTF_16 else "utf-8-sig"
    line = pd.read_csv(
        path if content is None else io.BytesIO(content),
        sep="\x1f",
        header=None,
        nrows=1,
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
        encoding=encoding,
    )
    outside = re.sub(r'"[^"]*"', "", str(line.iloc[0, 0]))
    return encoding, max(SEPARATORS, key=outside.count)  # the comma where the line has none of them


def clean(texts: "pd.Series[str]") -> "pd.Series[str]":
    """Remove blanks around cells, invisible characters, and the ="..." by which Excel keeps text as it is."""
    texts = texts.str.strip()
    if texts.str.contains(f'[{UNSEEN}]|^="', regex=True).any():
        texts = texts.str.replace(f"[{UNSEEN}]", "", regex=True).str.strip()
        texts = texts.str.replace(r'^="(.*)"$', r"\1", regex=True).str.strip()
    return texts


def clean_text(text: str) -> str:
    """Remove blanks around a text, invisible characters, and Excel's ="..."."""
    seen = text.translate(dict.fromkeys(map(ord, UNSEEN))).strip()
    kept = re.fullmatch('="(.*)"', seen)
    return kept[1].strip() if kept else seen


def bare(name: str) -> str:
    """Reduce a column's name to its letters and digits in lower case."""
    return re.sub(r"[\W_]", "", name.lower())


def texts_of(cells: pa.ChunkedArray, booleans: Sequence[str] = WORDS) -> "pd.Series[str]":
    """Convert a Parquet column to texts. Raises TypeError with the type's name where it holds neither text nor numbers."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return texts_of(pc.cast(cells, kind.value_type), booleans)
    if pa.types.is_null(kind):
        texts = pa.array([""] * len(cells))
    elif pa.types.is_boolean(kind):
        texts = pc.if_else(cells, booleans[1], booleans[0])
    elif pa.types.is_floating(kind):
        values = pc.cast(cells, pa.float64())
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**63))
        number = pc.cast(pc.if_else(pc.fill_null(whole, False), values, 0.0), pa.int64())
        texts = pc.if_else(whole, pc.cast(number, pa.string()), pc.cast(values, pa.string()))  # 12, not 12.0
    elif pa.types.is_decimal(kind):
        texts = pc.replace_substring_regex(pc.cast(cells, pa.string()), r"\.0+$", "")
    elif pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or "view" in str(kind):
        texts = pc.cast(cells, pa.large_string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            texts = pc.cast(cells, pa.large_string())
        except pa.ArrowException:
            raise TypeError(str(kind)) from None
    else:
        raise TypeError(str(kind))
    return pd.Series(pc.fill_null(texts, "").to_pandas(), dtype="str")


def _csv(path: Path, content: bytes | None) -> tuple[list[str], list["pd.Series[str]"]]:
    """Read a CSV: the names in its first line, and the columns below it."""
    encoding, separator = dialect(path, content)
    raw = pd.read_csv(
        path if content is None else io.BytesIO(content),
        sep=separator,
        header=None,
        dtype=str,
        keep_default_na=False,
        encoding=encoding,
    ).fillna("")
    header = list(clean(raw.iloc[0].astype("str")))
    columns = [raw[place].iloc[1:].reset_index(drop=True) for place in raw]
    blank = functools.reduce(operator.and_, (column.str.strip().eq("") for column in columns))
    if blank.any():
        columns = [column[~blank].reset_index(drop=True) for column in columns]
    return header, columns


def _describe_error(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no UTF-8 text (save it as CSV UTF-8)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "nothing")
    return f"{type(error).__name__}: {first}"
