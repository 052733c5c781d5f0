"""Tables of 65,536 entries equal the float64 formula on every stored value there is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN, HU_OFFSET, WINDOWS_HU, Rescale, to_hu16, to_windows

SIGNED = Rescale(signed=True, slope=1.0, intercept=0.0)
UNSIGNED = Rescale(signed=False, slope=1.0, intercept=-1024.0)
FRACTIONAL = Rescale(signed=False, slope=0.25, intercept=-1000.5)
WRAPPED = Rescale(signed=False, slope=1.0, intercept=0.0, wrapped_bits=12)
EVERY = (SIGNED, UNSIGNED, FRACTIONAL, WRAPPED)


def every_stored(rescale: Rescale) -> NDArray[np.int16] | NDArray[np.uint16]:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    return every.view(np.int16) if rescale.signed else every


def formula_hu(rescale: Rescale) -> NDArray[np.float64]:
    stored = every_stored(rescale).astype(np.float64)
    if rescale.wrapped_bits:
        stored[stored >= 3000] -= 4096
    return rescale.slope * stored + rescale.intercept


@pytest.mark.parametrize("rescale", EVERY, ids=["signed", "unsigned", "fractional", "wrapped"])
def test_hu_table_is_the_rounded_and_clipped_formula(rescale: Rescale) -> None:
    written = to_hu16(every_stored(rescale), rescale)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(
        written.astype(int) - HU_OFFSET, np.clip(np.rint(formula_hu(rescale)), HU_MIN, HU_MAX)
    )


@pytest.mark.parametrize("rescale", EVERY, ids=["signed", "unsigned", "fractional", "wrapped"])
def test_window_table_is_the_formula_in_each_channel(rescale: Rescale) -> None:
    grey, hu = to_windows(every_stored(rescale), rescale), formula_hu(rescale)
    assert grey.dtype == np.uint8
    assert grey.shape == (256, 256, 3)
    for channel, (centre, width) in enumerate(WINDOWS_HU):
        low, high = centre - width / 2, centre + width / 2
        expected = np.floor(255 * (np.clip(hu, low, high) - low) / width)
        np.testing.assert_array_equal(grey[..., channel], expected)


@pytest.mark.parametrize(
    ("rescale", "stored", "hu"),
    [
        (SIGNED, -1000, -1000),
        (UNSIGNED, 1064, 40),
        (FRACTIONAL, 4003, 0),  # 0.25 x 4003 - 1000.5 = 0.25
        (WRAPPED, 3072, -1024),  # air, not +3072
        (WRAPPED, 4095, -1),
        (WRAPPED, 2999, 2999),  # the densest bone a wrapped file can state
        (UNSIGNED, 0, -1024),
        (UNSIGNED, 65535, 3071),
        (SIGNED, -3024, -1024),  # padding is air
    ],
)
def test_values_a_person_can_check(rescale: Rescale, stored: int, hu: int) -> None:
    pixels = np.array([[stored]], np.int16 if rescale.signed else np.uint16)
    assert to_hu16(pixels, rescale).astype(int) - HU_OFFSET == hu


@pytest.mark.parametrize(
    ("hu", "grey"), [(-1000, (0, 0, 0)), (0, (0, 25, 100)), (40, (127, 76, 127)), (80, (255, 127, 154))]
)
def test_brain_subdural_and_soft_tissue_stand_in_red_green_and_blue(hu: int, grey: tuple[int, int, int]) -> None:
    assert tuple(to_windows(np.array([[hu]], np.int16), SIGNED)[0, 0]) == grey


def test_a_strided_view_gives_what_its_copy_gives() -> None:
    stored = every_stored(SIGNED)[::3, ::-2]
    np.testing.assert_array_equal(to_hu16(stored, SIGNED), to_hu16(stored.copy(), SIGNED))
    np.testing.assert_array_equal(to_windows(stored, SIGNED), to_windows(stored.copy(), SIGNED))
