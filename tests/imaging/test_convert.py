"""Many files: results in the order of the paths, the first of duplicates, the same bytes for any number of workers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_tiny

from fl_rsna.imaging.convert import Converted, Refused, convert_files
from fl_rsna.imaging.dicom import Reason
from fl_rsna.imaging.store import ImageKind, read_png


def converted(
    paths: Sequence[Path],
    images: Path,
    *,
    kind: ImageKind = ImageKind.hu,
    workers: int = 1,
    wanted: Callable[[str], bool] = lambda image_id: True,
) -> list[Converted | Refused]:
    images.mkdir()
    return list(convert_files(paths, images, modality="CT", kind=kind, size=4, workers=workers, wanted=wanted))


def many(folder: Path) -> list[Path]:
    """100 files, more than three batches of one worker: every tenth is no DICOM, every seventh repeats id ID_0."""
    paths = []
    for n in range(100):
        path = folder / f"{n:03d}.dcm"
        write_tiny(path, "ID_0" if n % 7 == 0 else f"ID_{n}", z=n, hu=np.full((6, 5), n, np.int16))
        if n % 10 == 3:
            path.write_bytes(b"no DICOM")
        paths.append(path)
    return paths


def test_results_come_in_the_order_of_the_paths(tmp_path: Path) -> None:
    paths = many(tmp_path / "dicom")[::-1]
    assert [result.path for result in converted(paths, tmp_path / "images", workers=3)] == paths


def test_one_worker_and_three_write_the_same(tmp_path: Path) -> None:
    paths = many(tmp_path / "dicom")
    one = converted(paths, tmp_path / "one", workers=1)
    three = converted(paths, tmp_path / "three", workers=3)
    assert one == three
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "three")]
    assert files[0] == files[1]
    assert sorted(files[0]) == sorted(f"{result.image_id}.png" for result in one if isinstance(result, Converted))


def test_of_files_with_one_id_the_first_is_kept(tmp_path: Path) -> None:
    paths = [
        write_tiny(tmp_path / name / "a.dcm", "ID_same", hu=np.full((4, 4), hu, np.int16))
        for name, hu in [("z", 10), ("a", 20), ("m", 30)]
    ]
    first, second, third = converted(paths, tmp_path / "images")
    assert isinstance(first, Converted)
    assert isinstance(second, Refused)
    assert (second.reason, second.tag, second.detail) == (Reason.duplicate_id, "SOPInstanceUID", "ID_same")
    assert isinstance(third, Refused)
    assert third.reason is Reason.duplicate_id
    assert (read_png(tmp_path / "images" / "ID_same.png") == 10 + 1024).all()


def test_an_unreadable_file_does_not_use_up_its_id(tmp_path: Path) -> None:
    broken, whole = write_tiny(tmp_path / "a.dcm", "ID_same"), write_tiny(tmp_path / "b.dcm", "ID_same")
    broken.write_bytes(broken.read_bytes()[:-2])
    first, second = converted([broken, whole], tmp_path / "images")
    assert isinstance(first, Refused)
    assert first.reason is Reason.truncated_pixels
    assert isinstance(second, Converted)


def test_an_image_nobody_wants_is_named_and_not_written(tmp_path: Path) -> None:
    paths = [write_tiny(tmp_path / f"{name}.dcm", name) for name in ("ID_a", "ID_b")]
    kept, refused = converted(paths, tmp_path / "images", wanted=lambda image_id: image_id == "ID_a")
    assert isinstance(kept, Converted)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.image_id) == (Reason.no_label, "ID_b")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["ID_a.png"]


def test_statistics_are_of_the_clipped_slice_before_resizing(tmp_path: Path) -> None:
    hu = np.array([[-3000, -1024, 0, 80], [40, 81, -1, 3071]], np.int16)  # three of eight in 0..80
    (facts,) = converted([write_tiny(tmp_path / "a.dcm", hu=hu, PixelSpacing=[0.4, 0.6])], tmp_path / "images")
    assert isinstance(facts, Converted)
    clipped = np.array([-1024, -1024, 0, 80, 40, 81, -1, 3071])
    assert (facts.rows, facts.columns, facts.row_spacing_mm, facts.column_spacing_mm) == (2, 4, 0.4, 0.6)
    assert facts.hu_mean == pytest.approx(clipped.mean())
    assert facts.hu_std == pytest.approx(clipped.std())
    assert facts.brain_share == 3 / 8
    assert facts.brain_hu_mean == 40


def test_a_slice_of_air_has_no_brain(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "a.dcm", hu=np.full((3, 3), -1000, np.int16))
    (facts,) = converted([path], tmp_path / "images")
    assert isinstance(facts, Converted)
    assert (facts.hu_mean, facts.hu_std, facts.brain_share, facts.brain_hu_mean) == (-1000, 0, 0, 0)


def test_statistics_do_not_depend_on_what_is_written(tmp_path: Path) -> None:
    paths = [write_tiny(tmp_path / "a.dcm", hu=np.arange(36, dtype=np.int16).reshape(6, 6))]
    assert converted(paths, tmp_path / "hu") == converted(paths, tmp_path / "windows", kind=ImageKind.windows)
    assert read_png(tmp_path / "hu" / "ID_1.png").shape == (4, 4)
    assert read_png(tmp_path / "windows" / "ID_1.png").shape == (4, 4, 3)


def test_closing_early_ends_the_work(tmp_path: Path) -> None:
    paths = many(tmp_path / "dicom")
    (tmp_path / "images").mkdir()
    results = convert_files(
        paths, tmp_path / "images", modality="CT", kind=ImageKind.hu, size=4, workers=1, wanted=lambda image_id: True
    )
    next(results)
    results.close()
    assert len(list((tmp_path / "images").iterdir())) <= 32  # of one batch
