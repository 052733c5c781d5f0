"""Negative values stored modulo a power of two are restored; metal that looks like them is not."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import rewritten, write_tiny
from few_files import only
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.statistics import Statistics

SIZE = 64
DISTANCE = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 31.5))
NOISE = np.random.default_rng(0).normal(0, 5, (SIZE, SIZE))


def head(air: float = -1000, radius: float = 24) -> NDArray[np.int32]:
    """HU of a head with fat under the skin, bone and brain, in air; noise of 5 HU everywhere."""
    depth = radius - DISTANCE
    tissue = np.select([depth > 6, depth > 3, depth > 0], [30, 1000, -90], air)
    return np.rint(tissue + NOISE).astype(np.int32)


def with_metal(hu: NDArray[np.int32], value: int, side: int = 8) -> NDArray[np.int32]:
    made = hu.copy()
    made[32 : 32 + side, 32 : 32 + side] = value
    return made


def prepared(
    folder: Path, stored: NDArray[np.integer], bits: int, intercept: float, syntax: str | None = None
) -> tuple[NDArray[np.integer], Statistics]:
    path = write_tiny(
        folder / "in" / "a",
        hu=stored.astype(np.uint16),
        BitsStored=bits,
        HighBit=bits - 1,
        RescaleIntercept=intercept,
    )
    if syntax:
        path.write_bytes(rewritten(path.read_bytes(), syntax))
    facts = only(folder / "in", folder / "out", size=SIZE)
    return read_png(folder / "out" / facts.written).astype(int) - 1024, facts.statistics


@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("intercept", [0, 1, -50])
@pytest.mark.parametrize("radius", [10, 24, 30, 45])  # from much air to a head that leaves the corners alone
def test_air_and_fat_of_a_wrapped_slice_are_restored(
    tmp_path: Path, radius: float, intercept: int, syntax: str | None
) -> None:
    hu = head(radius=radius)
    found, facts = prepared(tmp_path, (hu - intercept) % 4096, 12, intercept, syntax)
    np.testing.assert_array_equal(found, np.maximum(hu, -1024))
    assert facts.wrapped_12_bit


def test_air_beside_corners_of_zero_is_restored(tmp_path: Path) -> None:
    """Corners that the scanner left at 0 are as many as the air."""
    hu = np.where(DISTANCE > 31.5, 0, head(radius=28))
    found, facts = prepared(tmp_path, hu % 4096, 12, 0)
    np.testing.assert_array_equal(found, hu)
    assert facts.wrapped_12_bit


@pytest.mark.parametrize("intercept", [0, 1, -50])
@pytest.mark.parametrize("metal", [3000, 3071, 3096, 3500, 4000, 4095])
@pytest.mark.parametrize("side", [1, 8, 16, 22])  # 22: more than a tenth of the picture
def test_metal_stays_metal_where_air_is_cut_to_zero(tmp_path: Path, side: int, metal: int, intercept: int) -> None:
    stored = with_metal(np.maximum(head() - intercept, 0), metal, side)
    found, facts = prepared(tmp_path, stored, 12, intercept)
    np.testing.assert_array_equal(found, np.minimum(stored.astype(int) + intercept, 3071))
    assert not facts.wrapped_12_bit


@pytest.mark.parametrize("metal", [3500, 4000, 4095])
def test_metal_in_a_picture_without_air_stays_metal(tmp_path: Path, metal: int) -> None:
    stored = with_metal(np.maximum(head(air=60), 1), metal)
    found, facts = prepared(tmp_path, stored, 12, 0)
    assert (found[32:40, 32:40] == min(metal, 3071)).all()
    assert not facts.wrapped_12_bit


def test_noise_below_zero_in_a_picture_without_air_is_restored(tmp_path: Path) -> None:
    hu = np.rint(4 + NOISE).astype(np.int32)  # water, of which a fifth is below 0
    found, facts = prepared(tmp_path, hu % 4096, 12, 0)
    np.testing.assert_array_equal(found, hu)
    assert facts.wrapped_12_bit


def test_a_slice_without_a_value_to_restore_says_so(tmp_path: Path) -> None:
    stored = np.maximum(head(), 0)
    found, facts = prepared(tmp_path, stored, 12, 0)
    np.testing.assert_array_equal(found, stored)
    assert not facts.wrapped_12_bit


def test_bone_of_an_ordinary_file_is_never_restored(tmp_path: Path) -> None:
    """Below the guard 12 bits have room for air."""
    stored = with_metal(head() + 1024, 4095)
    found, facts = prepared(tmp_path, stored, 12, -1024)
    np.testing.assert_array_equal(found, np.clip(stored.astype(int) - 1024, -1024, 3071))
    assert not facts.wrapped_12_bit


@pytest.mark.parametrize(("bits", "intercept"), [(16, 0), (16, -1024), (14, 0), (13, 0)])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_a_sign_that_the_header_denies_is_restored(
    tmp_path: Path, bits: int, intercept: int, syntax: str | None
) -> None:
    """Air stored as a negative number under PixelRepresentation 0: 64,536 is -1000."""
    hu = np.where(DISTANCE > 31.5, -2000, head())
    found, facts = prepared(tmp_path, (hu - intercept) % 2**bits, bits, intercept, syntax)
    np.testing.assert_array_equal(found, np.maximum(hu, -1024))
    assert facts.sign_restored
    assert not facts.wrapped_12_bit


def test_air_that_falls_below_an_unsigned_zero_here_and_there_is_restored(tmp_path: Path) -> None:
    hu = np.rint(np.where(DISTANCE < 24, 30, -1020) + NOISE).astype(np.int32)
    assert (hu < -1024).any()
    found, facts = prepared(tmp_path, (hu + 1024) % 65536, 16, -1024)
    np.testing.assert_array_equal(found, np.maximum(hu, -1024))
    assert facts.sign_restored


@pytest.mark.parametrize("metal", [8000, 40000, 65535])
def test_metal_of_sixteen_bits_stays_metal(tmp_path: Path, metal: int) -> None:
    stored = (head() + 1024).astype(np.uint16)
    stored[32:40, 32:40] = metal
    found, facts = prepared(tmp_path, stored, 16, -1024)
    assert (found[32:40, 32:40] == 3071).all()
    assert not facts.sign_restored
