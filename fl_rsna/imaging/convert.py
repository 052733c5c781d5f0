"""Convert one file to one PNG and the facts about it; imaging/workers.py shares this work among processes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from fl_rsna.imaging.dicom.film_header import FilmHeader
from fl_rsna.imaging.dicom.header import Header
from fl_rsna.imaging.dicom.hounsfield import Rescale, to_hu16
from fl_rsna.imaging.dicom.plausible import check_slice
from fl_rsna.imaging.dicom.radiograph import Presentation, to_grey16
from fl_rsna.imaging.dicom.reader import Film, Slice, read_image
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.png_store import encode_png, render
from fl_rsna.imaging.sources import UNREAD, File, checksum_of, read_file
from fl_rsna.imaging.statistics import FilmStatistics, Statistics, film_statistics, statistics
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Rendering

ISSUER, OF_PATIENT = "issuer", ("local_id", "placeholder")  # prepare makes OF_PATIENT of issuer and patient_id
FILE_CPU_S = 10.0  # a file that takes more processor time ends its process and is rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The settings that all files of one preparation share.

    PNGs lie in `incoming` until they get their final names. `kind` is one of `kinds_of(rendering)`; `size` is pixels a
    side; `file_cpu_s` is the processor time that one file may take, in seconds.
    """

    incoming: Path
    rendering: Rendering
    modalities: tuple[str, ...]
    kind: ImageKind
    size: int
    file_cpu_s: float = FILE_CPU_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A slice or film whose PNG lies at `incoming`/`written`; `checksum` is the CRC-32 of the bytes that were converted."""

    header: Header | FilmHeader
    statistics: Statistics | FilmStatistics
    png_sha256: str
    png_bytes: int
    written: str
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file that gave no image, and the reason."""

    path: str  # the file's name in the input
    image_id: str  # empty when the file did not say
    reason: Reason
    tag: str
    detail: str
    checksum: int = UNREAD  # of the file's bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """A file that still has the bytes of its earlier conversion, so that what they gave then is still right."""

    path: str
    checksum: int


Result = Converted | Refused | Unchanged


def facts_of_a_file(rendering: Rendering) -> frozenset[str]:
    """Return the names of the index's columns that one file gives by itself: from its header, its pixels and its PNG."""
    match rendering:
        case Rendering.hounsfield:
            return frozenset((*Header.__slots__, *Statistics.__slots__, *OF_PATIENT, "png_sha256")) - {ISSUER}
        case Rendering.radiograph:
            return frozenset((*FilmHeader.__slots__, *FilmStatistics.__slots__, *OF_PATIENT, "png_sha256")) - {ISSUER}


def convert_files(work: Conversion, first: int, files: Sequence[File]) -> list[Result]:
    """Convert consecutive files; `first` is the number of the first one. Raises OSError when a PNG cannot be written."""
    return [_convert(work, first + place, file) for place, file in enumerate(files)]


def build_crash_refusal(work: Conversion, file: File) -> Refused:
    """Build the refusal of a file that ended the process that read it."""
    detail = f"the process reading it ended, or took more than {work.file_cpu_s:g} s of processor time"
    return Refused(path=file.name, image_id="", reason=Reason.crashed, tag="", detail=detail)


def _convert(work: Conversion, number: int, file: File) -> Result:
    """Convert one file; a file that cannot become an image gives a `Refused`."""
    checksum = UNREAD
    try:
        data = read_file(file)
        checksum = checksum_of(file, data)
        if checksum == file.known:
            return Unchanged(path=file.name, checksum=checksum)
        image = read_image(data, rendering=work.rendering, modalities=work.modalities)
        return _write_image(work, number, image, checksum)
    except Rejected as why:
        return Refused(
            path=file.name, image_id="", reason=why.reason, tag=why.tag, detail=why.detail, checksum=checksum
        )
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        detail = "needs more memory than an image can"
        return Refused(path=file.name, image_id="", reason=Reason.too_large, tag="", detail=detail, checksum=checksum)


def _write_image(work: Conversion, number: int, image: Slice | Film, checksum: int) -> Converted:
    """Write the PNG of a slice or film and collect its facts; raises `Rejected` for a slice that cannot be true."""
    meaning: Rescale | Presentation
    facts: Statistics | FilmStatistics
    match image:
        case Slice(stored=stored, rescale=meaning):
            plane = to_hu16(stored, meaning)
            facts = statistics(plane, stored, meaning)
            check_slice(plane, stored, meaning, facts.hu_max - facts.hu_min)
        case Film(stored=stored, presentation=meaning):
            plane = to_grey16(stored, meaning)
            facts = film_statistics(plane, stored, meaning)
    png = encode_png(render(stored, meaning, kind=work.kind, size=work.size, plane=plane))
    written = f"{number}-{os.getpid()}.png"
    _write(f"{work.incoming}{os.sep}{written}", png)
    return Converted(
        header=image.header,
        statistics=facts,
        png_sha256=hashlib.sha256(png).hexdigest()[:16],
        png_bytes=len(png),
        written=written,
        checksum=checksum,
    )


def _write(path: str, content: bytes) -> None:
    """Write a new file with the three system calls that it needs; pathlib makes more, which cost some 40 us a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        left = memoryview(content)
        while left:  # a nearly full disk takes a part of it, and then raises OSError
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)
