"""Read one DICOM file into stored values and what they mean, or reject it with the tag that decided.

No other module imports pydicom. A file that ends with uncompressed pixels is read plainly, which is fast; any other
file is read thoroughly. The codestream of a compressed file is examined before it is decoded: decoders take memory for
the shape that it states, whatever Rows and Columns say, and fill in silence what is missing at its end. Markers: ITU-T
T.81 B.1 (JPEG), T.87 C (JPEG-LS), T.800 A.2 (JPEG 2000).
"""

import io
import logging
import re
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import data_element_generator
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fl_rsna.imaging.dicom.film_header import (
    CODE,
    POSITION,
    FilmHeader,
    ViewCode,
    check_film,
    frontal_view,
    read_film_header,
    read_presentation,
)
from fl_rsna.imaging.dicom.header import MAX_SIDE, Header, check_grey, check_kind, read_header, read_rescale
from fl_rsna.imaging.dicom.hounsfield import Rescale
from fl_rsna.imaging.dicom.lut import Lut, read_lut
from fl_rsna.imaging.dicom.padding import Stored, read_padding
from fl_rsna.imaging.dicom.plausible import settle, settle_film
from fl_rsna.imaging.dicom.radiograph import Presentation
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import TAGS, Tags
from fl_rsna.task import Rendering

JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"  # the first bytes of a codestream
END = b"\xff\xd9"
PADDING = 16  # bytes that writers add after the end marker, with some to spare
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # markers whose segment states the shape
ITEM = b"\xfe\xff\x00\xe0"  # the tag that an item begins with
INFLATED_BYTES = 4 * MAX_SIDE**2  # of a deflated file: the largest pixels and as much again
Grey = Stored | NDArray[np.uint8]
PIXELS, META_LENGTH = 0x7FE00010, 0x00020000
PIXELS_TAG, END_OF_ITEM = b"\xe0\x7f\x10\x00", b"\xfe\xff\x0d\xe0"  # little endian
DEFLATED = str(DeflatedExplicitVRLittleEndian)
IMPLICIT_VR = {str(ImplicitVRLittleEndian): True, str(ExplicitVRLittleEndian): False, DEFLATED: False}


def check_codestream(stream: bytes, rows: int, columns: int) -> None:
    """Raise `Rejected` for a codestream of another shape or without its end marker.

    Only JPEG, JPEG-LS and JPEG 2000 are examined; others, such as run lengths, pass.
    """
    shape = _parse_shape(stream)
    if shape is None:
        return
    if shape != (rows, columns):
        detail = f"{rows} x {columns}, but the compressed image is {shape[0]} x {shape[1]}"
        raise Rejected(Reason.undecodable, "Rows", detail)
    if END not in stream[-len(END) - PADDING :]:
        raise Rejected(Reason.truncated_pixels, "PixelData", "the compressed image has no end")


def _parse_shape(stream: bytes) -> tuple[int, int] | None:
    """Parse the rows and columns that a codestream states; 0, 0 when it states none, None for another kind of codestream."""
    if stream.startswith(JPEG_2000):
        right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    if not stream.startswith(JPEG):
        return None
    at = len(JPEG)
    while stream[at : at + 1] == b"\xff" and at + 9 <= len(stream):
        if stream[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        if stream[at + 1] in FRAMES:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0, 0


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """The place of uncompressed 16-bit little-endian values in a file's bytes `data`: `length` bytes from `at` on."""

    data: bytes
    at: int
    length: int


def require_plain(condition: bool) -> None:
    """Raise ValueError unless `condition` holds, for a file that must be read thoroughly."""
    if not condition:
        raise ValueError("not plain")


def not_plain(tag: int) -> Any:
    """Raise ValueError for a tag whose value only the thorough reading can convert."""
    raise ValueError(f"{tag:08x} is not plain")


def inflate(packed: bytes) -> bytes:
    """Inflate deflated bytes (PS3.5 A.5); raises `Rejected` for more than INFLATED_BYTES, which a small file can pack.

    Raises ValueError where the stream does not end.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(packed, INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise Rejected(Reason.too_large, "", f"inflates to more than {INFLATED_BYTES} bytes")
    require_plain(inflater.eof)
    return data


def check_length(length: int, rows: int, columns: int, size: int, beginning: bytes) -> None:
    """Raise `Rejected` where `length` bytes do not fit rows x columns values of `size` bytes.

    Less than a row or column beyond that is padding. `beginning` holds the first four bytes: compressed pixels are
    items (PS3.5 A.4), whatever the transfer syntax says.
    """
    expected = rows * columns * size
    if beginning == ITEM and length != expected:
        detail = "pixels are compressed, but the transfer syntax states that they are not"
        raise Rejected(Reason.undecodable, "TransferSyntaxUID", detail)
    if length < expected:
        raise Rejected(Reason.truncated_pixels, "PixelData", f"{length} bytes, expected {expected}")
    if length - expected - expected % 2 >= min(rows, columns) * size:
        raise Rejected(Reason.excess_pixels, "PixelData", f"{length} bytes, expected {expected}")


pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # RSNA's ids are not valid UI values
warnings.filterwarnings(
    "ignore", module=r"pydicom\."
)  # an odd file gives a row in rejected.csv, not lines on the screen
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One axial slice: `stored` [rows, columns] int16 or uint16, which `rescale` turns into HU."""

    header: Header
    stored: Stored
    rescale: Rescale


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One radiograph: `stored` [rows, columns] int16 or uint16, which `presentation` turns into grey."""

    header: FilmHeader
    stored: Stored
    presentation: Presentation


Read = TypeVar("Read", Slice, Film)


def read_image(data: bytes, *, rendering: Rendering, modalities: Sequence[str]) -> Slice | Film:
    """Read the image that a task of this rendering learns from; raises `Rejected` for anything else."""
    match rendering:
        case Rendering.hounsfield:
            return read_slice(data, modalities=modalities)
        case Rendering.radiograph:
            return read_film(data, modalities=modalities)


def read_slice(data: bytes, *, modalities: Sequence[str], thorough: bool = False) -> Slice:
    """Read one single-frame grey image of one of `modalities`, which has Hounsfield units, from a file's bytes.

    `thorough` leaves out the fast reading of plain files; the result is the same. Raises `Rejected` for anything else,
    and no other error but MemoryError.
    """
    return _read(data, partial(_build_slice, modalities), thorough)


def read_film(data: bytes, *, modalities: Sequence[str], thorough: bool = False) -> Film:
    """Read one frontal chest film of one of `modalities` from a file's bytes.

    `thorough` leaves out the fast reading of plain files; the result is the same. Raises `Rejected` for anything else,
    and no other error but MemoryError.
    """
    return _read(data, partial(_build_film, modalities), thorough)


def read_image_id(data: bytes) -> str:
    """Read a file's SOPInstanceUID, whatever the file shows; empty where it has none or cannot be read. No pixel is decoded."""
    if data[128:132] != b"DICM":
        return ""
    try:
        try:
            tags, _, _ = _read_plain(data)
        except Rejected:  # it inflates to too much
            return ""
        except Exception:  # an unusual file makes the parser raise many kinds
            ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            tags = _wrap_tags(ds)
        return tags.text("SOPInstanceUID")
    except Exception:  # pydicom raises many kinds on damaged files
        return ""


def _read(data: bytes, build: Callable[[Tags, Tags, PlainPixels | Dataset], Read], thorough: bool) -> Read:
    """Read a file, plainly if it can be, and build its image; every error but MemoryError becomes `Rejected`."""
    if not data:
        raise Rejected(Reason.empty_file, "", "0 bytes")
    if data[128:132] != b"DICM":
        raise Rejected(Reason.not_dicom, "", "no DICM prefix at byte 128")
    try:
        if thorough:
            return build(*_read_thoroughly(data))
        try:
            return build(*_read_plain(data))
        except Rejected:
            raise
        except Exception:  # an unusual file makes the parser raise many kinds
            return build(*_read_thoroughly(data))
    except (Rejected, MemoryError):
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise Rejected(Reason.bad_header, "", _describe_error(error)) from None


def write_slice(path: Path, stored: Grey, tags: Mapping[str, object], *, sop_class: str = CTImageStorage) -> None:
    """Write `stored` [rows, columns] as explicit VR little endian with `tags` by DICOM keyword.

    The value of a sequence is a list of mappings. The same input gives the same bytes.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")  # RSNA's ids are no UIDs; the data set holds the real one
    for keyword, value in tags.items():
        ds.add(_build_element(keyword, value))
    ds.Rows, ds.Columns = stored.shape
    ds.PixelData = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    ds.save_as(path, enforce_file_format=True)


def _build_element(keyword: str, value: Any) -> pydicom.DataElement:
    """Build a data element by keyword; the value of a sequence is a list of mappings."""
    vr = pydicom.datadict.dictionary_VR(keyword)
    if vr == "SQ":
        items = [Dataset() for _ in value]
        for item, content in zip(items, value, strict=True):
            for name, held in content.items():
                item.add(_build_element(name, held))
        value = items
    return pydicom.DataElement(keyword, vr, value, validation_mode=pydicom.config.IGNORE)


def _build_slice(modalities: Sequence[str], tags: Tags, meta: Tags, pixels: PlainPixels | Dataset) -> Slice:
    """Build a slice from tags, meta tags and pixels; raises `Rejected` for what is no measured axial slice."""
    syntax = _read_syntax(meta)
    check_kind(tags, meta, modalities)
    _check_pixels(tags, pixels)
    rescale = read_rescale(tags)
    header = read_header(tags, rescale, syntax)
    stored = _read_stored_values(pixels, header, tags)
    padding = read_padding(tags, header.bits_stored, header.signed)
    if isinstance(pixels, Dataset):
        rescale = replace(rescale, bits_stored=16)  # decoders return whole values, without unused bits
    stored, rescale = settle(stored, rescale, header.bits_stored, padding)
    return Slice(header=header, stored=stored, rescale=rescale)


def _build_film(modalities: Sequence[str], tags: Tags, meta: Tags, pixels: PlainPixels | Dataset) -> Film:
    """Build a film from tags, meta tags and pixels; raises `Rejected` for what is no frontal chest film."""
    syntax = _read_syntax(meta)
    check_film(tags, meta, modalities)
    view = frontal_view(tags.text(POSITION), _read_view_code(tags))
    _check_pixels(tags, pixels)
    shown = read_presentation(
        tags, _read_table(tags, "ModalityLUTSequence", syntax), _read_table(tags, "VOILUTSequence", syntax)
    )
    header = read_film_header(tags, view, shown, syntax)
    stored = _read_stored_values(pixels, header, tags)
    padding = read_padding(tags, header.bits_stored, header.signed)
    if isinstance(pixels, Dataset):
        shown = replace(shown, value_bits=16)
    stored, shown = settle_film(stored, shown, padding)
    header = replace(header, voi=shown.voi.value)  # a window that shows one grey has been dropped
    return Film(header=header, stored=stored, presentation=shown)


def _read_syntax(meta: Tags) -> str:
    """Read TransferSyntaxUID; raises `Rejected` without it."""
    syntax = meta.text("TransferSyntaxUID")
    if not syntax:
        raise Rejected(Reason.no_meta_header, "TransferSyntaxUID", "missing")
    return syntax


def _check_pixels(tags: Tags, pixels: PlainPixels | Dataset) -> None:
    """Raise `Rejected` for a file without pixels or with pixels in colour."""
    if isinstance(pixels, Dataset) and "PixelData" not in pixels:
        raise Rejected(Reason.no_pixels, "PixelData", "missing")
    check_grey(tags)


def _read_stored_values(pixels: PlainPixels | Dataset, header: Header | FilmHeader, tags: Tags) -> Stored:
    """Read the stored values [rows, columns]; raises `Rejected` where the pixels do not fit the header."""
    kind = np.int16 if header.signed else np.uint16
    if isinstance(pixels, Dataset):
        values = _decode_pixels(pixels, header, tags.integer("BitsAllocated") or 0).astype(kind, copy=False)
    else:
        beginning = pixels.data[pixels.at : pixels.at + 4]
        check_length(pixels.length, header.rows, header.columns, 2, beginning)
        flat = np.frombuffer(pixels.data, kind, header.rows * header.columns, pixels.at)
        values = flat.reshape(header.rows, header.columns)
    return cast(Stored, values)


def _read_view_code(tags: Tags) -> ViewCode | None:
    """Read the first item of the View Code Sequence; the plain reading has no sequences and raises ValueError."""
    items = tags.convert_value(CODE) if CODE in tags else None
    if not items:
        return None
    words = [str(items[0].get(name) or "").strip() for name in ("CodeValue", "CodeMeaning")]
    return ViewCode(*words) if any(words) else None


def _read_table(tags: Tags, keyword: str, syntax: str) -> Lut | None:
    """Read the table of a sequence's first item; None without one. The plain reading has no sequences and raises ValueError."""
    items = tags.convert_value(keyword) if keyword in tags else None
    if not items or not {"LUTDescriptor", "LUTData"} <= set(items[0].dir()):
        return None
    descriptor, data = items[0]["LUTDescriptor"].value, items[0]["LUTData"].value
    if descriptor is None or data is None:
        return None
    data = [data] if isinstance(data, int) else data
    return read_lut(descriptor, data, little=syntax != ExplicitVRBigEndian, tag=keyword)


def _read_plain(data: bytes) -> tuple[Tags, Tags, PlainPixels]:
    """Read tags, meta tags and the pixels of a file that ends with uncompressed 16-bit little-endian pixels.

    The thorough reading takes three times as long. Raises ValueError, or whatever the parser raises, for another file.
    """
    stream = io.BytesIO(data)
    stream.seek(132)
    meta: dict[int, Any] = {
        element.tag: element for element in data_element_generator(stream, False, True, _is_past_meta)
    }
    first = meta[META_LENGTH] if META_LENGTH in meta else meta[min(meta)]  # how pydicom reads the others depends on it
    require_plain(first.VR in ("OB", "UI") or (first.VR == "UL" and first.length == 4))
    syntax, at = meta[TAGS["TransferSyntaxUID"]].value.decode().rstrip("\0"), stream.tell()
    implicit = IMPLICIT_VR[syntax]
    if syntax == DEFLATED:
        stream = io.BytesIO(data := inflate(data[at:]))
        at = 0
    vr = data[at + 4 : at + 6]
    require_plain(data[at : at + 2] != b"\0\0" and (vr.isalpha() and vr.isupper()) is not implicit)
    found: dict[int, Any] = {
        element.tag: element for element in data_element_generator(stream, implicit, True, _is_at_pixels)
    }
    here = stream.tell()
    require_plain(data[here - 8 : here - 4] != END_OF_ITEM and data[here : here + 4] == PIXELS_TAG)
    at = here + (8 if implicit else 12)
    length = int.from_bytes(data[at - 4 : at], "little")
    require_plain(length == len(data) - at and (implicit or data[here + 4 : here + 6] in (b"OW", b"OB")))
    tags = Tags(found.get, not_plain)
    require_plain(tags.integer("BitsAllocated") == 16)
    return tags, Tags(meta.get, not_plain), PlainPixels(data, at, length)


def _is_past_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _is_at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) >= PIXELS


def _read_thoroughly(data: bytes) -> tuple[Tags, Tags, Dataset]:
    """Read tags, meta tags and the data set to decode the pixels from, of any file that pydicom can read."""
    ds = pydicom.dcmread(io.BytesIO(data))
    if not ds:  # an element has no end, and pydicom then drops all elements before it
        ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        if not ds and ds.file_meta:
            raise Rejected(Reason.bad_header, "", "an element has no end: the file is cut short")
        ds.PixelData = b""
    return _wrap_tags(ds), _wrap_tags(ds.file_meta), ds


def _wrap_tags(ds: Dataset) -> Tags:
    return Tags(lambda tag: ds.get_item(tag) if tag in ds else None, lambda tag: ds[tag].value)


def _decode_pixels(ds: Dataset, header: Header | FilmHeader, allocated: int) -> NDArray[np.generic]:
    """Decode values with pydicom and its plugins, without unused high bits; `allocated` is BitsAllocated."""
    packed, syntax = ds.PixelData or b"", UID(header.transfer_syntax)
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": int(header.signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
        "pixel_vr": ds["PixelData"].VR,
    }
    try:
        if not syntax.is_encapsulated:
            check_length(len(packed), header.rows, header.columns, allocated // 8, packed[:4])
        elif not packed:
            raise Rejected(Reason.truncated_pixels, "PixelData", "compressed pixels without an end")
        elif packed[:4] != ITEM:
            detail = "pixels are not compressed, but the transfer syntax states that they are"
            raise Rejected(Reason.undecodable, "TransferSyntaxUID", detail)
        else:
            check_codestream(get_frame(packed, 0, number_of_frames=1), header.rows, header.columns)
        pixels, _ = get_decoder(syntax).as_array(packed, **options)
    except (Rejected, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each decoder raises its own kinds; those in Rust panic, which is no Exception
        raise Rejected(Reason.undecodable, "PixelData", _describe_error(error)) from None
    if pixels.shape != (header.rows, header.columns):
        raise Rejected(Reason.undecodable, "PixelData", f"decodes to shape {pixels.shape}")
    return pixels


def _describe_error(error: BaseException) -> str:
    """Describe an error without addresses in memory, so that the same file gives the same words."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
