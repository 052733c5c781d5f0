"""What a header states becomes facts; a tag that rules the file out, is missing or means nothing is named."""

import io
import math
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import element, inserted, position_of, replaced, rewritten
from dicom_oddities import (
    COLUMNS,
    EXPLICIT_LITTLE,
    IMAGE_TYPE,
    PATIENT,
    PIXELS,
    RAMP,
    ROWS,
    SAMPLES,
    SLOPE,
    hu_of,
    rejection,
    tiny,
)
from film_files import written
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Reason

STORAGE = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = STORAGE + "7"
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


@pytest.mark.parametrize(
    ("tags", "reason", "tag"),
    [
        ({"Modality": "MR"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "SR", "sop_class": STORAGE + "88.33"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "RTSTRUCT", "sop_class": STORAGE + "481.3"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "RTDOSE", "sop_class": STORAGE + "481.2"}, Reason.wrong_modality, "Modality"),
        ({"sop_class": STORAGE + "1.1"}, Reason.wrong_modality, "SOPClassUID"),  # a chest film whose Modality says CT
        ({"sop_class": SECONDARY_CAPTURE}, Reason.secondary_capture, "SOPClassUID"),
        ({"SOPClassUID": SECONDARY_CAPTURE + ".4"}, Reason.secondary_capture, "SOPClassUID"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.localizer, "ImageType"),
        ({"ImageType": ["DERIVED", "PRIMARY", " localizer "]}, Reason.localizer, "ImageType"),
        ({"NumberOfFrames": 2}, Reason.multi_frame, "NumberOfFrames"),
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
    slice_ = read_slice(tiny(tmp_path, without=[missing]), modalities=("CT",))
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


@pytest.mark.parametrize("text", [b"['00036', '00036']", b"abc ", b"nan ", b"40\\x", b"\0\0024 ", b"1_0 "])
def test_a_number_that_is_none_is_no_number(tmp_path: Path, text: bytes) -> None:
    whole = tiny(tmp_path, hu=RAMP, WindowCenter=40, SliceThickness=5)
    for tag, name in ((0x00281050, "window_center"), (0x00180050, "thickness_mm")):
        slice_ = read_slice(replaced(whole, tag, element(tag, "DS", text)), modalities=("CT",))
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
        headers.append(read_slice(tiny(tmp_path, **tags), modalities=("CT",)).header)
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
    header = read_slice(tiny(tmp_path, **{keyword: value}), modalities=("CT",)).header
    assert header.position_mm is None
    assert header.tilt_deg == (None if keyword == "ImageOrientationPatient" else 0)


@pytest.mark.parametrize(
    "tags",
    [
        {"NumberOfFrames": 0},
        {"NumberOfFrames": ""},
        {"NumberOfFrames": -1},
        {"PhotometricInterpretation": "monochrome2"},
        {"PhotometricInterpretation": " Monochrome 1 "},
        {"Modality": "ct"},
        {"Modality": " Ct "},
        {"RescaleType": "hu"},
        {"RescaleType": "HOUNSFIELD"},
        {"RescaleType": "Hounsfield units"},
        {"RescaleType": "unspecified"},
        {"BurnedInAnnotation": "no"},
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_word_is_known_however_it_is_written(tmp_path: Path, tags: dict[str, object], syntax: str) -> None:
    ds = pydicom.dcmread(io.BytesIO(rewritten(tiny(tmp_path, hu=RAMP), syntax)))
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    slice_ = read_slice(written(ds), modalities=("CT",))
    np.testing.assert_array_equal(hu_of(slice_), RAMP)


def test_more_frames_than_stated_are_excess_pixels(tmp_path: Path) -> None:
    assert rejection(tiny(tmp_path, hu=RAMP, NumberOfFrames=0)[:-2])[0] is Reason.truncated_pixels
    twice = tiny(tmp_path, hu=RAMP, NumberOfFrames=0)
    at = position_of(twice, PIXELS)
    assert rejection(twice[:at] + element(PIXELS, "OW", 2 * RAMP.tobytes()))[0] is Reason.excess_pixels


@pytest.mark.parametrize("annotation", ["yes", "Yes ", "Y", "TRUE"])
def test_text_in_the_pixels_is_found_however_it_is_written(tmp_path: Path, annotation: str) -> None:
    assert rejection(tiny(tmp_path, BurnedInAnnotation=annotation)) == (Reason.burned_in_text, "BurnedInAnnotation")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("length", [None, 0xFFFFFFFF])
def test_pixels_that_contradict_their_transfer_syntax_are_named(
    tmp_path: Path, syntax: str, length: int | None
) -> None:
    whole = tiny(tmp_path, hu=RAMP)
    packed = pydicom.dcmread(io.BytesIO(rewritten(whole, syntax))).PixelData
    end = b"" if length is None else b"\xfe\xff\xdd\xe0\0\0\0\0"
    compressed = whole[: position_of(whole, PIXELS)] + element(PIXELS, "OB", packed, length) + end
    assert rejection(compressed) == (Reason.undecodable, "TransferSyntaxUID")
    assert rejection(whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.5\0")) == (
        Reason.undecodable,
        "TransferSyntaxUID",
    )


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
    patient = read_slice(data, modalities=("CT",)).header.patient_id
    assert patient == read
    assert patient.encode()  # no half characters: it must go into a table


def test_names_are_cut_and_details_are_one_short_line(tmp_path: Path) -> None:
    header = read_slice(tiny(tmp_path, Manufacturer="M" * 3000, InstitutionName="I" * 3000), modalities=("CT",)).header
    assert (header.scanner, header.origin) == ("M" * 256, "I" * 256)
    assert rejection(tiny(tmp_path, Modality="a\nb\x00c\x1b[31m" + "d" * 3000)) == (Reason.wrong_modality, "Modality")
