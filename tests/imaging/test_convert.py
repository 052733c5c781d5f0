"""One file to one PNG and its facts: of the file alone, whatever stands beside it."""

import hashlib
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_tiny
from few_files import conversion, converted, only

from fl_rsna.imaging.convert import Converted, Refused, convert_files
from fl_rsna.imaging.dicom.rejections import MEANING, Reason
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.sources import File, find_files
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.task import Rendering


def test_each_file_gives_one_result_in_order(tmp_path: Path) -> None:
    for n in range(6):
        path = write_tiny(tmp_path / "dicom" / f"{n}.dcm", f"ID_{n}", hu=np.full((6, 5), n, np.int16))
        if n in (1, 4):
            path.write_bytes(b"no DICOM")
    results = converted(tmp_path / "dicom", tmp_path / "out")
    assert [isinstance(result, Refused) for result in results] == [False, True, False, False, True, False]
    names = [result.path if isinstance(result, Refused) else result.header.image_id for result in results]
    assert names == ["ID_0", "1.dcm", "ID_2", "ID_3", "4.dcm", "ID_5"]
    written = [result.written for result in results if isinstance(result, Converted)]
    assert sorted(written) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_files_with_one_id_are_all_converted(tmp_path: Path) -> None:
    """Which one is kept is decided where their order is known."""
    for name in ("a", "b"):
        write_tiny(tmp_path / "dicom" / name, "ID_same")
    results = converted(tmp_path / "dicom", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == len(results) == 2


@pytest.mark.parametrize("kind", kinds_of(Rendering.hounsfield))
def test_the_facts_of_a_png_are_those_of_its_bytes(tmp_path: Path, kind: ImageKind) -> None:
    write_tiny(tmp_path / "dicom" / "a", hu=np.arange(36, dtype=np.int16).reshape(6, 6))
    facts = only(tmp_path / "dicom", tmp_path / "out", kind=kind)
    content = (tmp_path / "out" / facts.written).read_bytes()
    assert facts.png_sha256 == hashlib.sha256(content).hexdigest()[:16]
    assert facts.png_bytes == len(content)
    assert read_png(tmp_path / "out" / facts.written).shape == ((4, 4) if kind is ImageKind.hu else (4, 4, 3))


def test_statistics_are_of_the_clipped_slice_before_resizing(tmp_path: Path) -> None:
    hu = np.array([[-3000, -1024, 0, 80], [40, 81, -1, 3071]], np.int16)  # three of eight in 0..80
    write_tiny(tmp_path / "dicom" / "a", hu=hu, PixelSpacing=[0.4, 0.6])
    facts = only(tmp_path / "dicom", tmp_path / "out")
    clipped = np.array([-1024, -1024, 0, 80, 40, 81, -1, 3071])
    assert (facts.header.rows, facts.header.columns) == (2, 4)
    assert facts.statistics.hu_mean == pytest.approx(clipped.mean())
    assert facts.statistics.hu_std == pytest.approx(clipped.std())
    assert (facts.statistics.hu_min, facts.statistics.hu_max, facts.statistics.padding_hu) == (-1024, 3071, -3000)
    assert (facts.statistics.brain_share, facts.statistics.brain_hu_mean, facts.statistics.brain_range_hu) == (
        3 / 8,
        40,
        80,
    )


def test_a_slice_of_air_has_no_brain_and_no_head(tmp_path: Path) -> None:
    write_tiny(tmp_path / "dicom" / "a", hu=np.full((3, 3), -1000, np.int16))
    facts = only(tmp_path / "dicom", tmp_path / "out").statistics
    assert (facts.brain_share, facts.brain_hu_mean, facts.brain_range_hu, facts.hu_std) == (0, 0, 0, 0)
    assert (facts.crop_top, facts.crop_left, facts.crop_bottom, facts.crop_right) == (0, 0, 3, 3)


def test_the_head_is_boxed_and_the_table_is_not(tmp_path: Path) -> None:
    hu = np.full((64, 64), -1000, np.int16)
    hu[10:40, 20:50], hu[60, :] = 40, 100
    write_tiny(tmp_path / "dicom" / "a", hu=hu)
    facts = only(tmp_path / "dicom", tmp_path / "out").statistics
    assert (facts.crop_top, facts.crop_left, facts.crop_bottom, facts.crop_right) == (10, 20, 40, 50)


def test_facts_do_not_depend_on_what_is_written(tmp_path: Path) -> None:
    write_tiny(tmp_path / "dicom" / "a", hu=np.arange(36, dtype=np.int16).reshape(6, 6))
    each = [only(tmp_path / "dicom", tmp_path / kind, kind=kind) for kind in kinds_of(Rendering.hounsfield)]
    assert asdict(each[0].header) == asdict(each[1].header)
    assert each[0].statistics == each[1].statistics


def test_a_disk_that_takes_nothing_is_no_property_of_the_file(tmp_path: Path) -> None:
    write_tiny(tmp_path / "dicom" / "a")
    work = conversion(tmp_path / "out")
    (tmp_path / "out").rmdir()
    with pytest.raises(OSError, match="out"):
        convert_files(work, 0, find_files(tmp_path / "dicom"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux only")
def test_a_file_that_needs_too_much_memory_is_named(tmp_path: Path) -> None:
    """In a process of its own, which it would harm; the next file is converted."""
    write_tiny(tmp_path / "dicom" / "a", "ID_a", hu=np.zeros((4096, 4096), np.int16))
    write_tiny(tmp_path / "dicom" / "b", "ID_b")
    (tmp_path / "out").mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from fl_rsna.imaging.convert import Conversion, convert_files\n"
        "from fl_rsna.imaging.sources import find_files\n"
        "from fl_rsna.settings.data import ImageKind\n"
        "from fl_rsna.common.process import limit_memory\n"
        "from fl_rsna.task import Rendering\n"
        "limit_memory(96 << 20)\n"
        "work = Conversion(incoming=Path(sys.argv[2]), rendering=Rendering.hounsfield, modalities=('CT',), kind=ImageKind.windows, size=4)\n"
        "for result in convert_files(work, 0, find_files(Path(sys.argv[1]))): print(getattr(result, 'reason', 'slice'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "dicom", tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [Reason.too_large, "slice"]


def every_pattern(folder: Path, bits: int, sign: int, slope: float, intercept: float) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    write_tiny(
        folder / "a", hu=every.view(np.int16) if sign else every, BitsStored=bits, HighBit=bits - 1, RescaleSlope=slope,
        RescaleIntercept=intercept,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "sign", "slope", "intercept", "wrapped"),
    [
        (16, 1, 1.0, -1024.0, False),
        (12, 0, 1.0, -1024.0, False),
        (12, 0, 1.0, 1.0, True),
        (12, 1, 0.5, -10.5, False),
        (16, 0, 0.1, -1000.3, False),
        (16, 0, 1.0, 0.0, False),
        (16, 1, 0.5, -1000.0, False),
        (16, 0, 2.0, -3000.5, False),
    ],
)
def test_every_stored_value_there_is_arrives_in_the_png(
    tmp_path: Path, bits: int, sign: int, slope: float, intercept: float, wrapped: bool
) -> None:
    """From 256 x 256 DICOM to a PNG of that size, against the formulas in float64: zero pixels differ."""
    every_pattern(tmp_path / "dicom", bits, sign, slope, intercept)
    values = np.arange(65536) % 2**bits
    values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if sign else values
    values = np.where(values >= 3000, values - 4096, values) if wrapped else values
    hu = values.reshape(256, 256) * np.float64(slope) + np.float64(intercept)
    facts = only(tmp_path / "dicom", tmp_path / "hu", size=256)
    np.testing.assert_array_equal(read_png(tmp_path / "hu" / facts.written), np.rint(hu.clip(-1024, 3071)) + 1024)
    facts = only(tmp_path / "dicom", tmp_path / "windows", kind=ImageKind.windows, size=256)
    grey = read_png(tmp_path / "windows" / facts.written)
    for channel, (low, width) in enumerate([(0, 80), (-20, 200), (-150, 380)]):
        np.testing.assert_array_equal(grey[..., channel], np.floor(255 * (hu.clip(low, low + width) - low) / width))


def test_a_number_in_the_list_names_the_png(tmp_path: Path) -> None:
    """So that chunks never write to each other's files."""
    path = write_tiny(tmp_path / "dicom" / "a")
    (result,) = convert_files(conversion(tmp_path / "out"), 1234, [File("a", str(path), path.stat().st_size)])
    assert isinstance(result, Converted)
    assert result.written.startswith("1234-")


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dicom" / "loop").symlink_to(tmp_path / "dicom" / "loop")
    results = converted(tmp_path / "dicom", tmp_path / "out")
    assert [result.reason for result in results if isinstance(result, Refused)] == [Reason.unreadable] * 2


def test_every_reason_says_what_it_means() -> None:
    assert set(MEANING) == set(Reason)
