"""A file gives a slice or a Rejected with the tag that decided: never another error, never a line on the screen."""

import io
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import HARD, PYDICOM, element, inserted, position_of, replaced, rewritten, write_tiny
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fl_rsna.imaging.dicom import Slice, read_slice
from fl_rsna.imaging.rejections import LONGEST, Reason, Rejected
from fl_rsna.imaging.windows import HU_MAX, HU_MIN, to_hu16

EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"  # the transfer syntax write_slice writes, as it stands in the file
STORAGE = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = STORAGE + "7"
PIXELS, ROWS, COLUMNS, PATIENT, MODALITY = 0x7FE00010, 0x00280010, 0x00280011, 0x00100020, 0x00080060
SAMPLES, SLOPE, IMAGE_TYPE, IMAGE_ID = 0x00280002, 0x00281053, 0x00080008, 0x00080018
PADDING = element(0xFFFCFFFC, "OB", bytes(16))  # data set trailing padding
RAMP = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


def tiny(folder: Path, **changes: object) -> bytes:
    return write_tiny(folder / "tiny.dcm", **changes).read_bytes()  # type: ignore[arg-type]


def rejection(data: bytes, modality: str = "CT") -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        read_slice(data, modality=modality)
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
        slice_ = read_slice(data, modality=modality, thorough=thorough)
    except Rejected as why:
        return why.reason, why.tag, why.detail
    return slice_.header, slice_.rescale.wrapped_12_bit, hu_of(slice_).tobytes(), slice_.stored.dtype


def test_a_written_slice_is_read_back(tmp_path: Path) -> None:
    hu = np.arange(-6, 6, dtype=np.int16).reshape(3, 4)
    slice_ = read_slice(
        tiny(tmp_path, image_id="ID_a", patient="P7", series="SE9", z=12.5, hu=hu, PixelSpacing=[0.4, 0.6], SliceThickness=5,
             InstitutionName="Clinic", Manufacturer="Maker", ManufacturerModelName="Model", WindowCenter=40, WindowWidth=80),
        modality="CT",
    )  # fmt: skip
    np.testing.assert_array_equal(slice_.stored, hu)
    head = slice_.header
    assert (head.image_id, head.patient_id, head.series_id, head.study_id) == ("ID_a", "P7", "SE9", "ST_SE9")
    assert (head.position_mm, head.tilt_deg, head.orientation) == (12.5, 0.0, "1.0000\\0.0000\\0.0000\\0.0000\\1.0000\\0.0000")  # fmt: skip
    assert (head.row_spacing_mm, head.column_spacing_mm, head.thickness_mm) == (0.4, 0.6, 5.0)
    assert (head.origin, head.scanner, head.rows, head.columns) == ("Clinic", "Maker Model", 3, 4)
    assert (head.bits_stored, head.signed, head.slope, head.intercept) == (16, True, 1.0, 0.0)
    assert (head.window_center, head.window_width, head.transfer_syntax) == (40, 80, "1.2.840.10008.1.2.1")


def test_the_same_slice_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    assert tiny(tmp_path / "a") == tiny(tmp_path / "b")


@pytest.mark.parametrize(
    ("tags", "reason", "tag"),
    [
        ({"Modality": "MR"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "SR", "sop_class": STORAGE + "88.33"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "RTSTRUCT", "sop_class": STORAGE + "481.3"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "RTDOSE", "sop_class": STORAGE + "481.2"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "ct"}, Reason.wrong_modality, "Modality"),
        ({"sop_class": STORAGE + "1.1"}, Reason.wrong_modality, "SOPClassUID"),  # a chest film whose Modality says CT
        ({"sop_class": SECONDARY_CAPTURE}, Reason.secondary_capture, "SOPClassUID"),
        ({"SOPClassUID": SECONDARY_CAPTURE + ".4"}, Reason.secondary_capture, "SOPClassUID"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.localizer, "ImageType"),
        ({"ImageType": ["DERIVED", "PRIMARY", " localizer "]}, Reason.localizer, "ImageType"),
        ({"NumberOfFrames": 2}, Reason.multi_frame, "NumberOfFrames"),
        ({"NumberOfFrames": 0}, Reason.multi_frame, "NumberOfFrames"),
        ({"BurnedInAnnotation": "YES"}, Reason.burned_in_text, "BurnedInAnnotation"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": "YBR_FULL"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"SamplesPerPixel": 3}, Reason.not_grey, "SamplesPerPixel"),
        ({"BitsAllocated": 32}, Reason.bad_bits, "BitsAllocated"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, Reason.bad_bits, "BitsAllocated"),
        ({"BitsStored": 0}, Reason.bad_bits, "BitsStored"),
        ({"BitsStored": 17}, Reason.bad_bits, "BitsStored"),
        ({"BitsStored": 12, "HighBit": 15}, Reason.bad_bits, "BitsStored"),
        ({"PixelRepresentation": 2}, Reason.bad_bits, "PixelRepresentation"),
        ({"RescaleSlope": 0}, Reason.no_rescale, "RescaleSlope"),
        ({"RescaleSlope": "1e305"}, Reason.no_rescale, "RescaleSlope"),
        ({"RescaleIntercept": "1e309"}, Reason.no_rescale, "RescaleSlope"),
        ({"RescaleType": "OD"}, Reason.not_hounsfield, "RescaleType"),
        ({"RescaleType": "HU_MOD"}, Reason.not_hounsfield, "RescaleType"),
        ({"PatientID": " "}, Reason.no_patient, "PatientID"),
        ({"PatientID": "P" * 1025}, Reason.bad_header, "PatientID"),
        ({"image_id": ""}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "../x"}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "a/b"}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "..", "PatientID": ""}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "a" * 129}, Reason.bad_id, "SOPInstanceUID"),
    ],
)  # fmt: skip
def test_a_tag_that_rules_the_file_out_is_named(
    tmp_path: Path, tags: dict[str, object], reason: Reason, tag: str
) -> None:
    assert rejection(tiny(tmp_path, **tags)) == (reason, tag)


@pytest.mark.parametrize(
    ("missing", "reason", "tag"),
    [
        ("Modality", Reason.wrong_modality, "Modality"),
        ("SOPInstanceUID", Reason.bad_id, "SOPInstanceUID"),
        ("PatientID", Reason.no_patient, "PatientID"),
        ("RescaleSlope", Reason.no_rescale, "RescaleSlope"),
        ("RescaleIntercept", Reason.no_rescale, "RescaleSlope"),
        ("PhotometricInterpretation", Reason.not_grey, "PhotometricInterpretation"),
        ("BitsAllocated", Reason.bad_bits, "BitsAllocated"),
        ("BitsStored", Reason.bad_bits, "BitsStored"),
        ("PixelRepresentation", Reason.bad_bits, "PixelRepresentation"),
    ],
)
def test_a_missing_tag_is_named(tmp_path: Path, missing: str, reason: Reason, tag: str) -> None:
    assert rejection(tiny(tmp_path, without=[missing])) == (reason, tag)


@pytest.mark.parametrize(
    "missing",
    ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "HighBit", "SamplesPerPixel", "StudyInstanceUID"],
)  # fmt: skip
def test_a_tag_that_can_be_done_without(tmp_path: Path, missing: str) -> None:
    slice_ = read_slice(tiny(tmp_path, without=[missing]), modality="CT")
    assert (slice_.header.position_mm is None) == missing.startswith("Image")
    assert (slice_.header.row_spacing_mm is None) == (missing == "PixelSpacing")
    assert (hu_of(slice_) == 30).all()


def test_a_lookup_table_instead_of_a_slope_is_no_hounsfield_unit(tmp_path: Path) -> None:
    table = element(0x00283000, "SQ", element(0xFFFEE000, "UN", b"")[:4] + b"\0\0\0\0")
    data = inserted(tiny(tmp_path, without=["RescaleSlope", "RescaleIntercept"]), PIXELS, table)
    assert rejection(data) == (Reason.no_rescale, "ModalityLUTSequence")


@pytest.mark.parametrize("rows", [0, -1])
@pytest.mark.parametrize("tag", [ROWS, COLUMNS])
def test_a_shape_that_is_none_is_named(tmp_path: Path, rows: int, tag: int) -> None:
    data = replaced(tiny(tmp_path), tag, element(tag, "SS", struct.pack("<h", rows)))
    assert rejection(data) == (Reason.bad_bits, "Rows" if tag == ROWS else "Columns")


@pytest.mark.parametrize("shape", [(8193, 8192), (1, 65535), (65535, 65535)])
def test_a_shape_that_no_slice_has_is_named(tmp_path: Path, shape: tuple[int, int]) -> None:
    data = tiny(tmp_path)
    for tag, side in zip((ROWS, COLUMNS), shape, strict=True):
        data = replaced(data, tag, element(tag, "US", struct.pack("<H", side)))
    assert rejection(data) == (Reason.too_large, "Rows")


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


def test_damaged_files_are_named(tmp_path: Path) -> None:
    expected = damages(tiny(tmp_path))
    found = {name: rejection(content)[0] for name, (content, _) in expected.items()}
    assert found == {name: reason for name, (_, reason) in expected.items()}


def test_what_the_kind_is_matters_more_than_the_damage(tmp_path: Path) -> None:
    """A cut MR file is no missing CT slice."""
    whole = tiny(tmp_path, Modality="MR")
    assert rejection(whole[:-2])[0] is Reason.wrong_modality
    assert rejection(rewritten(whole, RLELossless)[:-20])[0] is Reason.wrong_modality
    assert rejection(tiny(tmp_path, without=["PhotometricInterpretation"])[: -len(bytes(44))])[0] is Reason.no_pixels


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


def typed(folder: Path, bits: int, sign: int, intercept: float, slope: float = 1, **changes: object) -> bytes:
    """A file that holds all 65,536 patterns of 16 bits."""
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    return tiny(
        folder, hu=every.view(np.int16) if sign else every, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=sign,
        RescaleIntercept=intercept, RescaleSlope=slope, **changes,
    )  # fmt: skip


def formula_hu(bits: int, sign: int, intercept: float, wrapped: bool, slope: float = 1) -> NDArray[np.float64]:
    values = np.arange(65536) % 2**bits
    if sign:
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    if wrapped:
        values = np.where(values >= 3000, values - 4096, values)
    return values.reshape(256, 256) * np.float64(slope) + intercept


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(("bits", "sign", "intercept", "wrapped"), BIT_TYPES)
def test_hounsfield_units_follow_the_files_own_bits_and_rescale(
    tmp_path: Path, bits: int, sign: int, intercept: int, wrapped: bool, thorough: bool
) -> None:
    data = typed(tmp_path, bits, sign, intercept)
    slice_ = read_slice(data, modality="CT", thorough=thorough)
    expected = formula_hu(bits, sign, intercept, wrapped)
    np.testing.assert_array_equal(hu_of(slice_), expected)
    np.testing.assert_array_equal(
        to_hu16(slice_.stored, slice_.rescale).astype(int) - 1024, np.clip(expected, HU_MIN, HU_MAX)
    )
    if not wrapped:  # unused high bits go and the sign is extended as pydicom does it
        np.testing.assert_array_equal(hu_of(slice_) - intercept, pydicom.dcmread(io.BytesIO(data)).pixel_array)
    assert (slice_.header.bits_stored, slice_.header.signed, slice_.header.wrapped_12_bit) == (
        bits,
        bool(sign),
        wrapped,
    )


@pytest.mark.parametrize(
    ("stored", "tags", "hu"),
    [
        (np.int16(-1024), {"BitsStored": 16}, -1024),
        (np.int16(-3024), {"BitsStored": 16}, -1024),  # padding is air
        (np.int16(-2000), {"BitsStored": 16, "RescaleIntercept": -1024}, -1024),
        (np.uint16(1064), {"BitsStored": 12, "RescaleIntercept": -1024}, 40),
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": -1024}, 2048),  # an ordinary file: bone stays bone
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 0}, -1024),  # a wrapped one: air
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 1}, -1023),
        (np.uint16(2999), {"BitsStored": 12, "RescaleIntercept": 0}, 2999),
        (np.uint16(4095), {"BitsStored": 12, "RescaleIntercept": 0}, -1),
        (np.uint16(3072), {"BitsStored": 16, "RescaleIntercept": 0}, 3071),
        (np.int16(-1000), {"BitsStored": 12, "RescaleIntercept": 0}, -1000),
        (np.uint16(100), {"BitsStored": 12, "RescaleSlope": 0.5, "RescaleIntercept": -10.5}, 40),  # 39.5, half to even
        (np.uint16(0xF428), {"BitsStored": 12, "RescaleIntercept": -1024}, 40),  # an overlay in the high bits
    ],
)
def test_values_a_person_can_check(tmp_path: Path, stored: np.int16 | np.uint16, tags: dict[str, int], hu: int) -> None:
    data = tiny(tmp_path, hu=np.full((2, 2), stored), HighBit=tags["BitsStored"] - 1, **tags)
    slice_ = read_slice(data, modality="CT")
    np.testing.assert_array_equal(to_hu16(slice_.stored, slice_.rescale).astype(int) - 1024, hu)


@pytest.mark.parametrize(("bits", "sign", "value", "byte"), [(8, 0, 200, 200), (8, 1, -56, 200), (5, 1, -16, 0xF0), (5, 0, 16, 0xF0)])  # fmt: skip
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 3)])  # odd numbers of bytes are padded to even
def test_pixels_of_8_bits(tmp_path: Path, bits: int, sign: int, value: int, byte: int, shape: tuple[int, int]) -> None:
    kind = np.int8 if sign else np.uint8
    pixels = np.full(shape, byte, np.uint8).view(kind)
    data = tiny(tmp_path, hu=pixels, BitsAllocated=8, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=sign)
    if pixels.size % 2:
        data = data[: position_of(data, PIXELS)] + element(PIXELS, "OW", pixels.tobytes() + b"\0")
    slice_ = read_slice(data, modality="CT")
    np.testing.assert_array_equal(hu_of(slice_), np.full(shape, value))
    assert slice_.stored.dtype == (np.int16 if sign else np.uint16)


WINDOWS = {
    "none": {},
    "one": {"WindowCenter": 40, "WindowWidth": 80},
    "several": {"WindowCenter": ["00036", "00036"], "WindowWidth": ["00080", "00080"]},
    "no width": {"WindowCenter": 40, "WindowWidth": 0},
    "a function": {"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "SIGMOID"},
}


@pytest.mark.parametrize("name", list(WINDOWS))
def test_no_window_in_the_header_changes_a_pixel(tmp_path: Path, name: str) -> None:
    slice_ = read_slice(tiny(tmp_path, hu=RAMP, **WINDOWS[name]), modality="CT")
    np.testing.assert_array_equal(hu_of(slice_), RAMP)
    expected = {"none": (None, None), "several": (36, 80), "no width": (40, 0)}
    assert (slice_.header.window_center, slice_.header.window_width) == expected.get(name, (40, 80))


@pytest.mark.parametrize("text", [b"['00036', '00036']", b"abc ", b"nan ", b"40\\x"])
def test_a_number_that_is_none_is_no_number(tmp_path: Path, text: bytes) -> None:
    whole = tiny(tmp_path, hu=RAMP, WindowCenter=40, SliceThickness=5)
    for tag, name in ((0x00281050, "window_center"), (0x00180050, "thickness_mm")):
        slice_ = read_slice(replaced(whole, tag, element(tag, "DS", text)), modality="CT")
        assert getattr(slice_.header, name) is None
        np.testing.assert_array_equal(hu_of(slice_), RAMP)
    assert rejection(replaced(whole, SLOPE, element(SLOPE, "DS", text))) == (Reason.no_rescale, "RescaleSlope")


def test_an_integer_that_is_none_is_named(tmp_path: Path) -> None:
    """Implicit VR says nothing of what a value is: text where pydicom reads numbers is no number."""
    whole = tiny(tmp_path)
    assert rejection(replaced(whole, SAMPLES, element(SAMPLES, "LO", b"\1\0"))) == (Reason.not_grey, "SamplesPerPixel")
    assert rejection(replaced(whole, SAMPLES, element(SAMPLES, "US", b""))) == (Reason.not_grey, "SamplesPerPixel")
    twice = element(ROWS, "US", struct.pack("<HH", 4, 3))
    assert rejection(replaced(whole, ROWS, twice)) == (Reason.bad_bits, "Rows")
    implicit = rewritten(whole, ImplicitVRLittleEndian)
    sign, text = b"\x28\0\x03\x01", b"1\\0\\0 "
    damaged = implicit.replace(sign + b"\2\0\0\0\1\0", sign + struct.pack("<I", len(text)) + text)
    assert rejection(damaged) == (Reason.bad_bits, "PixelRepresentation")


@pytest.mark.parametrize("tilt_deg", [-11.0, 0.0, 25.0])
def test_position_is_measured_along_the_normal_of_a_tilted_slice(tmp_path: Path, tilt_deg: float) -> None:
    """Slices 5 mm apart along their normal, each with its corner slid inside its own plane, lie 5 mm apart."""
    angle = math.radians(tilt_deg)
    rows, columns = np.array([1, 0, 0]), np.array([0, math.cos(angle), math.sin(angle)])
    normal = np.cross(rows, columns)
    headers = []
    for n in range(3):
        corner = 5 * n * normal + 30 * (n % 2) * columns - 7 * n * rows
        tags = {"ImagePositionPatient": list(corner.round(9)), "ImageOrientationPatient": [*rows, *columns.round(9)]}
        headers.append(read_slice(tiny(tmp_path, **tags), modality="CT").header)
    assert [header.position_mm for header in headers] == pytest.approx([0, 5, 10], abs=1e-6)
    assert [header.tilt_deg for header in headers] == pytest.approx([abs(tilt_deg)] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),  # row and column the same: no plane
        ("ImageOrientationPatient", [1, 0, 0]),
        ("ImageOrientationPatient", ["1e200", 0, 0, 0, "1e200", 0]),
        ("ImageOrientationPatient", ["nan", 0, 0, 0, 1, 0]),
        ("ImagePositionPatient", [0, 0]),
        ("ImagePositionPatient", [0, 0, "1e308"]),
        ("ImagePositionPatient", [0, 0, "inf"]),
    ],
)
def test_geometry_that_means_nothing_is_no_geometry(tmp_path: Path, keyword: str, value: list[object]) -> None:
    header = read_slice(tiny(tmp_path, **{keyword: value}), modality="CT").header
    assert (header.position_mm, header.tilt_deg) == (None, None)


def same_slices(folder: Path) -> dict[str, bytes]:
    """One 64 x 64 slice of patient P1, written in every way that must not matter."""
    whole = tiny(folder, hu=RAMP)
    private = element(0x00090010, "LO", b"MAKER ") + element(0x00091001, "OB", bytes(7) + b"\0")
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + element(PATIENT, "LO", b"P9") + b"\xfe\xff\x0d\xe0\0\0\0\0"
    sequence = element(0x00081140, "SQ", b"", 0xFFFFFFFF) + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    implicit = rewritten(whole, ImplicitVRLittleEndian)
    meta_of_explicit = whole[132 : whole.index(b"\x08\x00\x18\x00", 132)]
    body_of_implicit = implicit[implicit.index(b"\x08\x00\x18\x00", 132) :]
    return {
        "as it is": whole,
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


def test_what_must_not_matter_does_not(tmp_path: Path) -> None:
    for name, data in same_slices(tmp_path).items():
        slice_ = read_slice(data, modality="CT")
        np.testing.assert_array_equal(hu_of(slice_), RAMP, err_msg=name)
        assert (slice_.header.patient_id, slice_.header.image_id) == ("P1", "ID_1"), name


def test_a_localizer_is_found_however_it_is_written(tmp_path: Path) -> None:
    whole = tiny(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    values = b"ORIGINAL\\PRIMARY\\LOCALIZER"
    for vr in ("UN", "LO", "OB"):
        assert rejection(replaced(whole, IMAGE_TYPE, element(IMAGE_TYPE, vr, values + b" ")))[0] is Reason.localizer, vr
    assert rejection(rewritten(whole, ImplicitVRLittleEndian))[0] is Reason.localizer


@pytest.mark.parametrize(
    ("charset", "written", "read"),
    [
        ("ISO_IR 192", "Müller 東".encode(), "Müller 東"),
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        ("ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),  # Japanese in ASCII bytes
        ("ISO_IR 192", b"\xff\xfe1", "\ufffd\ufffd1"),
        ("NO SUCH SET", "Müller".encode("latin-1"), "Müller"),
    ],
)
def test_a_patient_of_any_alphabet(tmp_path: Path, charset: str, written: bytes, read: str) -> None:
    new = element(PATIENT, "LO", written + b" " * (len(written) % 2))
    data = replaced(tiny(tmp_path, SpecificCharacterSet=charset), PATIENT, new)
    patient = read_slice(data, modality="CT").header.patient_id
    assert patient == read
    assert patient.encode()  # no half characters: it must go into a table


def test_names_are_cut_and_details_are_one_short_line(tmp_path: Path) -> None:
    header = read_slice(tiny(tmp_path, Manufacturer="M" * 3000, InstitutionName="I" * 3000), modality="CT").header
    assert (header.scanner, header.origin) == ("M" * 256, "I" * 256)
    assert rejection(tiny(tmp_path, Modality="a\nb\x00c\x1b[31m" + "d" * 3000)) == (Reason.wrong_modality, "Modality")


@pytest.mark.parametrize("shape", [(60000, 60000), (32, 64), (64, 32), (128, 32), (32, 128), (1, 1)])
def test_a_compressed_image_of_another_shape_is_named_before_it_is_decoded(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """Of 128 x 32, every pixel would find a place in 64 x 64."""
    data = rewritten(tiny(tmp_path, hu=RAMP), JPEG2000Lossless)
    stated = data.index(b"\xff\x4f\xff\x51") + 8
    changed = data[:stated] + struct.pack(">II", shape[1], shape[0]) + data[stated + 8 :]
    assert rejection(changed) == (Reason.undecodable, "Rows")


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "JPEGProcess14SV1", "JPEGProcess1Transfer"])
def test_a_compressed_image_cut_short_is_named(syntax: str) -> None:
    """Most decoders fill in what is missing and say nothing."""
    if not HARD.is_dir():
        pytest.skip(f"no hard DICOM files at {HARD}")
    (path,) = HARD.glob(f"CTImage.dcm_{syntax}*")
    ds, stream = pydicom.dcmread(path), io.BytesIO()
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) * 9 // 10]])
    ds.save_as(stream)
    assert rejection(stream.getvalue()) == (Reason.truncated_pixels, "PixelData")


def test_a_small_file_that_inflates_without_end_is_named(tmp_path: Path) -> None:
    whole = rewritten(tiny(tmp_path), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")  # the meta header's own length stands at its begin
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(element(0x00080005, "UT", b"", 0x7FFFFFFF))
    packed += b"".join(packer.compress(bytes(1 << 24)) for _ in range(20)) + packer.flush()
    data = whole[:start] + packed
    assert len(data) < 1 << 21
    assert rejection(data) == (Reason.too_large, "")


def real_files() -> list[Path]:
    return [
        path for root in (PYDICOM, HARD, HARD.parent / "rsna") for path in sorted(root.rglob("*")) if path.is_file()
    ]


def own_modality(data: bytes) -> str:
    """The file's own, so that every kind of file gets as far as it can."""
    try:
        return str(pydicom.dcmread(io.BytesIO(data), specific_tags=["Modality"]).Modality)
    except Exception:
        return "CT"


def test_the_fast_reading_gives_what_the_thorough_one_gives_on_real_files() -> None:
    slices = 0
    for path in real_files():
        data = path.read_bytes()
        modality = own_modality(data)
        fast = outcome(data, modality, thorough=False)
        assert fast == outcome(data, modality, thorough=True), path
        slices += len(fast) == 4
    assert slices >= 15


def test_the_fast_reading_gives_what_the_thorough_one_gives_on_every_kind_of_file(tmp_path: Path) -> None:
    whole = tiny(tmp_path)
    files = {
        **same_slices(tmp_path),
        **{name: content for name, (content, _) in damages(whole).items()},
        **{f"bits {kind}": typed(tmp_path, *kind[:3]) for kind in BIT_TYPES},
        **{f"windows {name}": tiny(tmp_path, **tags) for name, tags in WINDOWS.items()},
    }
    for name, data in files.items():
        assert outcome(data, "CT", thorough=False) == outcome(data, "CT", thorough=True), name


@pytest.mark.parametrize(
    "source", ["as it is", "implicit", "deflated", "run lengths", "a sequence of undefined length"]
)
def test_any_damage_gives_a_slice_or_a_rejection_the_same_one_by_both_readings(tmp_path: Path, source: str) -> None:
    whole = np.frombuffer(same_slices(tmp_path)[source], np.uint8)
    outcomes = set()
    for seed in range(300):
        data = damaged(whole, np.random.default_rng(seed))
        fast = outcome(data, "CT", thorough=False)
        assert fast == outcome(data, "CT", thorough=True), f"{source}, seed {seed}"
        outcomes.add(fast[0] if len(fast) == 3 else Slice)
    assert {Slice, Reason.not_dicom} < outcomes


def damaged(whole: np.ndarray, rng: np.random.Generator) -> bytes:
    """A third of the time cut anywhere, otherwise one to three bytes of the first 1,000 after the preamble replaced."""
    if rng.integers(3) == 0:
        return bytes(whole[: rng.integers(len(whole))])
    changed = whole.copy()
    changed[rng.integers(128, min(len(whole), 1128), size=rng.integers(1, 4))] = rng.integers(256)
    return changed.tobytes()


def test_decoded_pixels_are_those_of_pydicom() -> None:
    """On every grey single-frame file there is, whatever its kind."""
    compared = 0
    for path in real_files():
        data = path.read_bytes()
        try:
            slice_ = read_slice(data, modality=own_modality(data), thorough=True)
        except Rejected:
            continue
        values = (hu_of(slice_) - slice_.header.intercept) / slice_.header.slope
        if not slice_.header.wrapped_12_bit:
            np.testing.assert_allclose(
                values, pydicom.dcmread(io.BytesIO(data)).pixel_array, atol=1e-6, err_msg=str(path)
            )
            compared += 1
    assert compared >= 15


def test_a_damaged_file_writes_nothing_to_the_screen(tmp_path: Path) -> None:
    """Even with a root logger, which the commands have; in a process of its own, because pytest catches warnings."""
    whole = tiny(tmp_path, hu=RAMP)
    compressed = rewritten(whole, JPEG2000Lossless)
    files = {
        "padded": whole.replace(
            element(PIXELS, "OW", RAMP.tobytes()), element(PIXELS, "OW", RAMP.tobytes() + bytes(126))
        ),
        "noise": compressed[:-3000] + bytes(range(256)) * 4 + compressed[-1976:],
        "deep": inserted(whole, PIXELS, nested(1000)),
        "cut": compressed[:-20],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import logging, sys; logging.basicConfig(); from pathlib import Path\n"
        "from fl_rsna.imaging.dicom import read_slice\n"
        "from fl_rsna.imaging.rejections import Rejected\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(read_slice(Path(name).read_bytes(), modality='CT').stored.shape)\n"
        "    except Rejected as why: print(why.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(tmp_path / name for name in files)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0::3] == ["(64, 64)", "truncated_pixels"]
