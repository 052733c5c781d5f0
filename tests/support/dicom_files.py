"""Tiny DICOM files for tests: CT slices of a few pixels, one tag, one transfer syntax or one byte changed at a time."""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from package import DATA
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from fl_rsna.imaging.dicom.reader import write_slice

HARD = DATA / "hard_dicom"  # real files, where a checkout has them
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"  # those in pydicom's wheel
LONG_VRS = ("OB", "OW", "OF", "SQ", "UN", "UT")  # with four bytes of length in explicit VR
AXIAL = [1, 0, 0, 0, 1, 0]  # ImageOrientationPatient of an untilted slice: rows to the left, columns to the back


def write_tiny(
    path: Path,
    image_id: str = "ID_1",
    patient: str = "P1",
    series: str = "SE1",
    z: float = 0.0,
    *,
    hu: NDArray[np.integer] | None = None,
    without: Sequence[str] = (),
    sop_class: str | None = None,
    **tags: object,
) -> Path:
    """Write `hu` [H, W] (default 4x4 of 30 HU) as signed 16-bit CT; `tags` replace or add, `without` leaves out."""
    pixels = np.full((4, 4), 30, np.int16) if hu is None else hu
    every = {
        "Modality": "CT",
        "SOPInstanceUID": image_id,
        "PatientID": patient,
        "StudyInstanceUID": f"ST_{series}",
        "SeriesInstanceUID": series,
        "ImagePositionPatient": [0, 0, z],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": max(0, int(str(tags.get("BitsStored", 16))) - 1),
        "PixelRepresentation": int(pixels.dtype == np.int16),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **tags,
    }
    kept = {keyword: value for keyword, value in every.items() if keyword not in without}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_slice(path, pixels, kept, **({"sop_class": sop_class} if sop_class else {}))
    return path


def rewritten(data: bytes, syntax: str, change: Callable[[Dataset], object] = lambda ds: None) -> bytes:
    """The same file in another transfer syntax, written by pydicom after `change`."""
    ds = pydicom.dcmread(io.BytesIO(data))
    change(ds)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if UID(syntax).is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    elif not little:
        ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return stream.getvalue()


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR little endian; `length` is what it states, if not the truth."""
    stated = len(value) if length is None else length
    size = struct.pack("<HI", 0, stated) if vr in LONG_VRS else struct.pack("<H", stated)
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + size + value


def position_of(data: bytes, tag: int) -> int:
    """Where an element of an explicit VR little endian file of `write_tiny` begins."""
    return data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)


def inserted(data: bytes, tag: int, new: bytes) -> bytes:
    """`new` put before the element `tag`."""
    at = position_of(data, tag)
    return data[:at] + new + data[at:]


def replaced(data: bytes, tag: int, new: bytes) -> bytes:
    """`new` in the place of a short element `tag` (not one with a long VR)."""
    at = position_of(data, tag)
    length = struct.unpack("<H", data[at + 6 : at + 8])[0]
    return data[:at] + new + data[at + 8 + length :]


def write_slow(path: Path) -> Path:
    """A valid slice that takes most of a second of processor time to decode: noise as JPEG 2000."""
    noise = np.random.default_rng(0).integers(-30000, 30000, (2048, 2048)).astype(np.int16)
    path.write_bytes(rewritten(write_tiny(path, "ID_slow", hu=noise).read_bytes(), JPEG2000Lossless))
    return path
