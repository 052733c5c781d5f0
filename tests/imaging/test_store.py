"""Rendering keeps what it promises, and a PNG gives back exactly the array that was written."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from fl_rsna.imaging.dicom.hounsfield import Rescale
from fl_rsna.imaging.dicom.lut import Function, Window
from fl_rsna.imaging.dicom.radiograph import Presentation
from fl_rsna.imaging.png_store import fit_square, read_png, render, write_png
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.task import Rendering

SIGNED = Rescale(signed=True, slope=1.0, intercept=0.0)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"), [((2, 6), slice(2, 4), slice(0, 6)), ((6, 3), slice(0, 6), slice(1, 4))]
)
def test_a_slice_that_is_not_square_is_centred_in_air(shape: tuple[int, int], rows: slice, columns: slice) -> None:
    pixels = np.full(shape, 40, np.int16)
    image = render(pixels, SIGNED, kind=ImageKind.hu, size=6)
    expected = np.zeros((6, 6), np.uint16)  # 0 is -1024 HU
    expected[rows, columns] = 40 + 1024
    np.testing.assert_array_equal(image, expected)


def test_padding_of_windows_is_black() -> None:
    image = render(np.full((2, 4), 40, np.int16), SIGNED, kind=ImageKind.windows, size=4)
    assert image.shape == (4, 4, 3)
    assert not image[[0, 3]].any()
    assert (image[1:3] == (127, 76, 127)).all()


@pytest.mark.parametrize("kind", kinds_of(Rendering.hounsfield))
def test_a_square_slice_of_the_asked_size_is_only_translated(kind: ImageKind) -> None:
    pixels = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    image = render(pixels, SIGNED, kind=kind, size=8)
    back = image.astype(int) - 1024 if kind is ImageKind.hu else image[..., 1]
    expected = pixels if kind is ImageKind.hu else np.floor(255 * (pixels + 20.0).clip(0, 200) / 200)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("size", [32, 16, 24, 7])
def test_resizing_by_area_keeps_the_mean(size: int) -> None:
    image = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    small = fit_square(image, size)
    assert small.shape == (size, size)
    assert abs(small.mean() - image.mean()) < 0.5


def test_halving_is_the_mean_of_two_by_two() -> None:
    image = np.array([[0, 4, 100, 100], [8, 12, 100, 100], [1, 1, 0, 0], [1, 1, 0, 40]], np.uint16)
    np.testing.assert_array_equal(fit_square(image, 2), [[6, 100], [1, 10]])


def test_enlarging_stays_inside_the_range() -> None:
    image = np.array([[10, 20], [30, 40]], np.uint16)
    large = fit_square(image, 5)
    assert large.shape == (5, 5)
    assert large.min() >= 10
    assert large.max() <= 40


def arrays() -> dict[str, NDArray[np.uint8] | NDArray[np.uint16]]:
    rng = np.random.default_rng(1)
    return {
        "grey16": rng.integers(0, 65536, (5, 7)).astype(np.uint16),
        "grey8": rng.integers(0, 256, (5, 7)).astype(np.uint8),
        "rgb8": rng.integers(0, 256, (5, 7, 3)).astype(np.uint8),
    }


@pytest.mark.parametrize("name", list(arrays()))
def test_a_png_gives_back_the_array_to_us_and_to_other_readers(tmp_path: Path, name: str) -> None:
    image = arrays()[name]
    write_png(tmp_path / "a.png", image)
    ours, theirs = read_png(tmp_path / "a.png"), np.array(Pillow.open(tmp_path / "a.png"))
    assert ours.dtype == image.dtype
    np.testing.assert_array_equal(ours, image)
    np.testing.assert_array_equal(theirs, image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    image = arrays()["grey16"]
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "a.png", image + 1)
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), image + 1)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_an_unreadable_png_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.random.default_rng(2).integers(0, 4096, (32, 32)).astype(np.uint16))
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("no image")
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"expected a PNG image.*a\.png.*; prepare"):
        read_png(path)


@pytest.mark.parametrize("size", [8, 4])
def test_a_film_is_centred_in_black_and_resized_as_grey(size: int) -> None:
    stored = np.full((8, 4), 300, np.uint16)
    shown = Presentation(
        signed=False, window=Window(center=200, width=400, function=Function.LINEAR_EXACT), inverted=True
    )
    image = render(stored, shown, kind=ImageKind.grey, size=size)
    assert (image.dtype, image.shape) == (np.uint16, (size, size))
    assert not image[:, : size // 4].any()
    assert (image[:, size // 2 - 1 : size // 2 + 1] == 65535 - round(0.75 * 65535)).all()


def test_every_kind_is_of_one_rendering() -> None:
    kinds = [kind for rendering in Rendering for kind in kinds_of(rendering)]
    assert sorted(kinds) == sorted(ImageKind)
