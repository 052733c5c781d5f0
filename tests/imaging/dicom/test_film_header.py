"""What a chest film's header states becomes facts; what is no frontal chest film to look at is named."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import HARD, PYDICOM, rewritten
from dicom_oddities import damages
from film_files import CR, DX, DX_RAW, FILMS, STORAGE, film_bytes, film_of, film_rejection, with_table, written
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from fl_rsna.imaging.dicom.padding import Padding
from fl_rsna.imaging.dicom.reader import Film, Slice, read_film, read_image
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.task import COVID_CXR, ICH, Task

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
needs_hard = pytest.mark.skipif(not HARD.is_dir(), reason=f"no hard DICOM files at {HARD}")

FILMS_OF_HARD = {  # what the chest task makes of files that are no head CT
    "test1.dcm": "film",  # a frontal chest film of 8 bits, stored as a secondary capture
    "test5.dcm": "wrong_modality Modality",  # the same film, Modality CT
    "RG3_J2KI.dcm": "wrong_body_part BodyPartExamined",  # a leg, MONOCHROME1
    "vlut_04.dcm": "wrong_modality Modality",  # test patterns
    "mlut_18.dcm": "wrong_modality Modality",
    "MR_Implicit_Little.dcm": "wrong_modality Modality",
    "OBXXXX1A_rle.dcm": "wrong_modality Modality",
    "no-pixel-data.dcm": "wrong_modality Modality",
    "OT_Implicit_Little_Headless.dcm": "not_dicom",
    "CTImage.dcm": "wrong_modality Modality",
}


@pytest.mark.parametrize(
    ("tags", "reason", "tag"),
    [
        ({"Modality": "CT"}, Reason.wrong_modality, "Modality"),
        ({"Modality": "RF"}, Reason.wrong_modality, "Modality"),
        ({"Modality": None}, Reason.wrong_modality, "Modality"),
        ({"sop_class": STORAGE + "2"}, Reason.wrong_modality, "SOPClassUID"),
        ({"sop_class": STORAGE + "1.2"}, Reason.wrong_modality, "SOPClassUID"),  # mammography
        ({"sop_class": STORAGE + "7", "ConversionType": "SD"}, Reason.secondary_capture, "ConversionType"),
        ({"sop_class": STORAGE + "7.2", "ConversionType": "drw"}, Reason.secondary_capture, "ConversionType"),
        ({"sop_class": STORAGE + "7.2", "NumberOfFrames": 3}, Reason.multi_frame, "NumberOfFrames"),
        (
            {"sop_class": STORAGE + "7", "PhotometricInterpretation": "RGB"},
            Reason.not_grey,
            "PhotometricInterpretation",
        ),
        ({"sop_class": DX_RAW}, Reason.not_for_presentation, "SOPClassUID"),
        ({"PresentationIntentType": "FOR PROCESSING"}, Reason.not_for_presentation, "PresentationIntentType"),
        ({"NumberOfFrames": 2}, Reason.multi_frame, "NumberOfFrames"),
        ({"BurnedInAnnotation": "YES"}, Reason.burned_in_text, "BurnedInAnnotation"),
        ({"PhotometricInterpretation": "RGB"}, Reason.not_grey, "PhotometricInterpretation"),
        ({"BitsStored": 12, "HighBit": 15}, Reason.bad_bits, "BitsStored"),
        ({"BitsAllocated": 32}, Reason.bad_bits, "BitsAllocated"),
        ({"PatientID": ""}, Reason.no_patient, "PatientID"),
        ({"image_id": "../x"}, Reason.bad_id, "SOPInstanceUID"),
    ],
)
def test_a_tag_that_rules_the_film_out_is_named(
    tmp_path: Path, tags: dict[str, object], reason: Reason, tag: str
) -> None:
    assert film_rejection(film_bytes(tmp_path, **tags)) == (reason, tag)


@pytest.mark.parametrize("sop_class", [CR, DX, "1.2.3.4", STORAGE + "7", STORAGE + "7.3"])
@pytest.mark.parametrize("modality", FILMS)
def test_both_kinds_of_films_are_read_by_either_name(tmp_path: Path, modality: str, sop_class: str) -> None:
    """A class that is no standard one says nothing against a film."""
    assert film_of(film_bytes(tmp_path, Modality=modality, sop_class=sop_class)).stored.shape == (4, 4)


@pytest.mark.parametrize(
    "part",
    ["", None, "CHEST", "chest", "PORT CHEST", "THORAX", "TORAX", "T?RAX", "2- TORAX", "Pecho", "LUNG", "UNKNOWN", "CHEST ABDOMEN"],
)  # fmt: skip
def test_chests_nothing_and_unknown_words_are_taken(tmp_path: Path, part: str | None) -> None:
    assert film_of(film_bytes(tmp_path, BodyPartExamined=part)).header.view == "PA"


@pytest.mark.parametrize("part", ["SKULL", "Skull ", "ABDOMEN", "C-SPINE", "CSPINE", "HAND", "EXTREMITY", "PELVIS"])
def test_another_part_of_the_body_is_named(tmp_path: Path, part: str) -> None:
    assert film_rejection(film_bytes(tmp_path, BodyPartExamined=part)) == (Reason.wrong_body_part, "BodyPartExamined")


def coded(value: str, scheme: str, meaning: str) -> dict[str, object]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


@pytest.mark.parametrize("view", ["", None, "AP", "PA", "ap", "AP SUPINE", "AP ERECT", "UNKNOWN"])
def test_frontal_and_unnamed_views_are_taken(tmp_path: Path, view: str | None) -> None:
    assert film_of(film_bytes(tmp_path, ViewPosition=view)).header.view == (view or "")


@pytest.mark.parametrize(
    "view", ["LL", "RL", "ll", "LLD", "RLD", "LLO", "LATERAL", "L LAT", "LAT-L", "DECUBITUS", "RAO"]
)
def test_another_view_is_named(tmp_path: Path, view: str) -> None:
    assert film_rejection(film_bytes(tmp_path, ViewPosition=view)) == (Reason.not_frontal, "ViewPosition")


@pytest.mark.parametrize(
    ("code", "view"),
    [
        (("272479007", "SCT", "postero-anterior"), "PA"),
        (("R-10206", "SRT", "antero-posterior"), "AP"),
        (("399033003", "SCT", "frontal"), ""),
        (("X1", "99LOCAL", "bedside"), ""),
        (("", "", ""), ""),
    ],
)
def test_a_frontal_view_may_be_told_by_its_code(tmp_path: Path, code: tuple[str, str, str], view: str) -> None:
    """The files of digital units have a code and need no ViewPosition; a word that is there is kept."""
    assert film_of(film_bytes(tmp_path, ViewPosition=None, ViewCodeSequence=[coded(*code)])).header.view == view
    assert film_of(film_bytes(tmp_path, ViewPosition="AP", ViewCodeSequence=[coded(*code)])).header.view == "AP"
    assert film_of(film_bytes(tmp_path, ViewPosition="", ViewCodeSequence=[])).header.view == ""


@pytest.mark.parametrize(
    "code",
    [
        ("399173006", "SCT", "left lateral"),
        ("R-10232", "SRT", "Profil droit"),
        ("399135007", "SCT", ""),
        ("", "", "Left lateral decubitus"),
        ("V7", "99LOCAL", "Oblique view"),
    ],
)
@pytest.mark.parametrize("position", [None, "", "PA"])
def test_another_view_is_named_by_its_code_too(
    tmp_path: Path, code: tuple[str, str, str], position: str | None
) -> None:
    """By its code in whatever language its meaning is, or by its meaning; a ViewPosition that disagrees saves nothing."""
    data = film_bytes(tmp_path, ViewPosition=position, ViewCodeSequence=[coded(*code)])
    assert film_rejection(data) == (Reason.not_frontal, "ViewCodeSequence")


@pytest.mark.parametrize("study", [None, "", "  "])
def test_a_film_that_names_no_study_is_one_by_itself(tmp_path: Path, study: str | None) -> None:
    assert film_of(film_bytes(tmp_path, StudyInstanceUID=study)).header.study_id == "ID_1"


def test_a_header_states_the_facts_of_the_index(tmp_path: Path) -> None:
    tags = {
        "ImagerPixelSpacing": [0.139, 0.143], "PixelSpacing": [1, 1], "Manufacturer": "ACME", "ManufacturerModelName": "X",
        "InstitutionName": "here", "BitsStored": 12, "WindowCenter": [100, 5], "WindowWidth": [50, 9],
        "PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 2, "RescaleIntercept": -1, "RescaleType": "OD",
    }  # fmt: skip
    header = film_of(film_bytes(tmp_path, np.zeros((3, 5), np.uint16), **tags)).header
    assert (header.image_id, header.patient_id, header.study_id, header.series_id) == ("ID_1", "P1", "ST_SE1", "SE1")
    assert (header.row_spacing_mm, header.column_spacing_mm, header.rows, header.columns) == (0.139, 0.143, 3, 5)
    assert (header.photometric, header.view, header.voi, header.bits_stored) == ("MONOCHROME1", "PA", "window", 12)
    assert (header.signed, header.slope, header.intercept) == (False, 2, -1)
    assert (header.window_center, header.window_width) == (100, 50)
    assert (header.scanner, header.origin) == ("ACME X", "here")
    bare = film_of(film_bytes(tmp_path, PixelSpacing=[0.2, 0.3])).header
    assert (bare.row_spacing_mm, bare.column_spacing_mm, bare.slope, bare.intercept) == (0.2, 0.3, 1, 0)
    assert (bare.voi, bare.window_center, bare.scanner) == ("percentiles", None, "")
    empty = film_of(
        film_bytes(tmp_path, RescaleSlope=None, RescaleIntercept="", WindowCenter="", WindowWidth="")
    ).header
    assert (empty.slope, empty.intercept, empty.voi) == (1, 0, "percentiles")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_tags_and_tables_are_read_in_every_byte_order(tmp_path: Path, syntax: str) -> None:
    """Signed pixels with padding, in implicit VR, where nothing says what kind of number a value is."""
    stored = np.arange(-8, 8, dtype=np.int16).reshape(4, 4)
    plain = film_bytes(tmp_path, stored, WindowCenter=0, WindowWidth=9, PixelRepresentation=1)
    ds = dcmread(tmp_path / "film.dcm")
    ds.add_new("PixelPaddingValue", "SS", -8)
    padded = written(ds)
    for data in (plain, padded, with_table(padded, "VOILUTSequence", -4, 16, [7, 9000, 65535])):
        one, other = film_of(data), film_of(rewritten(data, syntax))
        np.testing.assert_array_equal(one.stored, other.stored)
        assert one.presentation.padding == other.presentation.padding
        assert one.presentation.padding == (None if data is plain else Padding(first=-8, last=-8))
        assert one.presentation.window == other.presentation.window
        assert one.presentation.window is not None
        tables = [film.presentation.voi_lut for film in (one, other)]
        found = [(table.first, table.bits, table.entries.tolist()) for table in tables if table is not None]
        assert found == [(-4, 16, [7, 9000, 65535])] * (0 if data in (plain, padded) else 2)


def test_damaged_films_are_named_as_damaged_slices_are(tmp_path: Path) -> None:
    for name, (data, reason) in damages(film_bytes(tmp_path)).items():
        assert film_rejection(data)[0] is reason, name


def test_each_task_reads_its_own_and_names_the_others(tmp_path: Path) -> None:
    def outcome(data: bytes, task: Task) -> object:
        try:
            return type(read_image(data, rendering=task.rendering, modalities=task.modalities))
        except Rejected as why:
            return why.reason, why.tag

    film = film_bytes(tmp_path)
    slice_ = film_bytes(tmp_path, Modality="CT", sop_class=STORAGE + "2", RescaleSlope=1, RescaleIntercept=0)
    disguised = film_bytes(tmp_path, Modality="CT", RescaleSlope=1, RescaleIntercept=0)
    assert (outcome(film, COVID_CXR), outcome(slice_, ICH)) == (Film, Slice)
    assert outcome(slice_, COVID_CXR) == outcome(film, ICH) == (Reason.wrong_modality, "Modality")
    assert outcome(disguised, ICH) == (Reason.wrong_modality, "SOPClassUID")
    assert outcome(disguised, COVID_CXR) == (Reason.wrong_modality, "Modality")


def outcome_of(path: Path) -> str:
    try:
        read_film(path.read_bytes(), modalities=FILMS)
    except Rejected as why:
        return f"{why.reason} {why.tag}".strip()
    return "film"


@needs_hard
def test_hard_files_are_what_the_table_says() -> None:
    found = {path.name: outcome_of(path) for path in HARD.iterdir()}
    assert {name: found[name] for name in FILMS_OF_HARD} == FILMS_OF_HARD
    assert {found[name] for name in found.keys() - FILMS_OF_HARD.keys()} == {"wrong_modality Modality"}  # CTImage's kin


def test_pydicoms_own_films_are_no_chests() -> None:
    found = {path.name: outcome_of(path) for path in (PYDICOM / "dicomdirtests" / "77654033").rglob("CR?/*")}
    assert found == dict.fromkeys(("6154", "6247", "6278"), "wrong_body_part BodyPartExamined")


def test_an_uncompressed_film_is_a_view_of_its_file(tmp_path: Path) -> None:
    """Nothing is copied on the fast way; a film with a table takes the other one."""
    data = film_bytes(tmp_path, WindowCenter=5, WindowWidth=9)
    assert not film_of(data).stored.flags.owndata
    assert film_of(data).presentation.value_bits == 16
    twelve = film_bytes(tmp_path, BitsStored=12)
    assert [film_of(twelve, thorough=thorough).presentation.value_bits for thorough in (False, True)] == [12, 16]
