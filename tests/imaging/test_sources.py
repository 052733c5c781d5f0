"""Every file of a folder, an archive or a list is in the list of inputs, and reads as its bytes or a named rejection."""

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from few_files import CONTENTS, read, zipped

from fl_rsna.imaging import sources as files
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.imaging.sources import find_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


def test_a_folder_is_all_its_files_sorted_by_name(folder: Path) -> None:
    assert read(find_files(folder)) == CONTENTS
    assert [file.name for file in find_files(folder)] == sorted(CONTENTS)
    assert [file.size for file in find_files(folder)] == [len(CONTENTS[name]) for name in sorted(CONTENTS)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_the_same_files_in_the_same_order(folder: Path, tmp_path: Path, method: int) -> None:
    found = find_files(zipped(tmp_path / "all.zip", method))
    assert read(found) == CONTENTS
    assert [(file.name, file.size) for file in found] == [(file.name, file.size) for file in find_files(folder)]


def test_a_list_keeps_its_order_and_what_it_names_twice(folder: Path) -> None:
    names = ["b/c", "a", "b/c", "nowhere", "../folder/a", str(folder / "a")]
    pd.DataFrame({"path": names, "site": list("nsnsns")}).to_csv(folder / "list.csv", index=False)
    found = find_files(folder / "list.csv")
    assert [(file.name, file.origin) for file in found] == list(zip(names, "nsnsns", strict=True))
    a, c = CONTENTS["a"], CONTENTS["b/c"]
    expected = {"b/c": c, "a": a, "nowhere": Reason.unreadable, "../folder/a": a, str(folder / "a"): a}
    assert read(found) == expected


@pytest.mark.parametrize("column", ["path", "file", "filename"])
@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.parquet"])
def test_a_list_may_be_any_table(folder: Path, name: str, column: str) -> None:
    table = pd.DataFrame({"number": [1, 2], column: ["a", "ü z"]})
    table.to_parquet(folder / name) if name.endswith("parquet") else table.to_csv(folder / name, index=False)
    assert read(find_files(folder / name)) == {"a": CONTENTS["a"], "ü z": CONTENTS["ü z"]}


def test_an_empty_cell_of_a_list_is_a_named_row(folder: Path) -> None:
    pd.DataFrame({"path": ["a", None, "a\0b"], "site": [None, "n", "n"]}).to_parquet(folder / "list.parquet")
    found = find_files(folder / "list.parquet")
    assert read(found) == {"a": CONTENTS["a"], "": Reason.unreadable, "a\0b": Reason.unreadable}
    assert [file.origin for file in found] == ["", "n", "n"]


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        (pd.array([1, None], dtype="Int64"), ["1", ""]),
        (pd.array([True, None], dtype="boolean"), ["True", ""]),
        ([2.0, None], ["2", ""]),
        (pd.Categorical(["n", None]), ["n", ""]),
        ([" n ", "<NA>"], ["n", "<NA>"]),
    ],
)
def test_a_missing_site_of_any_type_is_no_site(folder: Path, sites: Any, expected: list[str]) -> None:
    pd.DataFrame({"path": ["a", "b/c"], "site": sites}).to_parquet(folder / "list.parquet")
    assert [file.origin for file in find_files(folder / "list.parquet")] == expected


def test_sites_that_are_neither_text_nor_numbers_are_refused(folder: Path) -> None:
    pd.DataFrame({"path": ["a"], "site": [pd.Timestamp("2020-01-01")]}).to_parquet(folder / "list.parquet")
    assert "expected text or whole numbers in column site of" in refused(folder / "list.parquet")


@pytest.mark.parametrize(
    "text", ["Path;Site\na;n\nb\\c;n\n", "\ufeff path ,SITE\n a , n\nb/c ,n\n", "file_name,site\n"]
)
def test_a_list_of_another_program_is_read(folder: Path, text: str) -> None:
    (folder / "list.csv").write_text(text)
    if "_" in text:
        assert "found no file at all" in refused(folder / "list.csv")
        return
    found = find_files(folder / "list.csv")
    assert [(file.name, file.origin, file.size) for file in found] == [("a", "n", 1000), ("b/c", "n", 10240)]


def test_a_name_with_blanks_around_it_is_that_file(folder: Path) -> None:
    (folder / " a").write_bytes(b"another")
    (folder / "list.csv").write_text("path\n a\n")
    assert read(find_files(folder / "list.csv")) == {" a": b"another"}


def as_folder(folder: Path) -> Path:
    return folder


def as_archive(folder: Path) -> Path:
    return zipped(folder.with_name("all.zip"))


def as_list(folder: Path) -> Path:
    pd.DataFrame({"path": sorted(CONTENTS)}).to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"


@pytest.mark.parametrize("source", [as_folder, as_archive, as_list])
def test_a_relative_path_is_read_from_anywhere_and_names_stay_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[Path], Path]
) -> None:
    """Workers on other machines stand elsewhere; what is written must not say where the files lay."""
    dicom = source(folder)
    (folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(folder.parent)
    relative = find_files(dicom.relative_to(folder.parent))
    absolute = find_files(dicom)
    monkeypatch.chdir("elsewhere")
    assert read(relative) == CONTENTS
    assert [file.name for file in relative] == [file.name for file in absolute] == sorted(CONTENTS)


def test_what_is_no_regular_file_is_a_row_and_nobody_waits_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "device").symlink_to("/dev/zero")
    found = read(find_files(folder))
    assert found == {**CONTENTS, **dict.fromkeys(["pipe", "dangling", "loop", "device"], Reason.unreadable)}


def test_links_to_folders_are_followed_once_and_to_files_each_time(folder: Path, tmp_path: Path) -> None:
    (folder / "b" / "up").symlink_to(folder)
    (folder / "again").symlink_to(folder / "b")
    (folder / "same").symlink_to(folder / "a")
    found = find_files(folder)
    assert sorted(read(found).values()) == sorted([*CONTENTS.values(), CONTENTS["a"]])


def test_a_name_in_another_encoding_is_read_and_can_be_written(folder: Path) -> None:
    with open(os.path.join(os.fsencode(folder), b"M\xfcller\nx"), "wb") as stream:
        stream.write(b"x")
    (name,) = set(read(find_files(folder))) - set(CONTENTS)
    assert name.encode() == b"M\\xfcller\nx"
    assert read(find_files(folder))[name] == b"x"


def test_a_file_that_is_gone_since_it_was_listed_is_a_row(folder: Path) -> None:
    found = find_files(folder)
    (folder / "a").unlink()
    assert read(found) == {**CONTENTS, "a": Reason.unreadable}


def test_a_file_too_large_is_not_even_opened(folder: Path) -> None:
    with open(folder / "a", "r+b") as stream:
        stream.truncate(files.MAX_BYTES + 1)  # no byte on the disk
    assert read(find_files(folder)) == {**CONTENTS, "a": Reason.too_large}


def refused(dicom: Path) -> str:
    with pytest.raises(ValueError, match=r"^data\.dicom: expected ") as caught:
        find_files(dicom)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_input_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "which does not exist" in refused(tmp_path / "nowhere")
    assert "which is none of them" in refused(folder / "a")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    assert "found no file at all" in refused(tmp_path / "empty")
    whole = zipped(tmp_path / "all.zip").read_bytes()
    for name, content in {"cut": whole[:-30], "half": whole[: len(whole) // 2], "text": b"none"}.items():
        (tmp_path / f"{name}.zip").write_bytes(content)
        assert "which is damaged" in refused(tmp_path / f"{name}.zip")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", b""),
        ("list.csv", b"number\n1\n"),
        ("list.csv", b'path\n"a\n'),
        ("list.csv", "path\nü\n".encode("latin-1")),
        ("list.csv.gz", b"path\na\n"),
        ("list.csv.gz", gzip.compress(b"path\n" + b"a\n" * 999, mtime=0)[:-9]),
        ("list.parquet", b"PAR1 none PAR1"),
        ("list.csv", b"path\n"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refused(tmp_path / name)
