"""Stored values become Hounsfield units by the bits and the rescale of their own file, and by nothing else."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import element, position_of
from dicom_oddities import (
    BIT_TYPES,
    PIXELS,
    RAMP,
    WINDOWS,
    hu_of,
    tiny,
    typed,
)
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN, to_hu16
from fl_rsna.imaging.dicom.reader import read_slice

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


def formula_hu(bits: int, sign: int, intercept: float, wrapped: bool, slope: float = 1) -> NDArray[np.float64]:
    values = np.arange(65536) % 2**bits
    if sign:
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    if wrapped:
        values = np.where(values >= 3000, values - 4096, values)
    return values.reshape(256, 256) * np.float64(slope) + intercept


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(("bits", "sign", "intercept", "wrapped"), BIT_TYPES)
def test_hounsfield_units_follow_the_files_own_bits_and_rescale(
    tmp_path: Path, bits: int, sign: int, intercept: int, wrapped: bool, thorough: bool
) -> None:
    data = typed(tmp_path, bits, sign, intercept)
    slice_ = read_slice(data, modalities=("CT",), thorough=thorough)
    expected = formula_hu(bits, sign, intercept, wrapped)
    np.testing.assert_array_equal(hu_of(slice_), expected)
    np.testing.assert_array_equal(
        to_hu16(slice_.stored, slice_.rescale).astype(int) - 1024, np.clip(expected, HU_MIN, HU_MAX)
    )
    if not wrapped:  # unused high bits go and the sign is extended as pydicom does it
        np.testing.assert_array_equal(hu_of(slice_) - intercept, pydicom.dcmread(io.BytesIO(data)).pixel_array)
    assert (slice_.header.bits_stored, slice_.header.signed) == (bits, bool(sign))
    assert slice_.rescale.wrapped_bits == (12 if wrapped else 0)


@pytest.mark.parametrize(
    ("stored", "tags", "hu"),
    [
        (np.int16(-1024), {"BitsStored": 16}, -1024),
        (np.int16(-3024), {"BitsStored": 16}, -1024),  # padding is air
        (np.int16(-2000), {"BitsStored": 16, "RescaleIntercept": -1024}, -1024),
        (np.uint16(1064), {"BitsStored": 12, "RescaleIntercept": -1024}, 40),
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": -1024}, 2048),  # an ordinary file: bone stays bone
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 0}, -1024),  # a wrapped one: air
        (np.uint16(3072), {"BitsStored": 12, "RescaleIntercept": 1}, -1023),
        (np.uint16(2999), {"BitsStored": 12, "RescaleIntercept": 0}, 2999),
        (np.uint16(4095), {"BitsStored": 12, "RescaleIntercept": 0}, -1),
        (np.uint16(3072), {"BitsStored": 16, "RescaleIntercept": 0}, 3071),
        (np.int16(-1000), {"BitsStored": 12, "RescaleIntercept": 0}, -1000),
        (np.uint16(100), {"BitsStored": 12, "RescaleSlope": 0.5, "RescaleIntercept": -10.5}, 40),  # 39.5, half to even
        (np.uint16(0xF428), {"BitsStored": 12, "RescaleIntercept": -1024}, 40),  # an overlay in the high bits
    ],
)
def test_values_a_person_can_check(tmp_path: Path, stored: np.int16 | np.uint16, tags: dict[str, int], hu: int) -> None:
    data = tiny(tmp_path, hu=np.full((2, 2), stored), HighBit=tags["BitsStored"] - 1, **tags)
    slice_ = read_slice(data, modalities=("CT",))
    np.testing.assert_array_equal(to_hu16(slice_.stored, slice_.rescale).astype(int) - 1024, hu)


@pytest.mark.parametrize(("bits", "sign", "value", "byte"), [(8, 0, 200, 200), (8, 1, -56, 200), (5, 1, -16, 0xF0), (5, 0, 16, 0xF0)])  # fmt: skip
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 3)])  # odd numbers of bytes are padded to even
def test_pixels_of_8_bits(tmp_path: Path, bits: int, sign: int, value: int, byte: int, shape: tuple[int, int]) -> None:
    kind = np.int8 if sign else np.uint8
    pixels = np.full(shape, byte, np.uint8).view(kind)
    data = tiny(tmp_path, hu=pixels, BitsAllocated=8, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=sign)
    if pixels.size % 2:
        data = data[: position_of(data, PIXELS)] + element(PIXELS, "OW", pixels.tobytes() + b"\0")
    slice_ = read_slice(data, modalities=("CT",))
    np.testing.assert_array_equal(hu_of(slice_), np.full(shape, value))
    assert slice_.stored.dtype == (np.int16 if sign else np.uint16)


@pytest.mark.parametrize("name", list(WINDOWS))
def test_no_window_in_the_header_changes_a_pixel(tmp_path: Path, name: str) -> None:
    slice_ = read_slice(tiny(tmp_path, hu=RAMP, **WINDOWS[name]), modalities=("CT",))
    np.testing.assert_array_equal(hu_of(slice_), RAMP)
    expected = {"none": (None, None), "several": (36, 80), "no width": (40, 0)}
    assert (slice_.header.window_center, slice_.header.window_width) == expected.get(name, (40, 80))
