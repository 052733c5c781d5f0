"""What the pixels of a slice say of its header: which are padding, whether they were wrapped, and whether HU can be true.

A header is believed unless the picture proves it wrong. What is certain is restored, and the index says so; what cannot
be true and cannot be mended is rejected, not rendered.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.padding import Padding, Stored, set_apart, stored_values, surrounding
from fl_rsna.imaging.rejections import Reason, Rejected
from fl_rsna.imaging.windows import HU_MIN, HU_OFFSET, Rescale
from fl_rsna.imaging.wrap import NO_METAL_HU, wrapped_bits

AIR_HU = -900  # padding below is as good as air, wherever it lies
BONE_HU = 500  # what lies in all four corners of a picture of a head is not as dense
CORNER = 32  # corners are this part of the shorter side
FLAT_HU, VARIED = 10, 100  # a picture of no more HU than the first is none of more stored values than the second


def settle(stored: Stored, rescale: Rescale, bits: int, padding: Padding | None) -> tuple[Stored, Rescale]:
    """Stored values and the rescale that turns them into HU, with padding as air and negative values restored.

    `bits` is BitsStored, `padding` what the header names. Padding that the rescale makes air, or nothing that can be
    measured, is padding wherever it lies. Any other value may be tissue or metal, too: there only pixels that reach the
    edge of the picture are padding, and get a value of their own.
    """
    if padding is not None:
        stored, rescale = _with_padding(stored, rescale, padding)
    wrapped = wrapped_bits(stored, rescale, bits)
    if wrapped:
        rescale = replace(rescale, wrapped_bits=wrapped)
    return stored, rescale


def _with_padding(stored: Stored, rescale: Rescale, padding: Padding) -> tuple[Stored, Rescale]:
    low, high = _hu_of(rescale, padding)
    if high <= HU_MIN:
        return stored, rescale  # clipped to air like everything below
    if not padding.beyond and (high <= AIR_HU or low >= NO_METAL_HU):
        return stored, replace(rescale, padding=replace(padding, hu=low))
    values = stored_values(stored, rescale.bits_stored, rescale.signed)
    outside = surrounding(padding.holds(values))
    if outside is None:
        return stored, rescale
    values, own = set_apart(values, outside)
    return values, replace(rescale, bits_stored=16, padding=replace(own, hu=low))


def _hu_of(rescale: Rescale, padding: Padding) -> tuple[float, float]:
    """Least and greatest HU that the rescale would make of padding."""
    ends = [end * rescale.slope + rescale.intercept for end in (padding.first, padding.last)]
    return min(ends), max(ends)


def check_slice(plane: NDArray[np.uint16], stored: Stored, rescale: Rescale, hu_range: float) -> None:
    """Raise `Rejected` for stored values that vary where HU do not, and for bone where air must be.

    `plane` [H, W] is HU clipped to [HU_MIN, HU_MAX] plus HU_OFFSET, `hu_range` the difference of its extremes.
    """
    if hu_range > FLAT_HU and int(plane[0, 0]) - HU_OFFSET < BONE_HU:
        return  # nearly every slice: the first pixel is in a corner
    corners = least_in_corners(plane) - HU_OFFSET
    if hu_range > FLAT_HU and corners < BONE_HU:
        return
    values = stored_values(stored, rescale.bits_stored, rescale.signed)
    picture = values if rescale.padding is None else values[~rescale.padding.holds(values)]
    least, spread, allowed = int(plane.min()) - HU_OFFSET, _spread(picture), VARIED if hu_range else 0
    if least == HU_MIN and hu_range == 0:  # air, perhaps with padding below it that the header does not name
        spread, allowed = _spread(picture[picture != picture.min()]) if picture.size else 0, VARIED
    if hu_range <= FLAT_HU and spread > allowed:
        detail = f"{len(np.unique(picture))} stored values become {least} to {least + hu_range:g} HU"
        raise Rejected(Reason.implausible, "RescaleSlope", f"{detail} with slope {rescale.slope:g}")
    if corners >= BONE_HU and spread:
        detail = f"the four corners are {corners} HU or more, expected air or padding that PixelPaddingValue names"
        raise Rejected(Reason.implausible, "RescaleIntercept", detail)


def least_in_corners(plane: NDArray[np.uint16]) -> int:
    """The least value in the four corners of a picture."""
    part = max(1, min(plane.shape) // CORNER)
    return min(int(plane[rows, columns].min()) for rows in _ends(part) for columns in _ends(part))


def _ends(part: int) -> tuple[slice, slice]:
    return slice(None, part), slice(-part, None)


def _spread(values: Stored) -> int:
    return int(values.max()) - int(values.min()) if values.size else 0
