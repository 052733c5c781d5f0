"""A file gives a slice or a Rejected with the tag that decided: never another error, never a line on the screen."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_tiny

from fl_rsna.imaging.dicom import Slice, read_slice
from fl_rsna.imaging.rejections import Reason, Rejected
from fl_rsna.imaging.windows import to_hu16

EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"  # the transfer syntax write_slice writes, as it stands in the file
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


def reason_and_tag(path: Path) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        read_slice(path.read_bytes(), modality="CT")
    assert caught.value.detail
    assert "\n" not in str(caught.value)
    return caught.value.reason, caught.value.tag


def test_a_written_slice_is_read_back(tmp_path: Path) -> None:
    hu = np.arange(-6, 6, dtype=np.int16).reshape(3, 4)
    path = write_tiny(tmp_path / "a.dcm", "ID_a", "P7", "SE9", 12.5, hu=hu, PixelSpacing=[0.4, 0.6])
    slice_ = read_slice(path.read_bytes(), modality="CT")
    np.testing.assert_array_equal(slice_.stored, hu)
    header = slice_.header
    assert (header.image_id, header.patient_id, header.series_id, header.study_id) == ("ID_a", "P7", "SE9", "ST_SE9")
    assert (header.position_mm, header.tilt_deg, header.row_spacing_mm, header.column_spacing_mm) == (
        12.5,
        0.0,
        0.4,
        0.6,
    )


def test_the_same_slice_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_tiny(tmp_path / "a.dcm"), write_tiny(tmp_path / "b.dcm")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("tags", "reason", "tag"),
    [
        ({"Modality": "MR"}, Reason.wrong_modality, "Modality"),
        ({"sop_class": SECONDARY_CAPTURE}, Reason.secondary_capture, "SOPClassUID"),
        ({"SOPClassUID": SECONDARY_CAPTURE + ".4"}, Reason.secondary_capture, "SOPClassUID"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.localizer, "ImageType"),
        ({"NumberOfFrames": 2}, Reason.multi_frame, "NumberOfFrames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"BitsAllocated": 32}, Reason.bad_bits, "BitsAllocated"),
        ({"BitsStored": 0}, Reason.bad_bits, "BitsStored"),
        ({"BitsStored": 17}, Reason.bad_bits, "BitsStored"),
        ({"RescaleSlope": 0}, Reason.no_rescale, "RescaleSlope"),
        ({"PatientID": " "}, Reason.no_patient, "PatientID"),
        ({"image_id": ""}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "../x"}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "a/b"}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "..", "PatientID": ""}, Reason.bad_id, "SOPInstanceUID"),
        ({"image_id": "a" * 129}, Reason.bad_id, "SOPInstanceUID"),
    ],
)
def test_a_tag_that_rules_the_file_out_is_named(
    tmp_path: Path, tags: dict[str, object], reason: Reason, tag: str
) -> None:
    assert reason_and_tag(write_tiny(tmp_path / "a.dcm", **tags)) == (reason, tag)


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
    ],
)
def test_a_missing_tag_is_named(tmp_path: Path, missing: str, reason: Reason, tag: str) -> None:
    assert reason_and_tag(write_tiny(tmp_path / "a.dcm", without=[missing])) == (reason, tag)


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "HighBit"])
def test_a_slice_without_geometry_is_a_slice(tmp_path: Path, missing: str) -> None:
    slice_ = read_slice(write_tiny(tmp_path / "a.dcm", without=[missing]).read_bytes(), modality="CT")
    assert (slice_.header.position_mm is None) == missing.startswith("Image")
    assert (slice_.header.row_spacing_mm is None) == (missing == "PixelSpacing")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write_tiny(tmp_path / "whole.dcm").read_bytes()  # ends with 12 bytes of element header and 32 of pixels
    unknown_vr = whole.replace(b"LO\x02\x00P1", b"LX\x02\x00P1")
    files = {
        "empty": (b"", Reason.empty_file),
        "text": (b"ID,Label\n" * 40, Reason.not_dicom),
        "no preamble": (whole[132:], Reason.not_dicom),
        "one pixel short": (whole[:-2], Reason.truncated_pixels),
        "half its pixels": (whole[:-16], Reason.truncated_pixels),
        "ends before pixels": (whole[:-44], Reason.no_pixels),
        "ends inside a header": (whole[:-36], Reason.bad_header),
        "unknown value representation": (unknown_vr, Reason.bad_header),
        "RLE that is none": (whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.5\0"), Reason.undecodable),
        "unknown transfer syntax": (whole.replace(EXPLICIT_LITTLE, b"1.2.840.10008.1.2.9\0"), Reason.undecodable),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    assert {name: reason_and_tag(tmp_path / name)[0] for name in files} == {
        name: reason for name, (_, reason) in files.items()
    }


@pytest.mark.parametrize(
    ("stored", "tags", "hu"),
    [
        (np.int16(-1024), {"BitsStored": 16}, -1024),
        (np.int16(-3024), {"BitsStored": 16}, -1024),
        (np.uint16(1064), {"BitsStored": 12, "RescaleIntercept": -1024}, 40),
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": -1024}, 2048),  # an ordinary file: bone stays bone
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 0}, -1024),  # a wrapped one: air
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 1}, -1023),
        (np.uint16(4095), {"BitsStored": 12, "RescaleIntercept": 0}, -1),
        (np.uint16(3072), {"BitsStored": 16, "RescaleIntercept": 0}, 3071),
        (np.int16(-1000), {"BitsStored": 12, "RescaleIntercept": 0}, -1000),
        (np.uint16(100), {"BitsStored": 12, "RescaleSlope": 0.5, "RescaleIntercept": -10.5}, 40),  # 39.5, half to even
    ],
)
def test_hounsfield_units_follow_the_files_own_bits_and_rescale(
    tmp_path: Path, stored: np.int16 | np.uint16, tags: dict[str, object], hu: int
) -> None:
    slice_ = read_slice(write_tiny(tmp_path / "a.dcm", hu=np.full((2, 2), stored), **tags).read_bytes(), modality="CT")
    np.testing.assert_array_equal(to_hu16(slice_.stored, slice_.rescale).astype(int) - 1024, hu)


@pytest.mark.parametrize("tilt_deg", [-11.0, 0.0, 25.0])
def test_position_is_measured_along_the_normal_of_a_tilted_slice(tmp_path: Path, tilt_deg: float) -> None:
    """Slices 5 mm apart along their normal, each with its corner slid inside its own plane, lie 5 mm apart."""
    angle = math.radians(tilt_deg)
    rows, columns = np.array([1, 0, 0]), np.array([0, math.cos(angle), math.sin(angle)])
    normal = np.cross(rows, columns)
    slices = []
    for n in range(3):
        corner = 5 * n * normal + 30 * (n % 2) * columns - 7 * n * rows
        tags = {"ImagePositionPatient": list(corner.round(9)), "ImageOrientationPatient": [*rows, *columns.round(9)]}
        slices.append(read_slice(write_tiny(tmp_path / f"{n}.dcm", **tags).read_bytes(), modality="CT"))
    assert [slice_.header.position_mm for slice_ in slices] == pytest.approx([0, 5, 10], abs=1e-6)
    assert [slice_.header.tilt_deg for slice_ in slices] == pytest.approx([abs(tilt_deg)] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),  # row and column the same: no plane
        ("ImageOrientationPatient", [1, 0, 0]),
        ("ImagePositionPatient", [0, 0]),
    ],
)
def test_geometry_that_means_nothing_is_no_geometry(tmp_path: Path, keyword: str, value: list[float]) -> None:
    slice_ = read_slice(write_tiny(tmp_path / "a.dcm", **{keyword: value}).read_bytes(), modality="CT")
    assert (slice_.header.position_mm, slice_.header.tilt_deg) == (None, None)


def test_any_damage_gives_a_slice_or_a_rejection(tmp_path: Path) -> None:
    whole, path = np.frombuffer(write_tiny(tmp_path / "whole.dcm").read_bytes(), np.uint8), tmp_path / "damaged.dcm"
    outcomes = set()
    for seed in range(300):
        path.write_bytes(damaged(whole, np.random.default_rng(seed)))
        try:
            outcomes.add(type(read_slice(path.read_bytes(), modality="CT")))
        except Rejected as why:
            outcomes.add(why.reason)
    assert {Slice, Reason.bad_header, Reason.not_dicom, Reason.no_pixels} <= outcomes


def damaged(whole: np.ndarray, rng: np.random.Generator) -> bytes:
    """A third of the time cut anywhere, otherwise one to three bytes after the preamble replaced."""
    if rng.integers(3) == 0:
        return whole[: rng.integers(len(whole))].tobytes()
    changed = whole.copy()
    changed[rng.integers(128, len(whole), size=rng.integers(1, 4))] = rng.integers(256)
    return changed.tobytes()


def test_a_damaged_file_writes_nothing_to_the_screen(tmp_path: Path) -> None:
    """Even with a root logger, which the commands have; in a process of its own, because pytest catches warnings."""
    path = write_tiny(tmp_path / "a.dcm", hu=np.zeros((4, 6), np.int16))
    columns = b"\x28\x00\x11\x00US\x02\x00"  # the element's header: its value follows
    path.write_bytes(path.read_bytes().replace(columns + b"\x06", columns + b"\x04"))  # more pixels than the image has
    code = (
        "import logging, sys; logging.basicConfig(); from pathlib import Path\n"
        "from fl_rsna.imaging.dicom import read_slice\n"
        "from fl_rsna.imaging.rejections import Rejected\n"
        "try: read_slice(Path(sys.argv[1]).read_bytes(), modality='CT')\n"
        "except Rejected as why: print(why.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("excess_pixels\n", "")
