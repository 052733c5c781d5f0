"""One DICOM file: read into stored values with their rescale, or rejected with the tag that decided it.

The only module that imports pydicom. Attribute names follow DICOM PS3.3 (C.7.6.2 Image Plane, C.7.6.3 Image
Pixel, C.11.1 Modality LUT).
"""

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from fl_rsna.imaging.windows import Rescale

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # RSNA's ids are not valid UI values
warnings.filterwarnings("ignore", module=r"pydicom\.")  # a file gives a slice or a named row, not lines on the screen
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
WRAP_ABOVE_INTERCEPT = -100  # 12-bit unsigned files with an intercept above this store negative HU modulo 4096


class Reason(StrEnum):
    """Why a file does not become a slice; the value is what `rejected.csv` holds."""

    empty_file = "empty_file"
    not_dicom = "not_dicom"
    bad_header = "bad_header"
    wrong_modality = "wrong_modality"
    secondary_capture = "secondary_capture"
    localizer = "localizer"
    multi_frame = "multi_frame"
    not_grey = "not_grey"
    no_pixels = "no_pixels"
    truncated_pixels = "truncated_pixels"
    undecodable = "undecodable"
    bad_bits = "bad_bits"
    no_rescale = "no_rescale"
    no_patient = "no_patient"
    bad_id = "bad_id"
    duplicate_id = "duplicate_id"
    no_label = "no_label"


class Rejected(Exception):
    """A file that cannot become a slice: the reason, the tag that decided, and what it held."""

    def __init__(self, reason: Reason, tag: str, detail: str) -> None:
        super().__init__(f"{reason}: {tag} {detail}".strip())
        self.reason, self.tag, self.detail = reason, tag, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One axial slice as stored.

    `stored` [rows, columns] is int16 or uint16; `rescale` turns it into Hounsfield units. `position_mm` is
    ImagePositionPatient projected on the slice normal (None without geometry), `spacing_mm` is (row, column).
    """

    image_id: str
    patient_id: str
    study_id: str
    series_id: str
    stored: NDArray[np.int16] | NDArray[np.uint16]
    rescale: Rescale
    position_mm: float | None
    tilt_deg: float | None
    spacing_mm: tuple[float, float] | None


def read_slice(path: Path, *, modality: str) -> Slice:
    """Read one single-frame grey image of `modality`; raises `Rejected` for anything else, never another error."""
    try:
        return _to_slice(_read_header(path), modality)
    except Rejected:
        raise
    except Exception as error:  # pydicom converts a tag when it is asked for, and raises many kinds on damaged ones
        raise Rejected(Reason.bad_header, "", _one_line(error)) from None


def write_slice(
    path: Path,
    stored: NDArray[np.int16] | NDArray[np.uint16],
    tags: Mapping[str, object],
    *,
    sop_class: str = CTImageStorage,
) -> None:
    """Write `stored` [rows, columns] as explicit VR little endian; `tags` by DICOM keyword. Same input, same bytes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(
        "2.25.1"
    )  # RSNA's ids are no valid UIDs; the data set holds the real one
    for keyword, value in tags.items():
        element = pydicom.DataElement(
            keyword, pydicom.datadict.dictionary_VR(keyword), value, validation_mode=pydicom.config.IGNORE
        )
        ds.add(element)
    ds.Rows, ds.Columns = stored.shape
    ds.PixelData = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)


def _read_header(path: Path) -> Dataset:
    if path.stat().st_size == 0:
        raise Rejected(Reason.empty_file, "", "0 bytes")
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError:
        raise Rejected(Reason.not_dicom, "", "no DICM prefix at byte 128") from None


def _to_slice(ds: Dataset, modality: str) -> Slice:
    _check_kind(ds, modality)
    image_id, patient_id = _identify(ds)
    position_mm, tilt_deg = _place(ds)
    return Slice(
        image_id=image_id,
        patient_id=patient_id,
        study_id=str(ds.get("StudyInstanceUID", "")),
        series_id=str(ds.get("SeriesInstanceUID", "")),
        stored=_pixels(ds),
        rescale=_rescale(ds),
        position_mm=position_mm,
        tilt_deg=tilt_deg,
        spacing_mm=_numbers(ds, "PixelSpacing", 2),  # type: ignore[arg-type]
    )


def _check_kind(ds: Dataset, modality: str) -> None:
    found = str(ds.get("Modality", ""))
    if found != modality:
        raise Rejected(Reason.wrong_modality, "Modality", found or "missing")
    sop_class = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID", "")
    if str(sop_class).startswith(SecondaryCaptureImageStorage):
        raise Rejected(Reason.secondary_capture, "SOPClassUID", str(sop_class))
    image_type = [str(part).strip().upper() for part in _listed(ds.get("ImageType"))]
    if "LOCALIZER" in image_type:
        raise Rejected(Reason.localizer, "ImageType", "\\".join(image_type))
    if int(ds.get("NumberOfFrames") or 1) != 1:
        raise Rejected(Reason.multi_frame, "NumberOfFrames", str(ds.NumberOfFrames))
    if "PixelData" not in ds:
        raise Rejected(Reason.no_pixels, "PixelData", "missing")
    photometric = str(ds.get("PhotometricInterpretation", ""))
    if int(ds.get("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Rejected(Reason.not_grey, "PhotometricInterpretation", photometric or "missing")


def _identify(ds: Dataset) -> tuple[str, str]:
    image_id, patient_id = str(ds.get("SOPInstanceUID", "")).strip(), str(ds.get("PatientID") or "").strip()
    if not SAFE_ID.fullmatch(image_id):
        raise Rejected(Reason.bad_id, "SOPInstanceUID", image_id[:64] or "missing")
    if not patient_id:
        raise Rejected(Reason.no_patient, "PatientID", "missing: patients are what splits must not share")
    return image_id, patient_id


def _rescale(ds: Dataset) -> Rescale:
    slope, intercept = _numbers(ds, "RescaleSlope", 1), _numbers(ds, "RescaleIntercept", 1)
    if slope is None or intercept is None or slope[0] == 0:
        raise Rejected(Reason.no_rescale, "RescaleSlope", f"{ds.get('RescaleSlope')}, {ds.get('RescaleIntercept')}")
    signed = int(ds.get("PixelRepresentation") or 0) == 1
    wrapped = int(ds.BitsStored) == 12 and not signed and intercept[0] > WRAP_ABOVE_INTERCEPT
    return Rescale(signed=signed, slope=slope[0], intercept=intercept[0], wrapped_12_bit=wrapped)


def _pixels(ds: Dataset) -> NDArray[np.int16] | NDArray[np.uint16]:
    bits, signed = ds.get("BitsAllocated"), int(ds.get("PixelRepresentation") or 0) == 1
    if bits not in (8, 16) or not ds.get("BitsStored") or not ds.get("Rows") or not ds.get("Columns"):
        raise Rejected(Reason.bad_bits, "BitsAllocated", f"{bits}, expected 8 or 16 with BitsStored, Rows and Columns")
    try:
        pixels = ds.pixel_array
    except Exception as error:  # each decoder plugin raises its own kinds
        short = "less than expected" in str(error) or "number of bytes" in str(error)
        raise Rejected(
            Reason.truncated_pixels if short else Reason.undecodable, "PixelData", _one_line(error)
        ) from None
    if pixels.ndim != 2:
        raise Rejected(Reason.not_grey, "PixelData", f"decodes to shape {pixels.shape}")
    return pixels.astype(np.int16, copy=False) if signed else pixels.astype(np.uint16, copy=False)


def _place(ds: Dataset) -> tuple[float | None, float | None]:
    """Position along the slice normal in mm and gantry tilt in degrees, from the tags alone."""
    position, orientation = _numbers(ds, "ImagePositionPatient", 3), _numbers(ds, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return None, None
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:  # row and column must be orthogonal unit vectors; this plane is not one
        return None, None
    tilt_deg = float(np.degrees(np.arccos(np.clip(abs(normal[2]) / length, 0, 1))))
    return float(np.dot(normal, position) / length), tilt_deg


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The tag's first `count` values as finite floats, or None when it is missing or malformed."""
    try:
        values = tuple(float(part) for part in _listed(ds.get(keyword)))
    except (TypeError, ValueError):
        return None
    return values[:count] if len(values) >= count and np.isfinite(values).all() else None


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
