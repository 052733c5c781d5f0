"""Files that others collected because they trouble readers: each is a slice or a named rejection, as the table says."""

from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from dicom_files import HARD, PYDICOM

from fl_rsna.imaging.convert import Conversion, Converted, convert_files
from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Rejected
from fl_rsna.imaging.sources import find_files
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.task import Rendering

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
needs_hard = pytest.mark.skipif(not HARD.is_dir(), reason=f"no hard DICOM files at {HARD}")

SLICE = "slice"
LOSSLESS = ("", "*Endian*", "*Lossless[OT]*", "*Process14*")  # of CTImage.dcm's transfer syntaxes

Table = dict[
    str, tuple[str, str]
]  # pattern -> (Modality, outcome when that modality is asked for); the first that fits

HARD_FILES: Table = {
    "CTImage.dcm*JPEGProcess10_12*": ("CT", "undecodable PixelData"),
    "CTImage.dcm*JPEGProcess6_8*": ("CT", "undecodable PixelData"),
    "CTImage.dcm*": ("CT", SLICE),
    "test5.dcm": ("CT", "secondary_capture SOPClassUID"),  # a chest film
    "test1.dcm": ("DX", "secondary_capture SOPClassUID"),
    "mlut_18.dcm": ("OT", "secondary_capture SOPClassUID"),  # with a modality LUT
    "vlut_04.dcm": ("OT", "secondary_capture SOPClassUID"),  # with a VOI LUT
    "MR_Implicit_Little.dcm": ("MR", "no_rescale RescaleSlope"),
    "RG3_J2KI.dcm": ("CR", "no_rescale RescaleSlope"),
    "OBXXXX1A_rle.dcm": ("US", "not_grey PhotometricInterpretation"),
    "no-pixel-data.dcm": ("SR", "no_pixels PixelData"),
    "OT_Implicit_Little_Headless.dcm": ("", "not_dicom"),
}

PYDICOM_FILES: Table = {
    "CT_small.dcm": ("CT", SLICE),
    "693_J2KI.dcm": ("CT", SLICE),
    "J2K_pixelrep_mismatch.dcm": ("CT", SLICE),  # its codestream is unsigned, its header signed
    "dicomdirtests/77654033/CT2/*": ("CT", SLICE),
    "dicomdirtests/98892001/CT5N/*": ("CT", SLICE),
    "dicomdirtests/98892001/CT2N/*": ("CT", "localizer ImageType"),
    "dicomdirtests/TINY_ALPHA/PT000000/*": ("CT", "no_pixels PixelData"),
    "dicomdirtests/77654033/CR*/*": ("CR", "not_hounsfield RescaleType"),  # optical density
    "dicomdirtests/98892003/MR*/*": ("MR", "no_rescale RescaleSlope"),
    "MR_small*.dcm": ("MR", "no_rescale RescaleSlope"),
    "MR_truncated.dcm": ("MR", "no_rescale RescaleSlope"),
    "examples_overlay.dcm": ("MR", "no_rescale RescaleSlope"),
    "JPEGLSNearLossless_*.dcm": ("", "wrong_modality Modality"),
    "JP*.dcm": ("NM", "secondary_capture SOPClassUID"),
    "image_dfl.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_dcmtk*.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_small_odd*.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_rle*.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_gdcm_KY.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_jpeg.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_jpeg_dcmd.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_jpeg_dcmtk.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_rgb_jpeg*gdcm.dcm": ("OT", "secondary_capture SOPClassUID"),
    "SC_ybr_full_422_uncompressed.dcm": ("OT", "secondary_capture SOPClassUID"),
    "examples_palette.dcm": ("US", "not_grey PhotometricInterpretation"),
    "examples_rgb_color.dcm": ("US", "not_grey PhotometricInterpretation"),
    "examples_jpeg2k.dcm": ("US", "not_grey PhotometricInterpretation"),
    "examples_ybr_color.dcm": ("US", "multi_frame NumberOfFrames"),
    "ExplVR_BigEnd.dcm": ("US", "not_grey PhotometricInterpretation"),
    "badVR.dcm": ("RTDOSE", "bad_bits BitsAllocated"),  # 32 bits; its number of frames is no number
    "rtdose*1frame.dcm": ("RTDOSE", "bad_bits BitsAllocated"),  # 32 bits
    "rtdose*.dcm": ("RTDOSE", "multi_frame NumberOfFrames"),
    "liver*1frame.dcm": ("SEG", "bad_bits BitsAllocated"),  # 1 bit
    "rtplan*.dcm": ("RTPLAN", "no_pixels PixelData"),
    "reportsi*.dcm": ("SR", "no_pixels PixelData"),
    "test-SR.dcm": ("SR", "no_pixels PixelData"),
    "waveform_ecg.dcm": ("ECG", "no_pixels PixelData"),
    "meta_missing_tsyntax.dcm": ("", "no_meta_header TransferSyntaxUID"),
    "ExplVR_*NoMeta.dcm": ("", "not_dicom"),
    "no_meta.dcm": ("", "not_dicom"),
    "rtstruct.dcm": ("", "not_dicom"),  # without preamble
    "*README*": ("", "not_dicom"),
    "*.json": ("", "not_dicom"),
    "*.dump": ("", "not_dicom"),
    "crayons.icc": ("", "not_dicom"),
    "zipMR.gz": ("", "not_dicom"),
    "*DICOMDIR*": ("", "wrong_modality Modality"),
    "SC_*.dcm": ("", "wrong_modality Modality"),  # without a Modality, from here on
    "GDCMJ2K_TextGBR.dcm": ("", "wrong_modality Modality"),
    "UN_sequence.dcm": ("", "wrong_modality Modality"),
    "empty_charset_LEI.dcm": ("", "wrong_modality Modality"),
    "*priv_SQ.dcm": ("", "wrong_modality Modality"),
    "no_meta_group_length.dcm": ("", "wrong_modality Modality"),
}


def outcome(path: Path, modality: str) -> str:
    try:
        read_slice(path.read_bytes(), modalities=(modality,))
    except Rejected as why:
        return f"{why.reason} {why.tag}".strip()
    return SLICE


@cache
def below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def entry(path: Path, root: Path, table: Table) -> tuple[str, str] | None:
    name = path.relative_to(root).as_posix()
    return next((row for pattern, row in table.items() if fnmatch(name, pattern)), None)


@pytest.mark.parametrize(
    ("root", "table"), [pytest.param(HARD, HARD_FILES, marks=needs_hard, id="hard"), pytest.param(PYDICOM, PYDICOM_FILES, id="pydicom")]
)  # fmt: skip
def test_every_file_is_what_the_table_says(root: Path, table: Table) -> None:
    found, as_ct = {}, {}
    for path in below(root):
        modality, expected = entry(path, root, table) or ("", "not in the table")
        found[path.name, expected] = outcome(path, modality or "CT")
        if modality not in ("", "CT"):
            as_ct[path.name] = outcome(path, "CT")
    assert {key: value for key, value in found.items() if value != key[1]} == {}
    assert set(as_ct.values()) == {"wrong_modality Modality"}


@pytest.mark.parametrize("pattern", list(PYDICOM_FILES))
def test_no_row_of_the_table_is_idle(pattern: str) -> None:
    names = [path.relative_to(PYDICOM).as_posix() for path in below(PYDICOM)]
    if not any(fnmatch(name, pattern) for name in names):
        pytest.skip(f"{pattern} does not come with this pydicom and is not downloaded")
    rows = list(PYDICOM_FILES)
    first = {
        next(row for row in rows if fnmatch(name, row)) for name in names if any(fnmatch(name, row) for row in rows)
    }
    assert pattern in first


@needs_hard
@pytest.mark.parametrize("kind", kinds_of(Rendering.hounsfield))
def test_lossless_transfer_syntaxes_of_a_slice_give_the_same_png(tmp_path: Path, kind: ImageKind) -> None:
    same = {path for pattern in LOSSLESS for path in HARD.glob(f"CTImage.dcm{pattern}")}
    files = [file for file in find_files(HARD) if Path(file.path) in same]
    results = convert_files(
        Conversion(incoming=tmp_path, rendering=Rendering.hounsfield, modalities=("CT",), kind=kind, size=512), 0, files
    )
    assert len(results) == 10
    slices = [result for result in results if isinstance(result, Converted)]
    assert len({(tmp_path / result.written).read_bytes() for result in slices}) == 1
    assert {str(result.statistics) for result in slices} == {str(slices[0].statistics)}
    assert len(slices) == 10
