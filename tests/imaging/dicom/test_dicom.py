"""A file gives a slice or a Rejected with the tag that decided: never another error, never a line on the screen."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import element, inserted, rewritten
from dicom_oddities import PIXELS, RAMP, damages, hu_of, nested, rejection, same_slices, tiny
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Reason

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


def test_a_written_slice_is_read_back(tmp_path: Path) -> None:
    hu = np.arange(-6, 6, dtype=np.int16).reshape(3, 4)
    slice_ = read_slice(
        tiny(tmp_path, image_id="ID_a", patient="P7", series="SE9", z=12.5, hu=hu, PixelSpacing=[0.4, 0.6], SliceThickness=5,
             InstitutionName="Clinic", Manufacturer="Maker", ManufacturerModelName="Model", WindowCenter=40, WindowWidth=80),
        modalities=("CT",),
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


def test_what_must_not_matter_does_not(tmp_path: Path) -> None:
    for name, data in same_slices(tmp_path).items():
        slice_ = read_slice(data, modalities=("CT",))
        np.testing.assert_array_equal(hu_of(slice_), RAMP, err_msg=name)
        assert (slice_.header.patient_id, slice_.header.image_id) == ("P1", "ID_1"), name


def test_a_small_file_that_inflates_without_end_is_named(tmp_path: Path) -> None:
    whole = rewritten(tiny(tmp_path), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")  # the meta header's own length stands at its begin
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(element(0x00080005, "UT", b"", 0x7FFFFFFF))
    packed += b"".join(packer.compress(bytes(1 << 24)) for _ in range(20)) + packer.flush()
    data = whole[:start] + packed
    assert len(data) < 1 << 21
    assert rejection(data) == (Reason.too_large, "")


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
        "from fl_rsna.imaging.dicom.reader import read_slice\n"
        "from fl_rsna.imaging.dicom.rejections import Rejected\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(read_slice(Path(name).read_bytes(), modalities=('CT',)).stored.shape)\n"
        "    except Rejected as why: print(why.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(tmp_path / name for name in files)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0::3] == ["(64, 64)", "truncated_pixels"]
