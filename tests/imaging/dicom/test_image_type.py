"""ImageType tells pictures from measured slices, in the words that makers and archives use; a direction tells the rest."""

from pathlib import Path

import pytest
from dicom_oddities import rejection, tiny

from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Reason

NO_PLANE = ["ImagePositionPatient", "ImageOrientationPatient"]
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


@pytest.mark.parametrize("without", [[], NO_PLANE])
@pytest.mark.parametrize(
    "image_type",
    [
        r"DERIVED\SECONDARY\SCREEN SAVE",
        r"DERIVED\SECONDARY\SCREEN_SAVE",
        r"ORIGINAL\PRIMARY\Screen Save",
        r"DERIVED\SECONDARY\OTHER\SCREENSHOT",
        r"DERIVED\SECONDARY\DOSE_INFO",
        r"DERIVED\SECONDARY\DOSE REPORT",
        r"DERIVED\SECONDARY\DOSE",
        r"DERIVED\SECONDARY\OTHER\CT_SOM5 PROT",
        r"ORIGINAL\SECONDARY\PATIENT PROTOCOL",
        r"DERIVED\SECONDARY\VRT",
        r"DERIVED\SECONDARY\AXIAL\VOLUME_RENDERING",
        r"DERIVED\SECONDARY\3D",
        r"DERIVED\SECONDARY\OTHER\CSA BLACK IMAGE",
        r"DERIVED\SECONDARY\MIP",
        r"DERIVED\PRIMARY\AXIAL\MIP_THIN",
        r"DERIVED\SECONDARY\REFORMATTED\MIN_IP",
        r"DERIVED\SECONDARY\PROJECTION IMAGE\CSA MIP",
        r"DERIVED\SECONDARY\CURVED MPR",
        r"DERIVED\PRIMARY\PERFUSION\CBF",
        r"DERIVED\PRIMARY\PERFUSION",
        r"DERIVED\SECONDARY\AXIAL\TMAX",
        r"DERIVED\SECONDARY\FUSION",
        r"DERIVED\SECONDARY\AXIAL\SUBTRACTED",
        r"DERIVED\PRIMARY\AXIAL\MAT_SPECIFIC",
    ],
)
def test_a_picture_is_no_measured_slice(tmp_path: Path, image_type: str, without: list[str]) -> None:
    data = tiny(tmp_path, ImageType=image_type.split("\\"), without=without)
    assert rejection(data) == (Reason.secondary_capture, "ImageType")


@pytest.mark.parametrize("without", [[], NO_PLANE])
@pytest.mark.parametrize(
    "image_type",
    [
        r"ORIGINAL\PRIMARY\AXIAL",
        r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI",
        r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SEQ",
        r"ORIGINAL\PRIMARY\AXIAL\HELIX",
        r"ORIGINAL\PRIMARY\AXIAL\ADD",
        r"ORIGINAL\PRIMARY\AXIAL\LOW DOSE",
        r"ORIGINAL\PRIMARY\AXIAL\AIDR 3D",
        r"ORIGINAL\PRIMARY\PERFUSION\NONE",
        r"DERIVED\PRIMARY\AXIAL",
        r"DERIVED\SECONDARY\AXIAL",
        r"DERIVED\SECONDARY\REFORMATTED\AVERAGE",
        r"DERIVED\SECONDARY\MPR",
        r"DERIVED\PRIMARY\AXIAL\CT_SOM5 SPI DUAL MIX",
        r"DERIVED\SECONDARY",
    ],
)
def test_a_measured_slice_is_kept_whoever_wrote_it_again(tmp_path: Path, image_type: str, without: list[str]) -> None:
    tags = {"ImageType": image_type.split("\\"), "RescaleIntercept": -1024, "without": without}
    assert read_slice(tiny(tmp_path, **tags), modalities=("CT",)).header.image_id == "ID_1"


@pytest.mark.parametrize("image_type", [r"DERIVED\SECONDARY", r"DERIVED\SECONDARY\TABLE", r"ORIGINAL\SECONDARY\OTHER"])
def test_without_a_plane_an_image_that_nothing_calls_a_slice_is_none(tmp_path: Path, image_type: str) -> None:
    tags = {"ImageType": image_type.split("\\"), "RescaleSlope": 1, "RescaleIntercept": 0}
    assert rejection(tiny(tmp_path, **tags, without=NO_PLANE)) == (Reason.secondary_capture, "ImageType")
    assert read_slice(tiny(tmp_path, **tags), modalities=("CT",)).header.tilt_deg == 0


@pytest.mark.parametrize(
    "image_type",
    [
        r"ORIGINAL\PRIMARY\SCOUT",
        r"ORIGINAL\PRIMARY\LOCALIZER\CT_SOM5 TOP",
        r"ORIGINAL\PRIMARY\AXIAL\CT_SOM7 TOP",
        "TOPOGRAM",
    ],
)
def test_a_scout_is_named_by_any_of_its_words(tmp_path: Path, image_type: str) -> None:
    assert rejection(tiny(tmp_path, ImageType=image_type.split("\\"))) == (Reason.localizer, "ImageType")


@pytest.mark.parametrize(
    "orientation", [[1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0.6, -0.8], [0, 0, 1, 0, 1, 0]]
)
@pytest.mark.parametrize("image_type", [r"ORIGINAL\PRIMARY\AXIAL", r"DERIVED\SECONDARY\MPR"])
def test_the_direction_decides_whatever_the_image_is_called(
    tmp_path: Path, orientation: list[float], image_type: str
) -> None:
    data = tiny(tmp_path, ImageType=image_type.split("\\"), ImageOrientationPatient=orientation)
    assert rejection(data) == (Reason.not_axial, "ImageOrientationPatient")
    lost = tiny(tmp_path, ImageOrientationPatient=orientation, without=["ImagePositionPatient"])
    assert rejection(lost) == (Reason.not_axial, "ImageOrientationPatient")


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 0.8, -0.6], [0.8, 0, 0.6, 0, 1, 0], [-1, 0, 0, 0, 0.8, -0.6]])
def test_a_tilted_slice_is_axial(tmp_path: Path, orientation: list[float]) -> None:
    header = read_slice(tiny(tmp_path, ImageOrientationPatient=orientation), modalities=("CT",)).header
    assert header.tilt_deg == pytest.approx(36.87, abs=0.01)
