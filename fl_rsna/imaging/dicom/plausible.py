"""Check whether a header can be true of its pixels: padding, wrapped values, lookup tables, windows, Hounsfield units.

A header is believed unless the pixels prove it wrong. What is certain is restored, and the index says so. A file that
cannot be true and cannot be restored is rejected, not rendered.

An unsigned file may hold negative values that were stored modulo a power of two, and these look as dense as metal.
Their place tells them apart. Air surrounds a head, and there is much of it. Metal lies inside and is small, and a file
that cut negative values to 0 has zeros where its air is. In a slice that is restored, metal with a wrapped value cannot
be told from a negative value.
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

FEW, MOST = 0.01, 0.5  # shares of pixels that a table holds: fewer with the wrong sign, more with the right one
WRAP_ABOVE_INTERCEPT = -100  # at or below this intercept, 12 bits without a sign have room for air
MUCH, SOME = 0.1, 0.03  # shares of a picture: metal covers less than MUCH, metal that reaches the edge less than SOME
NEAR_ZERO = 200  # fat and the noise of water are less than this below 0
NOISE = 20  # a picture with values around 0 has some this near to 0 on both sides
DEEPEST = 4096  # padding is less than this below 0
NO_METAL_HU = 30000  # more than any CT scale reaches
AIR_HU = -900  # padding up to this value counts as air, wherever it lies
BONE_HU = 500  # no picture of a head is as dense in all four corners
CORNER = 32  # the shorter side is this many times the side of a corner
FLAT_HU, VARIED = 10, 100  # a range of at most FLAT_HU cannot come from stored values that span more than VARIED


def settle_film(stored: Stored, shown: Presentation, padding: Padding | None) -> tuple[Stored, Presentation]:
    """Settle the padding, tables and window of a film by its pixels; return its stored values and presentation.

    The header's padding is padding wherever it lies, unless it has more bits than are stored: the low bits of such a
    value may be picture, too, so then only pixels that reach the edge are padding. A table keeps the sign that the
    standard gives it, unless it then holds hardly any pixel and holds most of them with the other sign. A window that
    makes one grey of several values is dropped. Raises `Rejected` where a table makes one grey of several values.
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
        shown = replace(shown, modality_lut=_choose_sign(shown.modality_lut, plain, counts))
    if shown.voi_lut is not None:
        shown = replace(shown, voi_lut=_choose_sign(shown.voi_lut, modality_values(shown), counts))
    return stored, _drop_blank_window(shown, counts)


def _choose_sign(lut: Lut, values: Values, counts: NDArray[np.integer]) -> Lut:
    """Choose the sign of the value that a table begins with: the other sign where only that one fits the pixels."""
    other = with_sign(lut, lut.first >= 0)
    held, would = (int(counts[table.holds(values)].sum()) for table in (lut, other))
    total = int(counts.sum())
    return other if held < FEW * total and would > MOST * total else lut


def _drop_blank_window(shown: Presentation, counts: NDArray[np.integer]) -> Presentation:
    """Drop the window where it makes one grey of several values; raises `Rejected` where a table does."""
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
    """Find the power of two modulo which negative values were stored: `bits`, which is BitsStored, or 0 where none were.

    Only two kinds of unsigned files are examined: 12-bit files whose intercept leaves no room for air, and files of
    more bits whose upper half is beyond bone.
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
    """Tell whether the pixels of `high` [H, W] stand for values below 0; `values` are those of the picture without padding."""
    first, count = first_wrapped(bits), int(np.count_nonzero(high))
    top = values[values >= first]
    if bits > 12:
        if np.any((values >= first - (first >> 2)) & (values < first)):
            return False  # the values fill the middle, too: no second range of negative ones
        if rescale.slope * first + rescale.intercept >= NO_METAL_HU:
            deep = (top >= (1 << bits) - DEEPEST) & (top < (1 << bits) - 1)
            return count >= MUCH * high.size or 2 * int(np.count_nonzero(deep)) >= top.size
    around, zeros = find_border_components(high), int(np.count_nonzero(values == 0))
    if count >= MUCH * high.size:
        return around is not None or zeros < count
    if around is not None and 2 * int(np.count_nonzero(around)) >= count:
        return count >= zeros or count >= SOME * high.size
    near = (top >= (1 << bits) - NEAR_ZERO) & (top < (1 << bits) - 1)
    across = np.any(near & (top >= (1 << bits) - NOISE)) and np.any(values < NOISE)
    return zeros < count and bool(across) and 2 * int(np.count_nonzero(near)) >= top.size


def settle(stored: Stored, rescale: Rescale, bits: int, padding: Padding | None) -> tuple[Stored, Rescale]:
    """Settle the padding and the wrapped values of a slice by its pixels; return its stored values and rescale.

    Padding becomes air, and negative values are restored. `bits` is BitsStored, `padding` what the header names.
    Padding that the rescale makes air, or denser than anything that can be measured, is padding wherever it lies. Any
    other value may be tissue or metal, too: then only pixels that reach the edge of the picture are padding, and they
    get a value of their own.
    """
    if padding is not None:
        stored, rescale = _apply_padding(stored, rescale, padding)
    wrapped = find_wrapped_bits(stored, rescale, bits)
    if wrapped:
        rescale = replace(rescale, wrapped_bits=wrapped)
    return stored, rescale


def _apply_padding(stored: Stored, rescale: Rescale, padding: Padding) -> tuple[Stored, Rescale]:
    """Note the header's padding in the rescale; padding that tissue or metal may share is given a value of its own."""
    ends = [end * rescale.slope + rescale.intercept for end in (padding.first, padding.last)]
    low, high = min(ends), max(ends)
    if high <= HU_MIN:
        return stored, rescale  # clipping makes it air, as all HU below
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

    `plane` [H, W] is HU clipped to [HU_MIN, HU_MAX] plus HU_OFFSET; `hu_range` is its greatest HU minus its least.
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
    """Compute the greatest value minus the least; 0 without any."""
    return int(values.max()) - int(values.min()) if values.size else 0
