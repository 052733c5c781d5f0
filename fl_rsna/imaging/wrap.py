"""Negative values that an unsigned file stored modulo a power of two, told from metal by where they lie.

Air surrounds a head, and there is much of it. Metal lies inside and is small, and a file that cut negative values to 0
shows its air there. In a slice that is restored, metal of a wrapped value cannot be told from a negative one.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.padding import Stored, stored_values, surrounding
from fl_rsna.imaging.windows import HU_MAX, Rescale, first_wrapped

WRAP_ABOVE_INTERCEPT = -100  # below it 12 bits without a sign have room for air
MUCH, SOME = 0.1, 0.03  # shares of a picture: more than metal can be, and than metal at its edge can be
NEAR_ZERO = 200  # fat and the noise of water lie less than this below 0
NOISE = 20  # values this near to 0 are there on both sides of it, where it is crossed
DEEPEST = 4096  # padding lies less than this below 0
NO_METAL_HU = 30000  # CT scales end below


def wrapped_bits(stored: Stored, rescale: Rescale, bits: int) -> int:
    """`bits`, which is BitsStored, where negative values were stored modulo 2 to this power; 0 where none were.

    Asked of 12-bit files whose intercept leaves no room for air, and of more bits where the upper half is beyond bone.
    """
    first = first_wrapped(bits)
    if rescale.signed or bits < 12 or not _is_possible(rescale, bits, first):
        return 0
    values = stored_values(stored, rescale.bits_stored, rescale.signed)
    if cv2.minMaxLoc(values)[1] < first:
        return 0
    picture = np.ones(values.shape, bool) if rescale.padding is None else ~rescale.padding.holds(values)
    high = (values >= first) & picture
    return bits if high.any() and _is_negative(values[picture], high, rescale, bits) else 0


def _is_possible(rescale: Rescale, bits: int, first: int) -> bool:
    if bits == 12:
        return rescale.intercept > WRAP_ABOVE_INTERCEPT
    return rescale.slope * first + rescale.intercept > HU_MAX


def _is_negative(values: Stored, high: NDArray[np.bool_], rescale: Rescale, bits: int) -> bool:
    """Whether the pixels of `high` [H, W] are below 0; `values` are those of the picture without padding."""
    first, count = first_wrapped(bits), int(np.count_nonzero(high))
    top = values[values >= first]
    if bits > 12:
        if np.any((values >= first - (first >> 2)) & (values < first)):
            return False  # one range of values, not two that lie at its ends
        if rescale.slope * first + rescale.intercept >= NO_METAL_HU:
            return count >= MUCH * high.size or _most((top >= (1 << bits) - DEEPEST) & (top < (1 << bits) - 1))
    around, zeros = surrounding(high), int(np.count_nonzero(values == 0))
    if count >= MUCH * high.size:
        return around is not None or zeros < count
    if around is not None and 2 * int(np.count_nonzero(around)) >= count:
        return count >= zeros or count >= SOME * high.size
    near = (top >= (1 << bits) - NEAR_ZERO) & (top < (1 << bits) - 1)
    across = np.any(near & (top >= (1 << bits) - NOISE)) and np.any(values < NOISE)
    return zeros < count and bool(across) and _most(near)


def _most(which: NDArray[np.bool_]) -> bool:
    return 2 * int(np.count_nonzero(which)) >= which.size
