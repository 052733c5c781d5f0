"""A zip archive is read in place; a member that is damaged or unusual is a row, and the others are read."""

import struct
import zipfile
from pathlib import Path

import pytest
from few_files import CONTENTS, read, zipped

from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.sources import find_files, read_file


def edited(path: Path, at: int, value: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(bytes(data))


def directory_entry(path: Path, name: str) -> int:
    """Where an archive's directory speaks of a member (APPNOTE 4.3.12)."""
    data, end = path.read_bytes(), 46
    at = data.index(b"PK\x01\x02")
    while data[at + end : at + end + len(name.encode())] != name.encode():
        at = data.index(b"PK\x01\x02", at + 1)
    return at


MEMBER_DAMAGE = {  # what is written at which place of the directory's entry of `a`
    "encrypted": (8, struct.pack("<H", 1)),
    "packed by LZMA": (10, struct.pack("<H", zipfile.ZIP_LZMA)),
    "packed by Deflate64": (10, struct.pack("<H", 9)),
    "packed by a number nobody knows": (10, struct.pack("<H", 12345)),
    "another checksum": (16, b"\1\2\3\4"),
    "shorter than packed": (20, struct.pack("<I", 3)),
    "ends beyond the archive": (20, struct.pack("<I", 1 << 28)),
    "shorter than it was": (24, struct.pack("<I", 999)),
    "longer than it was": (24, struct.pack("<I", 1001)),
    "far longer than it was": (24, struct.pack("<I", 1 << 29)),
    "begins elsewhere": (42, struct.pack("<I", 7)),
}


@pytest.mark.parametrize("damage", list(MEMBER_DAMAGE))
def test_a_damaged_member_is_a_row_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    path = zipped(tmp_path / "all.zip")
    offset, value = MEMBER_DAMAGE[damage]
    edited(path, directory_entry(path, "a") + offset, value)
    assert read(find_files(path)) == {**CONTENTS, "a": Reason.unreadable}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_bit_of_a_member_is_enough(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "all.zip", method)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("b/c").header_offset + 30 + len("b/c") + 50
    edited(path, at, bytes([path.read_bytes()[at] ^ 16]))
    assert read(find_files(path)) == {**CONTENTS, "b/c": Reason.unreadable}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_packed_in_another_way_is_a_row_that_says_what_to_do(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "all.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("packed", b"x" * 1000, method)
    found = {file.name: file for file in find_files(path)}
    with pytest.raises(Rejected, match="pack it as stored or deflated") as caught:
        read_file(found["packed"])
    assert caught.value.reason is Reason.unreadable


def test_an_archive_inside_an_archive_is_one_file(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("deep/inner.zip", inner)
        archive.writestr("one", b"1")
    assert read(find_files(tmp_path / "outer.zip")) == {"deep/inner.zip": inner, "one": b"1"}


def test_a_member_written_in_one_stream_is_read(tmp_path: Path) -> None:
    """Then its own header does not know its length, and the directory does."""
    with open(tmp_path / "all.zip", "wb") as plain, zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        plain.seekable = lambda: False  # type: ignore[method-assign]
        with archive.open("a", "w", force_zip64=True) as member:
            member.write(CONTENTS["a"])
    assert read(find_files(tmp_path / "all.zip")) == {"a": CONTENTS["a"]}


def test_one_name_twice_is_two_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    assert [read_file(file) for file in find_files(tmp_path / "all.zip")] == [b"1", b"2"]
