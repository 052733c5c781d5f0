"""Stored CT values to Hounsfield units and windows, by tables of 65,536 entries: exact, and one pass a slice."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

HU_MIN, HU_MAX = -1024, 3071  # what a 12-bit scanner can state; padding below is air
HU_OFFSET = 1024  # a stored 16-bit PNG holds HU + HU_OFFSET, so 0 is air
WINDOWS_HU = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))  # (centre, width): brain, subdural, soft tissue


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """How a stored value becomes HU: stored * slope + intercept (DICOM PS3.3 C.11.1.1.2).

    Only the low `bits_stored` bits are the value (C.7.6.3.1.1), in two's complement when `signed`.
    `wrapped_12_bit`: negative values were stored modulo 4096, so stored values of 3000 and more lose 4096 first.
    """

    bits_stored: int = 16
    signed: bool
    slope: float
    intercept: float
    wrapped_12_bit: bool = False

    def hounsfield(self, stored: NDArray[np.integer]) -> NDArray[np.float64]:
        """HU of each stored value, not clipped; any shape."""
        unused = 16 - self.bits_stored
        bits = stored.astype(np.int16 if self.signed else np.uint16)
        values = ((bits << unused) >> unused).astype(np.float64)
        if self.wrapped_12_bit:
            values = np.where(values >= 3000, values - 4096, values)
        return values * self.slope + self.intercept


def window(hu: NDArray[np.floating], centre: float, width: float) -> NDArray[np.uint8]:
    """Grey level floor(255 * (clip(hu, low, high) - low) / width) of each HU value; any shape."""
    low = centre - width / 2
    grey: NDArray[np.uint8] = np.floor_divide(255 * (np.clip(hu, low, low + width) - low), width).astype(np.uint8)
    return grey


def to_hu16(stored: NDArray[np.int16] | NDArray[np.uint16], rescale: Rescale) -> NDArray[np.uint16]:
    """stored [H, W] -> round(HU clipped to [HU_MIN, HU_MAX]) + HU_OFFSET, uint16 [H, W]."""
    table = hu_table(rescale)
    return cv2.LUT(_as_index(stored), table).reshape(stored.shape)  # type: ignore[return-value]


def to_windows(stored: NDArray[np.int16] | NDArray[np.uint16], rescale: Rescale) -> NDArray[np.uint8]:
    """stored [H, W] -> uint8 [H, W, 3], the three windows of WINDOWS_HU in R, G, B."""
    packed = cv2.LUT(_as_index(stored), window_table(rescale))
    return cv2.cvtColor(packed.view(np.uint8).reshape(*stored.shape, 4), cv2.COLOR_RGBA2RGB)  # type: ignore[return-value]


def _as_index(stored: NDArray[np.int16] | NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(stored).view(np.uint16)


def _all_stored(rescale: Rescale) -> NDArray[np.integer]:
    every = np.arange(65536, dtype=np.uint16)
    return every.view(np.int16) if rescale.signed else every


@lru_cache(maxsize=256)
def hu_table(rescale: Rescale) -> NDArray[np.uint16]:
    hu = np.clip(rescale.hounsfield(_all_stored(rescale)), HU_MIN, HU_MAX)
    return (np.rint(hu) + HU_OFFSET).astype(np.uint16)


@lru_cache(maxsize=256)
def window_table(rescale: Rescale) -> NDArray[np.int32]:
    hu = rescale.hounsfield(_all_stored(rescale))
    channels = [window(hu, centre, width) for centre, width in WINDOWS_HU]
    packed = np.stack([*channels, np.full(65536, 255, np.uint8)], axis=1)
    return packed.view(np.int32).reshape(65536)
