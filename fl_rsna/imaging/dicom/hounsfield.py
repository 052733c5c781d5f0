"""Turn stored CT values into Hounsfield units and windows by tables of 65,536 entries: exact, and one pass per slice."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.padding import Padding, to_stored_values

HU_MIN, HU_MAX = -1024, 3071  # the range of a 12-bit scanner; padding below it is air
HU_OFFSET = 1024  # a stored 16-bit PNG holds HU + HU_OFFSET, so 0 is air
WINDOWS_HU = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))  # (centre, width): brain, subdural, soft tissue


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """The rule by which a stored value becomes HU: stored * slope + intercept (DICOM PS3.3 C.11.1.1.2).

    Only the low `bits_stored` bits are the value (C.7.6.3.1.1), in two's complement when `signed`. With `wrapped_bits`
    above 0, negative values were stored modulo 2 to this power: 2^wrapped_bits is subtracted from values of
    `first_wrapped` and more before the rescale. `padding` holds the values that are no picture; they become air,
    whatever the rescale makes of them.
    """

    bits_stored: int = 16
    signed: bool
    slope: float
    intercept: float
    wrapped_bits: int = 0
    padding: Padding | None = None

    def hounsfield(self, stored: NDArray[np.integer]) -> NDArray[np.float64]:
        """Compute HU of stored values of any shape, not clipped; padding becomes HU_MIN."""
        values = to_stored_values(stored, self.bits_stored, self.signed)
        meant = values.astype(np.float64)
        if self.wrapped_bits:
            meant = np.where(meant >= first_wrapped(self.wrapped_bits), meant - (1 << self.wrapped_bits), meant)
        hu = meant * self.slope + self.intercept
        return hu if self.padding is None else np.where(self.padding.holds(values), HU_MIN, hu)


def first_wrapped(bits: int) -> int:
    """Return the least value that stands for a negative one where negative values were stored modulo 2 to the power of `bits`.

    A 12-bit file has no bit to spare for a sign: HU from -1096 to -1 are stored as 3000 to 4095, above the densest
    bone.
    """
    return 3000 if bits == 12 else 1 << bits - 1


def window(hu: NDArray[np.floating], centre: float, width: float) -> NDArray[np.uint8]:
    """Compute the grey level floor(255 * (clip(hu, low, high) - low) / width) of HU values of any shape.

    The window reaches from low = centre - width / 2 to high = centre + width / 2.
    """
    low = centre - width / 2
    grey: NDArray[np.uint8] = np.floor_divide(255 * (np.clip(hu, low, low + width) - low), width).astype(np.uint8)
    return grey


def to_hu16(stored: NDArray[np.int16] | NDArray[np.uint16], rescale: Rescale) -> NDArray[np.uint16]:
    """Turn stored values [H, W] into round(HU clipped to [HU_MIN, HU_MAX]) + HU_OFFSET, uint16 [H, W]."""
    index = np.ascontiguousarray(stored).view(np.uint16)
    return cv2.LUT(index, hu_table(rescale)).reshape(stored.shape)  # type: ignore[return-value]


def to_windows(stored: NDArray[np.int16] | NDArray[np.uint16], rescale: Rescale) -> NDArray[np.uint8]:
    """Turn stored values [H, W] into the three windows of WINDOWS_HU in R, G, B, uint8 [H, W, 3]."""
    packed = cv2.LUT(np.ascontiguousarray(stored).view(np.uint16), window_table(rescale))
    return cv2.cvtColor(packed.view(np.uint8).reshape(*stored.shape, 4), cv2.COLOR_RGBA2RGB)  # type: ignore[return-value]


@lru_cache(maxsize=256)
def hu_table(rescale: Rescale) -> NDArray[np.uint16]:
    """Compute round(HU clipped to [HU_MIN, HU_MAX]) + HU_OFFSET of all 65,536 bit patterns, uint16 [65536]."""
    hu = np.clip(rescale.hounsfield(np.arange(65536, dtype=np.uint16)), HU_MIN, HU_MAX)
    return (np.rint(hu) + HU_OFFSET).astype(np.uint16)


@lru_cache(maxsize=256)
def window_table(rescale: Rescale) -> NDArray[np.int32]:
    """Compute the three windows of WINDOWS_HU of all 65,536 bit patterns, packed as RGBA bytes into int32 [65536]."""
    hu = rescale.hounsfield(np.arange(65536, dtype=np.uint16))
    channels = [window(hu, centre, width) for centre, width in WINDOWS_HU]
    packed = np.stack([*channels, np.full(65536, 255, np.uint8)], axis=1)
    return packed.view(np.int32).reshape(65536)
