"""Odd and damaged DICOM files for tests, made from tiny ones, and what a reading gives."""

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_files import element, inserted, position_of, replaced, rewritten, write_tiny
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fl_rsna.imaging.dicom.reader import Slice, read_slice
from fl_rsna.imaging.dicom.rejections import LONGEST, Reason, Rejected

EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"  # the transfer syntax write_slice writes, as it stands in the file
PIXELS, ROWS, COLUMNS, PATIENT, MODALITY = 0x7FE00010, 0x00280010, 0x00280011, 0x00100020, 0x00080060
SAMPLES, SLOPE, IMAGE_TYPE, IMAGE_ID = 0x00280002, 0x00281053, 0x00080008, 0x00080018
PADDING = element(0xFFFCFFFC, "OB", bytes(16))  # data set trailing padding
RAMP = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
BIT_TYPES = [  # BitsStored, PixelRepresentation, RescaleIntercept and whether negative values are stored modulo 4096
    (16, 1, -1024, False),
    (12, 0, -1024, False),
    (12, 0, -1000, False),
    (16, 1, 0, False),
    (12, 1, 0, False),
    (12, 0, 0, True),
    (12, 0, 1, True),
    (12, 0, -99, True),
    (12, 0, -100, False),  # the guard: above -100
    (16, 0, -1024, False),
    (16, 0, 0, False),
]
WINDOWS = {
    "none": {},
    "one": {"WindowCenter": 40, "WindowWidth": 80},
    "several": {"WindowCenter": ["00036", "00036"], "WindowWidth": ["00080", "00080"]},
    "no width": {"WindowCenter": 40, "WindowWidth": 0},
    "a function": {"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "SIGMOID"},
}


def tiny(folder: Path, **changes: object) -> bytes:
    return write_tiny(folder / "tiny.dcm", **changes).read_bytes()  # type: ignore[arg-type]


def rejection(data: bytes, modality: str = "CT") -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        read_slice(data, modalities=(modality,))
    detail = caught.value.detail
    assert detail
    assert detail.isprintable()
    assert len(detail) <= LONGEST
    return caught.value.reason, caught.value.tag


def hu_of(slice_: Slice) -> NDArray[np.float64]:
    return slice_.rescale.hounsfield(slice_.stored)


def outcome(data: bytes, modality: str, thorough: bool) -> tuple[object, ...]:
    """Everything a reading gives, to be compared."""
    try:
        slice_ = read_slice(data, modalities=(modality,), thorough=thorough)
    except Rejected as why:
        return why.reason, why.tag, why.detail
    return slice_.header, slice_.rescale.wrapped_bits, hu_of(slice_).tobytes(), slice_.stored.dtype


def typed(folder: Path, bits: int, sign: int, intercept: float, slope: float = 1, **changes: object) -> bytes:
    """A file that holds all 65,536 patterns of 16 bits."""
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    return tiny(
        folder, hu=every.view(np.int16) if sign else every, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=sign,
        RescaleIntercept=intercept, RescaleSlope=slope, **changes,
    )  # fmt: skip


def damages(whole: bytes) -> dict[str, tuple[bytes, Reason]]:
    """Damaged files; `whole` ends with 12 bytes of element header and 32 of pixels."""
    at = position_of(whole, PIXELS)
    compressed = rewritten(whole, RLELossless)
    return {
        "empty": (b"", Reason.empty_file),
        "text": (b"ID,Label\n" * 40, Reason.not_dicom),
        "one byte": (b"\0", Reason.not_dicom),
        "no preamble": (whole[132:], Reason.not_dicom),
        "neither preamble nor meta header": (whole[whole.index(b"\x08\x00\x18\x00", 132) :], Reason.not_dicom),
        "preamble alone": (whole[:132], Reason.no_meta_header),
        "no meta header": (whole[:132] + whole[whole.index(b"\x08\x00\x18\x00", 132) :], Reason.no_meta_header),
        "one pixel short": (whole[:-2], Reason.truncated_pixels),
        "half its pixels": (whole[:-16], Reason.truncated_pixels),
        "pixels of length 0": (whole[:at] + element(PIXELS, "OW", b""), Reason.truncated_pixels),
        "a row too many": (whole[:at] + element(PIXELS, "OW", bytes(40)), Reason.excess_pixels),
        "two frames in one": (whole[:at] + element(PIXELS, "OW", bytes(64)), Reason.excess_pixels),
        "ends before pixels": (whole[:at], Reason.no_pixels),
        "ends inside the header of the pixels": (whole[: at + 8], Reason.bad_header),
        "something else instead of pixels": (whole[:at] + element(0x7FE10010, "OW", bytes(32)), Reason.no_pixels),
        "padding instead of pixels": (whole[:at] + element(0xFFFCFFFC, "OW", bytes(32)), Reason.no_pixels),
        "an end of item before the pixels": (inserted(whole, PIXELS, b"\xfe\xff\x0d\xe0\0\0\0\0"), Reason.no_pixels),
        "unknown value representation": (whole.replace(b"LO\x02\x00P1", b"LX\x02\x00P1"), Reason.bad_header),
        "a sequence without an end": (inserted(whole, ROWS, element(0x00081140, "SQ", b"", 0xFFFFFFFF)), Reason.bad_header),
        "RLE that is none": (whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.5\0"), Reason.undecodable),
        "an unknown transfer syntax": (whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.9\0"), Reason.undecodable),
        "a video": (whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.4.100\0"[:20]), Reason.undecodable),
        "compressed, cut short": (compressed[:-20], Reason.truncated_pixels),
        "deflated, cut short": (rewritten(whole, DeflatedExplicitVRLittleEndian)[:-20], Reason.bad_header),
        "sequences a thousand deep": (inserted(whole, PIXELS, nested(1000)), Reason.bad_header),
    }  # fmt: skip


def nested(depth: int) -> bytes:
    item, end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return (element(0x00081140, "SQ", b"", 0xFFFFFFFF) + item) * depth + end * depth


def with_patient_inside() -> bytes:
    """A sequence of undefined length whose item names another patient."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + element(PATIENT, "LO", b"P9") + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return element(0x00081140, "SQ", b"", 0xFFFFFFFF) + item + b"\xfe\xff\xdd\xe0\0\0\0\0"


def same_slices(folder: Path) -> dict[str, bytes]:
    """One 64 x 64 slice of patient P1, written in every way that must not matter."""
    whole = tiny(folder, hu=RAMP)
    private = element(0x00090010, "LO", b"MAKER ") + element(0x00091001, "OB", bytes(7) + b"\0")
    sequence = with_patient_inside()
    implicit = rewritten(whole, ImplicitVRLittleEndian)
    meta_of_explicit = whole[132 : whole.index(b"\x08\x00\x18\x00", 132)]
    body_of_implicit = implicit[implicit.index(b"\x08\x00\x18\x00", 132) :]
    return {
        "as it is": whole,
        "a meta header that does not say its length": whole[:132] + whole[144:],
        "implicit": implicit,
        "deflated": rewritten(whole, DeflatedExplicitVRLittleEndian),
        "big endian": rewritten(whole, ExplicitVRBigEndian),
        "run lengths": rewritten(whole, RLELossless),
        "JPEG 2000": rewritten(whole, JPEG2000Lossless),
        "claims explicit, is implicit": whole[:132] + meta_of_explicit + body_of_implicit,
        "white is low": tiny(folder, hu=RAMP, PhotometricInterpretation="MONOCHROME1"),
        "one frame stated": tiny(folder, hu=RAMP, NumberOfFrames=1),
        "unit stated": tiny(folder, hu=RAMP, RescaleType="HU", BurnedInAnnotation="NO"),
        "unit unspecified": tiny(folder, hu=RAMP, RescaleType="US"),
        "no samples stated": tiny(folder, hu=RAMP, without=["SamplesPerPixel"]),
        "private elements": inserted(whole, PATIENT, private),
        "a sequence of undefined length": inserted(whole, PATIENT, sequence),
        "an undefined length of unknown kind": inserted(whole, PATIENT, sequence.replace(b"SQ", b"UN", 1)),
        "padding at the end": whole + PADDING,
        "pixels as bytes": whole.replace(element(PIXELS, "OW", RAMP.tobytes()), element(PIXELS, "OB", RAMP.tobytes())),
        "some padding inside the pixels": whole.replace(
            element(PIXELS, "OW", RAMP.tobytes()), element(PIXELS, "OW", RAMP.tobytes() + bytes(126))
        ),
        "a patient twice": inserted(whole, PATIENT, element(PATIENT, "LO", b"P0")),
        "PatientID of unknown kind": replaced(whole, PATIENT, element(PATIENT, "UN", b"P1")),
        "PatientID as bytes": replaced(whole, PATIENT, element(PATIENT, "OB", b"P1")),
        "PatientID as another text": replaced(whole, PATIENT, element(PATIENT, "SH", b"P1")),
        "PatientID with blanks": replaced(whole, PATIENT, element(PATIENT, "LO", b" P1 ")),
        "Rows in four bytes": replaced(whole, ROWS, element(ROWS, "UL", struct.pack("<I", 64))),
        "Rows in unknown bytes": replaced(whole, ROWS, element(ROWS, "UN", struct.pack("<H", 64))),
        "Rows as text": replaced(whole, ROWS, element(ROWS, "IS", b"64")),
        "command elements before the data set": inserted(whole, IMAGE_ID, struct.pack("<HHIH", 0, 0x0100, 2, 1)),
        "a group length": inserted(whole, IMAGE_ID, element(0x00080000, "UL", bytes(4))),
    }  # fmt: skip
