"""Many files: one result each in their order, the same bytes whoever converts, and facts of the unresized slice."""

import functools
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_tiny

from fl_rsna.imaging.convert import Conversion, Converted, Refused
from fl_rsna.imaging.files import File, find_files
from fl_rsna.imaging.rejections import MEANING, Reason
from fl_rsna.imaging.store import ImageKind, read_png
from fl_rsna.imaging.workers import Converter, chunks_from, convert_here, convert_local, convert_on_ray


def converted(files: list[File], incoming: Path, convert: Converter = convert_here) -> list[Converted | Refused]:
    incoming.mkdir()
    work = Conversion(incoming=incoming, modality="CT", kind=ImageKind.hu, size=4)
    return [result for chunk in convert(work, chunks_from(files, 0)) for result in chunk]


def many(folder: Path) -> list[File]:
    """70 files, more than two chunks: every tenth is no DICOM."""
    for n in range(70):
        path = write_tiny(folder / f"{n:03d}.dcm", f"ID_{n}", z=n, hu=np.full((6, 5), n, np.int16))
        if n % 10 == 3:
            path.write_bytes(b"no DICOM")
    return find_files(folder)


def outcome(results: list[Converted | Refused], incoming: Path) -> list[tuple[object, ...]]:
    """What does not depend on who converted: facts and bytes of each slice, or the row of its rejection."""
    return [
        (result.header, result.statistics, result.png_sha256, (incoming / result.written).read_bytes())
        if isinstance(result, Converted)
        else (result,)
        for result in results
    ]


@pytest.mark.parametrize(
    "convert",
    [
        functools.partial(convert_local, workers=2),
        pytest.param(functools.partial(convert_on_ray, workers=2), marks=pytest.mark.slow),
    ],
    ids=["local", "ray"],
)
def test_whoever_converts_the_results_are_the_same(tmp_path: Path, convert: Converter) -> None:
    files = many(tmp_path / "dicom")
    here = outcome(converted(files, tmp_path / "here"), tmp_path / "here")
    there = outcome(converted(files, tmp_path / "there", convert), tmp_path / "there")
    assert here == there
    assert [row[0].path for row in here if isinstance(row[0], Refused)] == [f"{n:03d}.dcm" for n in range(3, 70, 10)]


def test_statistics_are_of_the_clipped_slice_before_resizing(tmp_path: Path) -> None:
    hu = np.array([[-3000, -1024, 0, 80], [40, 81, -1, 3071]], np.int16)  # three of eight in 0..80
    write_tiny(tmp_path / "dicom" / "a.dcm", hu=hu, PixelSpacing=[0.4, 0.6])
    (result,) = converted(find_files(tmp_path / "dicom"), tmp_path / "images")
    assert isinstance(result, Converted)
    clipped = np.array([-1024, -1024, 0, 80, 40, 81, -1, 3071])
    facts = result.statistics
    assert (result.header.rows, result.header.columns) == (2, 4)
    assert (facts.hu_min, facts.hu_max, facts.padding_hu, facts.brain_range_hu) == (-1024, 3071, -3000, 80)
    assert facts.hu_mean == pytest.approx(clipped.mean())
    assert facts.hu_std == pytest.approx(clipped.std())
    assert (facts.brain_share, facts.brain_hu_mean) == (3 / 8, 40)


def test_a_slice_of_air_has_no_brain_and_no_head(tmp_path: Path) -> None:
    write_tiny(tmp_path / "dicom" / "a.dcm", hu=np.full((3, 3), -1000, np.int16))
    (result,) = converted(find_files(tmp_path / "dicom"), tmp_path / "images")
    assert isinstance(result, Converted)
    facts = result.statistics
    assert (facts.brain_share, facts.brain_hu_mean, facts.brain_range_hu, facts.hu_std) == (0, 0, 0, 0)
    assert (facts.crop_top, facts.crop_left, facts.crop_bottom, facts.crop_right) == (0, 0, 3, 3)


def test_the_head_is_boxed_and_the_table_is_not(tmp_path: Path) -> None:
    hu = np.full((64, 64), -1000, np.int16)
    hu[10:40, 20:50], hu[60, :] = 40, 100
    write_tiny(tmp_path / "dicom" / "a.dcm", hu=hu)
    (result,) = converted(find_files(tmp_path / "dicom"), tmp_path / "images")
    assert isinstance(result, Converted)
    facts = result.statistics
    assert (facts.crop_top, facts.crop_left, facts.crop_bottom, facts.crop_right) == (10, 20, 40, 50)


@pytest.mark.parametrize("rescale", [(1.0, -1024.0), (1.0, 0.0), (0.5, -1000.0), (2.0, -3000.5)])
@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_every_stored_value_is_exact_in_the_png(tmp_path: Path, rescale: tuple[float, float], kind: type) -> None:
    stored = np.arange(65536, dtype=np.uint16).view(kind).reshape(256, 256)
    write_tiny(tmp_path / "dicom" / "a.dcm", hu=stored, RescaleSlope=rescale[0], RescaleIntercept=rescale[1])
    (tmp_path / "out").mkdir()
    work = Conversion(incoming=tmp_path / "out", modality="CT", kind=ImageKind.hu, size=256)
    ((result,),) = convert_here(work, chunks_from(find_files(tmp_path / "dicom"), 0))
    assert isinstance(result, Converted)
    expected = np.rint(np.clip(stored.astype(np.float64) * rescale[0] + rescale[1], -1024, 3071)) + 1024
    np.testing.assert_array_equal(read_png(tmp_path / "out" / result.written), expected)


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dicom" / "loop").symlink_to(tmp_path / "dicom" / "loop")
    results = converted(find_files(tmp_path / "dicom"), tmp_path / "images")
    assert [result.reason for result in results if isinstance(result, Refused)] == [Reason.unreadable] * 2


def test_every_reason_says_what_it_means() -> None:
    assert set(MEANING) == set(Reason)
