"""Find and read the input files: a folder tree, a zip archive read in place, or a list of files."""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isal import igzip_lib, isal_zlib

from fl_rsna.common.tables import read_given
from fl_rsna.imaging.dicom.rejections import Reason, Rejected

MAX_BYTES = 1 << 30
LOCAL_HEADER = 30  # bytes of a zip member's own header before its name and extra field
PATH_COLUMNS = ("path", "file", "filename")
LISTS = (".csv", ".csv.gz", ".parquet")
UNREAD = -1  # instead of a checksum, when the bytes could not be read


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a file inside a zip archive, and how it is packed."""

    offset: int  # of its local header, in bytes
    packed: int  # bytes in the archive
    method: int
    checksum: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class File:
    """One input file.

    `name` is relative to the input and is written to rejected.csv. `path` is the absolute path of the file or of its
    archive, because other processes and machines have other working directories. `size` is unpacked bytes, -1 when
    unknown. `origin` is the site that a list names for the file, or empty. `stamp` is when the file and its entry last
    changed, in ns, or the checksum of a zip member; empty when unknown. Two files of one name with the same `size` and
    `stamp` hold the same bytes. `known` is the CRC-32 of the bytes at an earlier conversion where only the stamp has
    changed since; UNREAD otherwise.
    """

    name: str
    path: str
    size: int
    member: Member | None = None
    origin: str = ""
    stamp: str = ""
    known: int = UNREAD


def find_files(dicom: Path) -> list[File]:
    """List every file of a folder tree, a zip archive or a list, sorted by name (a list keeps its order).

    Entries that cannot be read, such as a pipe or a dangling link, are listed, too, so that each gets its row in
    rejected.csv. A list is a CSV or Parquet table with a column `path`, relative to the list, and optionally `site`.
    Raises ValueError when there is nothing to read.
    """
    if dicom.is_dir():
        files = sorted(_walk_folder(dicom.absolute()), key=lambda file: file.name)
    elif dicom.name.lower().endswith(LISTS):
        files = _read_file_list(dicom)
    elif dicom.is_file() and (zipfile.is_zipfile(dicom) or dicom.suffix.lower() == ".zip"):
        files = sorted(_list_members(dicom), key=lambda file: file.name)
    else:
        raise ValueError(
            f"data.dicom: expected a folder, a zip archive or a CSV or Parquet list of files, got {dicom}, "
            f"{'which is none of them' if dicom.exists() else 'which does not exist'}"
        )
    if not files:
        raise ValueError(f"data.dicom: expected DICOM files in {dicom}, found no file at all")
    return files


def read_file(file: File) -> bytes:
    """Read a file's bytes; raises `Rejected` when they cannot be read or are more than MAX_BYTES."""
    if file.size > MAX_BYTES:
        raise Rejected(Reason.too_large, "", f"{file.size} bytes")
    try:
        if file.member is not None:
            return _unpack_member(file.path, file.member, file.size)
        if file.size <= 0 and not stat.S_ISREG(os.stat(file.path).st_mode):  # a pipe or device might never end
            raise Rejected(Reason.unreadable, "", "not a regular file, or a folder that cannot be listed")
        with open(file.path, "rb", buffering=0) as stream:
            return stream.read()
    except (OSError, ValueError, igzip_lib.IsalError) as error:  # type: ignore[misc]  # the stub lacks its base class
        raise Rejected(Reason.unreadable, "", getattr(error, "strerror", None) or str(error)) from None


def checksum_of(file: File, data: bytes) -> int:
    """Return the CRC-32 of the bytes `data` of a file; a zip archive states that of its members."""
    return int(isal_zlib.crc32(data)) if file.member is None else file.member.checksum


def _walk_folder(dicom: Path) -> Iterator[File]:
    """Yield every file below a folder, visiting a folder once however many links lead to it.

    Folders that cannot be listed follow with size -1.
    """
    walked: set[str] = set()
    unlistable: list[OSError] = []
    for root, folders, names in os.walk(dicom, followlinks=True, onerror=unlistable.append):
        folders.sort()
        if os.path.realpath(root) in walked:  # a link back, or a second way to the same files
            folders.clear()
            continue
        walked.add(os.path.realpath(root))
        for path in (os.path.join(root, name) for name in names):
            size, stamp = _read_size_and_stamp(path)
            yield File(_printable(os.path.relpath(path, dicom)), path, size, stamp=stamp)
    for error in unlistable:
        yield File(_printable(os.path.relpath(error.filename, dicom)), error.filename, -1)


def _printable(path: str) -> str:
    """Turn a path into text that a table can hold; names in another encoding than UTF-8 get escapes."""
    return os.fsencode(path.replace(os.sep, "/")).decode("utf-8", "backslashreplace")


def _read_size_and_stamp(path: str) -> tuple[int, str]:
    """Return the size in bytes of what lies at a path (0 for pipes and devices, -1 for nothing), and its stamp.

    The stamp has the time of the entry, which the system sets, because a copy may keep its old modification time.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: no path at all, such as one with a zero byte
        return -1, ""
    return found.st_size if stat.S_ISREG(found.st_mode) else 0, f"{found.st_mtime_ns} {found.st_ctime_ns}"


def _list_members(dicom: Path) -> Iterator[File]:
    """Yield the files of a zip archive."""
    try:
        with zipfile.ZipFile(dicom) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except Exception as error:  # zipfile raises many kinds on damaged archives
        raise ValueError(f"data.dicom: expected a whole zip archive, got {dicom}, which is damaged: {error}") from None
    for info in infos:
        encrypted = bool(info.flag_bits & 1)
        member = Member(info.header_offset, info.compress_size, info.compress_type, info.CRC, encrypted)
        yield File(info.filename, str(dicom.absolute()), info.file_size, member, stamp=f"crc {info.CRC:08x}")


def _unpack_member(path: str, member: Member, size: int) -> bytes:
    """Read a member's bytes at its offset, so that no worker has to hold the archive's directory.

    Raises `Rejected` for a member that is encrypted, packed by an unknown method or damaged.
    """
    if member.encrypted or member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        kind = "encrypted" if member.encrypted else f"packed by method {member.method}"
        raise Rejected(Reason.unreadable, "", f"{kind}; pack it as stored or deflated, without a password")
    with open(path, "rb") as stream:
        if not 0 <= member.offset <= member.offset + member.packed <= os.fstat(stream.fileno()).st_size:
            raise Rejected(Reason.unreadable, "", "the zip member ends beyond the archive")
        stream.seek(member.offset)
        header = stream.read(LOCAL_HEADER)
        if header[:4] != b"PK\x03\x04":
            raise Rejected(Reason.unreadable, "", "no zip member where the archive's directory says")
        skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        stream.seek(member.offset + LOCAL_HEADER + skipped)
        packed = stream.read(member.packed)
    stored = member.method == zipfile.ZIP_STORED
    data = packed if stored else isal_zlib.decompressobj(wbits=-15).decompress(packed, size + 1)
    if len(data) != size or isal_zlib.crc32(data) != member.checksum:
        raise Rejected(Reason.unreadable, "", "the zip member's bytes do not fit its length and checksum")
    return data


def _read_file_list(table: Path) -> list[File]:
    """Read a CSV or Parquet list of files; raises ValueError without a column of paths."""
    rows = read_given(table, "data.dicom", "a CSV or Parquet list of files")
    column, of_site = rows.find(PATH_COLUMNS), rows.find(["site"])
    if column is None:
        raise ValueError(
            f"data.dicom: expected a column {' or '.join(PATH_COLUMNS)} in {table}, got {', '.join(list(rows.columns)[:8])}; "
            "call the column of paths path"
        )
    sites = [""] * len(rows) if of_site is None else rows.texts(of_site)
    given = zip(rows.as_written(column), rows.texts(column), sites, strict=True)
    return [_locate_file(table.parent.absolute(), written, plain, site) for written, plain, site in given]


def _locate_file(folder: Path, written: str, plain: str, site: str) -> File:
    """Find the file of a row: as it is written, else without blanks around it, else with / for a backslash."""
    for name in (written, plain, plain.replace("\\", "/")):
        path = os.path.join(folder, name)
        size, stamp = _read_size_and_stamp(path)
        if size >= 0:
            return File(name, path, size, None, site, stamp)
    return File(written, os.path.join(folder, written), -1, None, site)
