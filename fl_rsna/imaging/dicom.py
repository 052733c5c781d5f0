"""One DICOM file: read into stored values with their rescale, or rejected with the tag that decided it.

The only module that imports pydicom. Attribute names follow DICOM PS3.3 (C.7.6.2 Image Plane, C.7.6.3 Image
Pixel, C.11.1 Modality LUT). Nothing that a tag states is guessed from pixels.
"""

import io
import logging
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from fl_rsna.imaging.rejections import Reason, Rejected
from fl_rsna.imaging.tags import TAGS, Tags
from fl_rsna.imaging.windows import Rescale

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # RSNA's ids are not valid UI values
warnings.filterwarnings("ignore", module=r"pydicom\.")  # a file gives a slice or a named row, not lines on the screen
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

Stored = NDArray[np.int16] | NDArray[np.uint16]

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
WRAP_ABOVE_INTERCEPT = -100  # 12-bit unsigned files with an intercept above this store negative HU modulo 4096
MAX_PIXELS = 1 << 26
PIXEL_DATA = 0x7FE00010
IMPLICIT_VR = {str(ImplicitVRLittleEndian): True, str(ExplicitVRLittleEndian): False}
STORAGE = "1.2.840.10008.5.1.4.1.1."  # standard storage classes begin with this
CT_STORAGE = tuple(STORAGE + tail for tail in ("2", "2.1", "2.2"))  # CT, enhanced CT, legacy converted enhanced CT


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one slice's tags state; names and units are those of the index (cohort/columns.py)."""

    image_id: str
    patient_id: str
    study_id: str
    series_id: str
    origin: str
    position_mm: float | None
    tilt_deg: float | None
    orientation: str
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    thickness_mm: float | None
    rows: int
    columns: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    wrapped_12_bit: bool
    window_center: float | None
    window_width: float | None
    scanner: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One axial slice as stored: `stored` [rows, columns] int16 or uint16, which `rescale` turns into HU."""

    header: Header
    stored: Stored
    rescale: Rescale


def read_slice(data: bytes, *, modality: str) -> Slice:
    """Read one single-frame grey image of `modality` from a file's bytes.

    Raises `Rejected` for anything else, never another error.
    """
    try:
        return _to_slice(data, modality)
    except Rejected:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise Rejected(Reason.bad_header, "", _one_line(error)) from None


def write_slice(path: Path, stored: Stored, tags: Mapping[str, object], *, sop_class: str = CTImageStorage) -> None:
    """Write `stored` [rows, columns] as explicit VR little endian; `tags` by DICOM keyword. Same input, same bytes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")  # RSNA's ids are no UIDs; the data set holds the real one
    for keyword, value in tags.items():
        vr = pydicom.datadict.dictionary_VR(keyword)
        ds.add(pydicom.DataElement(keyword, vr, value, validation_mode=pydicom.config.IGNORE))
    ds.Rows, ds.Columns = stored.shape
    ds.PixelData = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)


def _to_slice(data: bytes, modality: str) -> Slice:
    if not data:
        raise Rejected(Reason.empty_file, "", "0 bytes")
    if data[128:132] != b"DICM":
        raise Rejected(Reason.not_dicom, "", "no DICM prefix at byte 128")
    with suppress(Exception):  # whatever is unusual is decided by the thorough reading below
        return _slice(data, modality, *_read_plain(data))
    ds = pydicom.dcmread(io.BytesIO(data))
    return _slice(data, modality, _tags(ds), _tags(ds.file_meta), ds)


def _slice(data: bytes, modality: str, tags: Tags, meta: Tags, pixels_at: int | Dataset) -> Slice:
    """`pixels_at`: where plain pixels begin in `data`, or a data set to decode them from."""
    syntax = meta.text("TransferSyntaxUID")
    if not syntax:
        raise Rejected(Reason.no_meta_header, "TransferSyntaxUID", "missing")
    _check_kind(tags, meta, modality)
    rescale = _rescale(tags)
    header = _header(tags, rescale, syntax)
    if not header.rows or not header.columns:
        raise Rejected(Reason.bad_bits, "Rows", f"{header.rows} rows and {header.columns} columns")
    if header.rows * header.columns > MAX_PIXELS:
        raise Rejected(Reason.too_large, "Rows", f"{header.rows} x {header.columns} pixels")
    kind = np.int16 if rescale.signed else np.uint16
    if isinstance(pixels_at, Dataset):
        stored = _decoded(pixels_at, header).astype(kind, copy=False)
    else:
        _check_length(len(data) - pixels_at, header, 2)
        stored = np.frombuffer(data, kind, header.rows * header.columns, pixels_at).reshape(header.rows, header.columns)
    return Slice(header=header, stored=cast(Stored, stored), rescale=rescale)


def _read_plain(data: bytes) -> tuple[Tags, Tags, int]:
    """Tags, meta tags and the place of the pixels, of a file that ends with uncompressed 16-bit little-endian pixels.

    A third of what the thorough reading costs. Raises anything for another file.
    """
    stream = io.BytesIO(data)
    stream.seek(132)
    meta: dict[int, Any] = {
        element.tag: element for element in data_element_generator(stream, False, True, _is_past_meta)
    }
    implicit = IMPLICIT_VR[meta[TAGS["TransferSyntaxUID"]].value.decode().rstrip("\0")]
    found: dict[int, Any] = {
        element.tag: element for element in data_element_generator(stream, implicit, True, _is_pixel_data)
    }
    tags = Tags(found.get, _unusual)
    at = stream.tell() + (8 if implicit else 12)
    if int.from_bytes(data[at - 4 : at], "little") != len(data) - at or tags.integer("BitsAllocated") != 16:
        raise ValueError("the pixels are not plain")
    return tags, Tags(meta.get, _unusual), at


def _unusual(tag: int) -> None:
    raise ValueError(f"tag {tag:08x} is not plain text or a plain integer")


def _is_past_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _is_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) >= PIXEL_DATA


def _tags(ds: Dataset) -> Tags:
    return Tags(lambda tag: ds.get_item(tag) if tag in ds else None, lambda tag: ds[tag].value)


def _check_kind(tags: Tags, meta: Tags, modality: str) -> None:
    found = tags.text("Modality")
    if found != modality:
        raise Rejected(Reason.wrong_modality, "Modality", found or "missing")
    sop_class = tags.text("SOPClassUID") or meta.text("MediaStorageSOPClassUID")
    if sop_class.startswith(SecondaryCaptureImageStorage):
        raise Rejected(Reason.secondary_capture, "SOPClassUID", sop_class)
    if modality == "CT" and sop_class.startswith(STORAGE) and sop_class not in CT_STORAGE:
        raise Rejected(Reason.wrong_modality, "SOPClassUID", sop_class)
    image_type = [part.upper() for part in tags.parts("ImageType")]
    if "LOCALIZER" in image_type:
        raise Rejected(Reason.localizer, "ImageType", "\\".join(image_type))
    frames = tags.text("NumberOfFrames")
    if frames and tags.number("NumberOfFrames") != 1:
        raise Rejected(Reason.multi_frame, "NumberOfFrames", frames)
    if tags.text("BurnedInAnnotation").upper() == "YES":
        raise Rejected(Reason.burned_in_text, "BurnedInAnnotation", "YES")
    photometric = tags.text("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Rejected(Reason.not_grey, "PhotometricInterpretation", photometric or "missing")
    if tags.integer("SamplesPerPixel") not in (None, 1):
        raise Rejected(Reason.not_grey, "SamplesPerPixel", str(tags.integer("SamplesPerPixel")))


def _header(tags: Tags, rescale: Rescale, syntax: str) -> Header:
    image_id, patient_id = tags.text("SOPInstanceUID"), tags.text("PatientID").strip()
    if not SAFE_ID.fullmatch(image_id):
        raise Rejected(Reason.bad_id, "SOPInstanceUID", image_id[:64] or "missing")
    if not patient_id:
        raise Rejected(Reason.no_patient, "PatientID", "missing: patients are what splits must not share")
    position_mm, tilt_deg, orientation = _place(tags)
    spacing = tags.numbers("PixelSpacing", 2)
    return Header(
        image_id=image_id,
        patient_id=patient_id,
        study_id=tags.text("StudyInstanceUID"),
        series_id=tags.text("SeriesInstanceUID"),
        origin=tags.text("InstitutionName"),
        position_mm=position_mm,
        tilt_deg=tilt_deg,
        orientation=orientation,
        row_spacing_mm=spacing[0] if spacing else None,
        column_spacing_mm=spacing[1] if spacing else None,
        thickness_mm=tags.number("SliceThickness"),
        rows=tags.integer("Rows") or 0,
        columns=tags.integer("Columns") or 0,
        bits_stored=rescale.bits_stored,
        signed=rescale.signed,
        slope=rescale.slope,
        intercept=rescale.intercept,
        wrapped_12_bit=rescale.wrapped_12_bit,
        window_center=tags.number("WindowCenter"),
        window_width=tags.number("WindowWidth"),
        scanner=" ".join(filter(None, (tags.text("Manufacturer"), tags.text("ManufacturerModelName")))),
        transfer_syntax=syntax,
    )


def _rescale(tags: Tags) -> Rescale:
    """Checks the pixel module's numbers, too: without them no stored value means anything."""
    allocated, bits, high = (tags.integer(keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated not in (8, 16) or not bits or bits > allocated or high not in (None, bits - 1):
        detail = f"BitsAllocated {allocated}, BitsStored {bits}, HighBit {high}; expected 8 or 16 with BitsStored = HighBit + 1"
        raise Rejected(Reason.bad_bits, "BitsStored" if allocated in (8, 16) else "BitsAllocated", detail)
    unit = tags.text("RescaleType").upper()
    if unit not in ("", "HU", "US"):  # US: unspecified
        raise Rejected(Reason.not_hounsfield, "RescaleType", unit)
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    if not slope or intercept is None:
        found = f"{tags.text('RescaleSlope') or 'missing'}, {tags.text('RescaleIntercept') or 'missing'}"
        tag = "ModalityLUTSequence" if "ModalityLUTSequence" in tags else "RescaleSlope"
        raise Rejected(Reason.no_rescale, tag, f"slope and intercept: {found}")
    signed = tags.integer("PixelRepresentation") == 1
    wrapped = bits == 12 and not signed and intercept > WRAP_ABOVE_INTERCEPT
    return Rescale(bits_stored=bits, signed=signed, slope=slope, intercept=intercept, wrapped_12_bit=wrapped)


def _decoded(ds: Dataset, header: Header) -> NDArray[np.generic]:
    """Pixels as pydicom and its plugins decode them."""
    if "PixelData" not in ds:
        raise Rejected(Reason.no_pixels, "PixelData", "missing")
    try:
        if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_length(len(ds.PixelData), header, ds.BitsAllocated // 8)
        pixels = ds.pixel_array
    except Rejected:
        raise
    except Exception as error:  # each decoder plugin raises its own kinds
        raise Rejected(Reason.undecodable, "PixelData", _one_line(error)) from None
    if pixels.shape != (header.rows, header.columns):
        raise Rejected(Reason.undecodable, "PixelData", f"decodes to shape {pixels.shape}")
    return pixels


def _check_length(length: int, header: Header, size: int) -> None:
    """`length` bytes for rows x columns values of `size` bytes; less than a row or column beyond that is padding."""
    expected = header.rows * header.columns * size
    if length < expected:
        raise Rejected(Reason.truncated_pixels, "PixelData", f"{length} bytes, expected {expected}")
    if length - expected >= min(header.rows, header.columns) * size:
        raise Rejected(Reason.excess_pixels, "PixelData", f"{length} bytes, expected {expected}")


def _place(tags: Tags) -> tuple[float | None, float | None, str]:
    """Position along the slice normal in mm, gantry tilt in degrees and the six cosines, from the tags alone."""
    position, orientation = tags.numbers("ImagePositionPatient", 3), tags.numbers("ImageOrientationPatient", 6)
    if orientation is None:
        return None, None, ""
    cosines = "\\".join(f"{cosine + 0:.4f}" for cosine in orientation)
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = sum(part * part for part in normal) ** 0.5
    if position is None or length < 0.5:  # row and column must be orthogonal unit vectors; otherwise no plane
        return None, None, cosines
    tilt_deg = float(np.degrees(np.arccos(min(abs(normal[2]) / length, 1.0))))
    return sum(n * p for n, p in zip(normal, position, strict=True)) / length, tilt_deg, cosines


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
