"""Ask whether a header can be true of its pixels: padding, wrapped values, lookup tables, windows, Hounsfield units.

A header is believed unless the picture proves it wrong. What is certain is restored, and the index says so; what cannot
be true and cannot be mended is rejected, not rendered.

Negative values that an unsigned file stored modulo a power of two are told from metal by where they lie. Air surrounds a head, and
there is much of it. Metal lies inside and is small, and a file that cut negative values to 0 shows its air there. In a slice that is
restored, metal of a wrapped value cannot be told from a negative one.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN, HU_OFFSET, Rescale, first_wrapped
from fl_rsna.imaging.dicom.lut import Lut, Values, with_sign
from fl_rsna.imaging.dicom.padding import Padding, Stored, find_border_components, set_apart, to_stored_values
from fl_rsna.imaging.dicom.radiograph import Presentation, find_padding_patterns, grey_table, modality_values
from fl_rsna.imaging.dicom.rejections import Reason, Rejected

FEW, MOST = 0.01, 0.5  # shares of pixels that a table holds where its sign is wrong, and where it is right
WRAP_ABOVE_INTERCEPT = -100  # below it 12 bits without a sign have room for air
MUCH, SOME = 0.1, 0.03  # shares of a picture: more than metal can be, and than metal at its edge can be
NEAR_ZERO = 200  # fat and the noise of water lie less than this below 0
NOISE = 20  # values this near to 0 are there on both sides of it, where it is crossed
DEEPEST = 4096  # padding lies less than this below 0
NO_METAL_HU = 30000  # CT scales end below
AIR_HU = -900  # padding below is as good as air, wherever it lies
BONE_HU = 500  # what lies in all four corners of a picture of a head is not as dense
CORNER = 32  # corners are this part of the shorter side
FLAT_HU, VARIED = 10, 100  # a picture of no more HU than the first is none of more stored values than the second


def settle_film(stored: Stored, shown: Presentation, padding: Padding | None) -> tuple[Stored, Presentation]:
    """Stored values and their presentation with padding, tables by the sign that fits, and a window that shows something.

    The header's padding is padding wherever it lies, unless it has more bits than are stored: its low bits may be
    picture, too, so then only pixels that reach the edge count. A table keeps the sign that the standard gives it
    unless it holds hardly any pixel so and most with the other one. A window that leaves one grey of several values
    is none. Raises `Rejected` where a table does so.
    """
    if padding is not None and padding.beyond:
        values = to_stored_values(stored, shown.value_bits, shown.signed)
        outside = find_border_components(padding.holds(values))
        padding = None
        if outside is not None:
            stored, padding = set_apart(values, outside)
            shown = replace(shown, value_bits=16)
    shown = replace(shown, padding=padding)
    if shown.modality_lut is None and shown.voi_lut is None and shown.window is None:
        return stored, shown
    counts = np.bincount(np.ascontiguousarray(stored).view(np.uint16).ravel(), minlength=65536)
    counts[find_padding_patterns(shown)] = 0
    if shown.modality_lut is not None:
        plain = modality_values(replace(shown, modality_lut=None))
        shown = replace(shown, modality_lut=_that_holds(shown.modality_lut, plain, counts))
    if shown.voi_lut is not None:
        shown = replace(shown, voi_lut=_that_holds(shown.voi_lut, modality_values(shown), counts))
    return stored, _visible(shown, counts)


def _that_holds(lut: Lut, values: Values, counts: NDArray[np.integer]) -> Lut:
    """The table, or the one that begins with the same 16 bits of the other sign where that must be meant."""
    other = with_sign(lut, lut.first >= 0)
    held, would = (int(counts[table.holds(values)].sum()) for table in (lut, other))
    total = int(counts.sum())
    return other if held < FEW * total and would > MOST * total else lut


def _visible(shown: Presentation, counts: NDArray[np.integer]) -> Presentation:
    """The presentation, without its window where that shows one grey; raises `Rejected` where a table shows one."""
    there = counts > 0
    if np.count_nonzero(there) < 2 or np.ptp(grey_table(shown, counts)[there]):
        return shown
    if shown.voi_lut is None and shown.window is not None:
        shown = replace(shown, window=None)
        if np.ptp(grey_table(shown, counts)[there]):
            return shown
    tag = "VOILUTSequence" if shown.voi_lut is not None else "ModalityLUTSequence"
    raise Rejected(Reason.bad_lut, tag, f"{np.count_nonzero(there)} stored values become one grey")


def find_wrapped_bits(stored: Stored, rescale: Rescale, bits: int) -> int:
    """`bits`, which is BitsStored, where negative values were stored modulo 2 to this power; 0 where none were.

    Asked of 12-bit files whose intercept leaves no room for air, and of more bits where the upper half is beyond bone.
    """
    first = first_wrapped(bits)
    no_room_for_air = rescale.intercept > WRAP_ABOVE_INTERCEPT
    beyond_bone = rescale.slope * first + rescale.intercept > HU_MAX
    if rescale.signed or bits < 12 or not (no_room_for_air if bits == 12 else beyond_bone):
        return 0
    values = to_stored_values(stored, rescale.bits_stored, rescale.signed)
    if cv2.minMaxLoc(values)[1] < first:
        return 0
    picture = np.ones(values.shape, bool) if rescale.padding is None else ~rescale.padding.holds(values)
    high = (values >= first) & picture
    return bits if high.any() and _is_negative(values[picture], high, rescale, bits) else 0


def _is_negative(values: Stored, high: NDArray[np.bool_], rescale: Rescale, bits: int) -> bool:
    """Whether the pixels of `high` [H, W] are below 0; `values` are those of the picture without padding."""
    first, count = first_wrapped(bits), int(np.count_nonzero(high))
    top = values[values >= first]
    if bits > 12:
        if np.any((values >= first - (first >> 2)) & (values < first)):
            return False  # one range of values, not two that lie at its ends
        if rescale.slope * first + rescale.intercept >= NO_METAL_HU:
            return count >= MUCH * high.size or _most((top >= (1 << bits) - DEEPEST) & (top < (1 << bits) - 1))
    around, zeros = find_border_components(high), int(np.count_nonzero(values == 0))
    if count >= MUCH * high.size:
        return around is not None or zeros < count
    if around is not None and 2 * int(np.count_nonzero(around)) >= count:
        return count >= zeros or count >= SOME * high.size
    near = (top >= (1 << bits) - NEAR_ZERO) & (top < (1 << bits) - 1)
    across = np.any(near & (top >= (1 << bits) - NOISE)) and np.any(values < NOISE)
    return zeros < count and bool(across) and _most(near)


def _most(which: NDArray[np.bool_]) -> bool:
    return 2 * int(np.count_nonzero(which)) >= which.size


def settle(stored: Stored, rescale: Rescale, bits: int, padding: Padding | None) -> tuple[Stored, Rescale]:
    """Stored values and the rescale that turns them into HU, with padding as air and negative values restored.

    `bits` is BitsStored, `padding` what the header names. Padding that the rescale makes air, or nothing that can be
    measured, is padding wherever it lies. Any other value may be tissue or metal, too: there only pixels that reach the
    edge of the picture are padding, and get a value of their own.
    """
    if padding is not None:
        stored, rescale = _with_padding(stored, rescale, padding)
    wrapped = find_wrapped_bits(stored, rescale, bits)
    if wrapped:
        rescale = replace(rescale, wrapped_bits=wrapped)
    return stored, rescale


def _with_padding(stored: Stored, rescale: Rescale, padding: Padding) -> tuple[Stored, Rescale]:
    ends = [end * rescale.slope + rescale.intercept for end in (padding.first, padding.last)]
    low, high = min(ends), max(ends)
    if high <= HU_MIN:
        return stored, rescale  # clipped to air like everything below
    if not padding.beyond and (high <= AIR_HU or low >= NO_METAL_HU):
        return stored, replace(rescale, padding=replace(padding, hu=low))
    values = to_stored_values(stored, rescale.bits_stored, rescale.signed)
    outside = find_border_components(padding.holds(values))
    if outside is None:
        return stored, rescale
    values, own = set_apart(values, outside)
    return values, replace(rescale, bits_stored=16, padding=replace(own, hu=low))


def check_slice(plane: NDArray[np.uint16], stored: Stored, rescale: Rescale, hu_range: float) -> None:
    """Raise `Rejected` for stored values that vary where HU do not, and for bone where air must be.

    `plane` [H, W] is HU clipped to [HU_MIN, HU_MAX] plus HU_OFFSET, `hu_range` the difference of its extremes.
    """
    if hu_range > FLAT_HU and int(plane[0, 0]) - HU_OFFSET < BONE_HU:
        return  # nearly every slice: the first pixel is in a corner
    part = max(1, min(plane.shape) // CORNER)
    ends = slice(None, part), slice(-part, None)
    corners = min(int(plane[rows, columns].min()) for rows in ends for columns in ends) - HU_OFFSET
    if hu_range > FLAT_HU and corners < BONE_HU:
        return
    values = to_stored_values(stored, rescale.bits_stored, rescale.signed)
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


def _spread(values: Stored) -> int:
    return int(values.max()) - int(values.min()) if values.size else 0
