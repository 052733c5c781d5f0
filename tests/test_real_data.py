"""What synthetic files cannot prove: real RSNA slices and files that trouble converters."""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from package import DATA

from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.dicom.hounsfield import to_hu16
from fl_rsna.imaging.dicom.reader import Slice, read_slice
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.workers import convert_here
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

RSNA, HARD, TILT = DATA / "rsna", DATA / "hard_dicom", DATA / "tilt_dicom" / "tilt_dicom.tar.xz"
needs_rsna = pytest.mark.skipif(not RSNA.is_dir(), reason=f"no real RSNA slices at {RSNA}")
needs_tilt = pytest.mark.skipif(not TILT.is_file(), reason=f"no tilted slices at {TILT}")
needs_hard = pytest.mark.skipif(not HARD.is_dir(), reason=f"no hard DICOM files at {HARD}")
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets

CANNOT_BE_DECODED = ("JPEGProcess10_12", "JPEGProcess6_8")
LOSSY = ("JPEG2000Transfer", "JPEGLSLossy", "JPEGProcess1Transfer", "JPEGProcess2_4")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    request = Request(task=ICH, image=ImageKind.hu, size=64, hash_ids=False, salt="")
    inputs = find_inputs(RSNA, None, ICH, unlabelled=False, test_set=False)
    folder = tmp_path_factory.mktemp("rsna") / "rsna"
    return prepare_folder(folder, request, inputs.files, inputs.labels, max_rejected=0.05, convert=convert_here)


@needs_rsna
def test_every_labelled_slice_is_prepared_and_the_other_is_named(prepared: Prepared) -> None:
    assert len(prepared.index) == 58
    rejected = pd.read_csv(prepared.folder / "rejected.csv", keep_default_na=False)
    assert [(row.image_id, row.reason) for row in rejected.itertuples()] == [("ID_000000e27", Reason.no_label)]
    table = pd.read_csv(RSNA / "stage_2_train.csv")
    assert prepared.index["any"].sum() == table.loc[table["ID"].str.endswith("_any"), "Label"].sum()


@needs_rsna
def test_the_series_stands_in_its_order_in_space(prepared: Prepared) -> None:
    series = prepared.index[prepared.index["patient_id"] == "ID_fff502d5"]
    assert len(series) == 36
    assert list(series["rank"]) == list(range(36))
    census = pd.read_csv(RSNA / "slices.csv").set_index("SOPInstanceUID")
    heights = census.loc[series["image_id"], "z"].to_numpy()
    assert (np.diff(heights) > 0).all() or (np.diff(heights) < 0).all()
    positives = np.flatnonzero(series["any"])
    assert len(positives) == 11
    assert (np.diff(positives) == 1).all()  # a bleed is one piece: contiguous slices


@needs_rsna
def test_real_slices_are_heads_in_air(prepared: Prepared) -> None:
    series = prepared.index[prepared.index["patient_id"] == "ID_fff502d5"].set_index("image_id")
    middle = series.index[len(series) // 2]
    image = read_png(prepared.folder / "images" / f"{middle}.png").astype(int) - 1024
    assert image[0, 0] < -900  # air in the corner
    assert 0 < np.median(image[24:40, 24:40]) < 80  # brain in the middle
    assert series.loc[middle, "brain_share"] > 0.15
    assert 20 < series.loc[middle, "brain_hu_mean"] < 45


@needs_tilt
def test_tilted_slices_of_uneven_steps_stand_in_their_order_in_space(tmp_path: Path) -> None:
    """By pydicom's numbers and a formula of its own: a tilted stack's corners rise along z as its planes do."""
    with tarfile.open(TILT) as archive:
        archive.extractall(tmp_path / "tilt", filter="data")
    request = Request(task=ICH, image=ImageKind.hu, size=64, hash_ids=False, salt="")
    inputs = find_inputs(tmp_path / "tilt", None, ICH, unlabelled=True, test_set=False)
    made = prepare_folder(tmp_path / "set", request, inputs.files, None, max_rejected=0, convert=convert_here)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (tmp_path / "tilt").rglob("*.dcm")]
    height = {header.SOPInstanceUID: float(header.ImagePositionPatient[2]) for header in headers}
    sizes = []
    for _, series in made.index.groupby("series_id"):
        z = series["image_id"].map(height).to_numpy()
        assert (np.diff(z) > 0).all()
        cosine = np.cos(np.radians(series["tilt_deg"]))
        np.testing.assert_allclose(series["step_above_mm"][:-1], np.diff(z) * cosine[:-1], atol=1e-4)
        sizes.append(len(series))
    assert sorted(sizes) == [4, 4, 4, 28]
    assert (set(made.index["order"]), made.index["repeated_position"].any()) == ({"position"}, False)


def outcome(path: Path) -> Slice | Reason:
    try:
        return read_slice(path.read_bytes(), modalities=("CT",))
    except Rejected as why:
        return why.reason


@needs_hard
def test_every_hard_file_gives_a_slice_or_a_reason() -> None:
    outcomes = {path.name: outcome(path) for path in sorted(HARD.iterdir())}
    slices = {name for name, found in outcomes.items() if isinstance(found, Slice)}
    assert all(name.startswith("CTImage.dcm") for name in slices)
    undecodable = {name for name, found in outcomes.items() if found is Reason.undecodable}
    assert undecodable == {name for name in outcomes if any(syntax in name for syntax in CANNOT_BE_DECODED)}
    assert outcomes["OT_Implicit_Little_Headless.dcm"] is Reason.not_dicom
    assert outcomes["MR_Implicit_Little.dcm"] is Reason.wrong_modality
    assert outcomes["test5.dcm"] is Reason.secondary_capture


@needs_hard
def test_lossless_transfer_syntaxes_decode_to_the_same_slice() -> None:
    reference = read_slice((HARD / "CTImage.dcm").read_bytes(), modalities=("CT",))
    lossless = [path for path in HARD.glob("CTImage.dcm*") if not any(name in path.name for name in LOSSY + CANNOT_BE_DECODED)]  # fmt: skip
    assert len(lossless) == 10
    for path in lossless:
        slice_ = read_slice(path.read_bytes(), modalities=("CT",))
        np.testing.assert_array_equal(slice_.stored, reference.stored, err_msg=path.name)
        assert slice_.rescale == reference.rescale


@needs_hard
def test_lossy_transfer_syntaxes_decode_to_nearly_the_same_hounsfield_units() -> None:
    reference = read_slice((HARD / "CTImage.dcm").read_bytes(), modalities=("CT",))
    hu = to_hu16(reference.stored, reference.rescale).astype(int)
    for path in HARD.glob("CTImage.dcm*"):
        if any(name in path.name for name in LOSSY):
            slice_ = read_slice(path.read_bytes(), modalities=("CT",))
            error = np.abs(to_hu16(slice_.stored, slice_.rescale).astype(int) - hu).mean()
            assert error < 32, f"{path.name}: {error}"  # 8-bit files have steps of 32 HU
