"""A table reads as what its author meant, whichever program wrote it, or is refused in one sentence."""

import datetime
import decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_rsna.common.tables import DIGITS, GivenTable, clean, clean_text, read_given


def read(path: Path) -> GivenTable:
    return read_given(path, "data.labels", "a table")


def texts(path: Path) -> dict[str, list[str]]:
    table = read(path)
    return {column: table.texts(column).tolist() for column in table.columns}


ROWS = [["ID", "Label"], ["001", "1"], ["x, y", "0"]]


@pytest.mark.parametrize(
    "content",
    [
        b'ID,Label\n001,1\n"x, y",0\n',
        b'\xef\xbb\xbfID,Label\r\n001,1\r\n"x, y",0\r\n',  # Excel's "CSV UTF-8"
        b"ID;Label\n001;1\nx, y;0\n;\n",  # a European Excel, with a row that was emptied
        b"ID\tLabel\n001\t1\nx, y\t0\n",
        "ID\tLabel\r\n001\t1\r\nx, y\t0\r\n".encode("utf-16"),  # Excel's "Unicode text"
        b' ID , Label\n"=""001""",1 \n"x, y", 0\n',
        '\u200bID,Label\n="001",\u00a01\n"\ufeffx, y",0\n'.encode(),
    ],
)
def test_the_same_table_of_any_program_reads_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    expected = {name: [row[at] for row in ROWS[1:]] for at, name in enumerate(ROWS[0])}
    assert texts(tmp_path / "table.csv") == expected
    table = read_given(tmp_path / "inside" / "an archive.csv", "data.labels", "a table", content)
    assert {name: table.texts(name).tolist() for name in table.columns} == expected


COLUMNS = {
    "whole numbers with a gap": (pd.array([1, None], dtype="Int64"), ["1", ""]),
    "whole numbers that a gap made floats": ([12.0, None], ["12", ""]),
    "half floats": (np.array([1, 0], np.float16), ["1", "0"]),
    "numbers that are not whole": ([1.0, 0.5], ["1", "0.5"]),
    "the largest whole number": (pd.array([2**64 - 1, None], dtype="UInt64"), [str(2**64 - 1), ""]),
    "booleans with a gap": (pd.array([True, None], dtype="boolean"), ["True", ""]),
    "booleans": ([True, False], ["True", "False"]),
    "texts": ([" a", None], ["a", ""]),
    "texts of numbers": (["1.0", "007"], ["1.0", "007"]),
    "categories": (pd.Categorical(["x", None]), ["x", ""]),
    "categories of numbers": (pd.Categorical([3, None]), ["3", ""]),
    "nothing": ([None, None], ["", ""]),
    "bytes": ([b"x", None], ["x", ""]),
    "decimals": ([decimal.Decimal("12.00"), None], ["12", ""]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_any_type_reads_as_what_it_is(tmp_path: Path, kind: str) -> None:
    cells, expected = COLUMNS[kind]
    pd.DataFrame({"x": cells}).to_parquet(tmp_path / "table.parquet")
    assert texts(tmp_path / "table.parquet") == {"x": expected}


def test_types_that_only_arrow_has_read_as_texts(tmp_path: Path) -> None:
    cells = {"view": pa.array(["a", None], pa.string_view()), "large": pa.array(["a", None], pa.large_string())}
    pq.write_table(pa.table({**cells, "dictionary": cells["large"].dictionary_encode()}), tmp_path / "table.parquet")
    assert texts(tmp_path / "table.parquet") == {name: ["a", ""] for name in (*cells, "dictionary")}


def test_a_boolean_column_of_labels_is_of_ones_and_zeros(tmp_path: Path) -> None:
    pd.DataFrame({"x": pd.array([True, False, None], dtype="boolean")}).to_parquet(tmp_path / "table.parquet")
    assert read(tmp_path / "table.parquet").texts("x", DIGITS).tolist() == ["1", "0", ""]


@pytest.mark.parametrize("cell", [datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1), [1], {"a": 1}, b"\xff"])
def test_a_column_of_neither_text_nor_numbers_is_refused_where_it_is_needed(tmp_path: Path, cell: object) -> None:
    pd.DataFrame({"x": [cell], "y": [1]}).to_parquet(tmp_path / "table.parquet")
    table = read(tmp_path / "table.parquet")
    assert table.texts("y").tolist() == ["1"]
    with pytest.raises(ValueError, match=r"^data\.labels: expected text or whole numbers in column x of .*; write it"):
        table.texts("x")


def test_a_column_is_found_but_for_case_blanks_and_punctuation(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image ID,id, LABEL ,Sop_Instance-UID,a,A\n1,2,3,4,5,6\n")
    table = read(tmp_path / "table.csv")
    assert [table.find(["image_id"]), table.find(["ID"]), table.find(["Label"])] == ["image ID", "id", "LABEL"]
    assert table.find(["nothing", "SOPInstanceUID"]) == "Sop_Instance-UID"
    assert (table.find(["a"]), table.find(["nothing"])) == ("a", None)
    with pytest.raises(ValueError, match=r"^data\.labels: expected one column _a in .*, got 'a' and 'A'; rename one$"):
        table.find(["_a"])


def test_two_columns_of_one_name_are_refused_where_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("ID,Label,Label \na,0,1\n")
    table = read(tmp_path / "table.csv")
    assert table.find(["ID"]) == "ID"
    with pytest.raises(ValueError, match=r"expected one column Label in .*, got 'Label' and 'Label'; rename one"):
        table.find(["Label"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "EmptyDataError"),
        ("a.csv", "ID\nM\xfcller\n".encode("latin-1"), r"bytes that are no UTF-8 text \(save it as CSV UTF-8\)"),
        ("a.csv", b"a,b\n1,2,3\n", "ParserError"),
        ("a.xlsx", b"PK\x03\x04\xff\xfe\x00", "bytes that are no UTF-8 text"),
        ("a.csv.gz", b"no archive", "Not a gzipped file"),
        ("a.parquet", b"no table", "ArrowInvalid"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"^data\.labels: expected a table at .*{name}, got .*; give the whole file$"
    ) as no:
        read(tmp_path / name)
    assert "\n" not in str(no.value)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize("text", ["a", "  a\u00a0", "\ufeffa", '="a"', '=" a "', "\u200ba\u200b", "", '="', "a b"])
def test_one_cell_and_a_column_are_cleaned_alike(text: str) -> None:
    assert clean(pd.Series([text], dtype="str")).iloc[0] == clean_text(text)
