"""Facts about a slice's pixels: HU statistics of the clipped slice, and the box around the head."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.padding import Stored, stored_values
from fl_rsna.imaging.windows import HU_MIN, HU_OFFSET, Rescale

BRAIN_HU = (0, 80)  # the brain window's range: what "brain" means below
HEAD_ABOVE_HU = -300  # skin and everything denser
BOX_GRID = 128  # the head is searched on about this many points a side


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Names and units are those of the index (cohort/columns.py)."""

    hu_min: float
    hu_max: float
    hu_mean: float
    hu_std: float
    brain_share: float
    brain_hu_mean: float
    brain_range_hu: float
    padding_hu: float | None
    wrapped_12_bit: bool
    sign_restored: bool
    crop_top: int
    crop_left: int
    crop_bottom: int
    crop_right: int


def statistics(plane: NDArray[np.uint16], stored: Stored, rescale: Rescale) -> Statistics:
    """`plane` [H, W] is HU clipped to [HU_MIN, HU_MAX] plus HU_OFFSET, `stored` [H, W] what it was made from."""
    count = plane.size
    least, greatest = (int(value) - HU_OFFSET for value in cv2.minMaxLoc(plane)[:2])
    total, squares = round(cv2.norm(plane, cv2.NORM_L1)), round(cv2.norm(plane, cv2.NORM_L2SQR))  # exact below 2^53
    brain = cv2.inRange(plane, np.array(BRAIN_HU[0] + HU_OFFSET), np.array(BRAIN_HU[1] + HU_OFFSET))
    brain_count = cv2.countNonZero(brain)
    brain_total = cv2.norm(plane, cv2.NORM_L1, brain)
    top, left, bottom, right = head_box(plane)
    return Statistics(
        hu_min=least,
        hu_max=greatest,
        hu_mean=total / count - HU_OFFSET,
        hu_std=max(0, count * squares - total * total) ** 0.5 / count,
        brain_share=brain_count / count,
        brain_hu_mean=brain_total / brain_count - HU_OFFSET if brain_count else 0.0,
        brain_range_hu=_in_brain_window(greatest) - _in_brain_window(least),
        padding_hu=_padding(stored, rescale) if least == HU_MIN else None,
        wrapped_12_bit=rescale.wrapped_bits == 12,
        sign_restored=rescale.wrapped_bits > 12,
        crop_top=top,
        crop_left=left,
        crop_bottom=bottom,
        crop_right=right,
    )


def _in_brain_window(hu: int) -> float:
    return float(min(max(hu, BRAIN_HU[0]), BRAIN_HU[1]))


def head_box(plane: NDArray[np.uint16]) -> tuple[int, int, int, int]:
    """Rows and columns [top, left, bottom, right), of the largest piece denser than air; the whole image without one.

    Searched on every n-th row and column after thin parts (table, headrest) are opened away; true to about n pixels.
    """
    height, width = plane.shape
    step = max(1, max(height, width) // BOX_GRID)
    dense = (plane[::step, ::step] > HEAD_ABOVE_HU + HU_OFFSET).astype(np.uint8)
    opened = cv2.morphologyEx(dense, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        return 0, 0, height, width
    left, top, across, down = cv2.boundingRect(max(outlines, key=cv2.contourArea))
    return top * step, left * step, min((top + down) * step, height), min((left + across) * step, width)


def _padding(stored: Stored, rescale: Rescale) -> float | None:
    """What the rescale makes of padding that the header names, else the least HU before clipping, where it is below HU_MIN."""
    if rescale.padding is not None and rescale.padding.hu is not None:
        values = stored_values(stored, rescale.bits_stored, rescale.signed)
        if rescale.padding.holds(values).any():
            return rescale.padding.hu
    first, last = (int(end) for end in cv2.minMaxLoc(stored)[:2])
    low = -(1 << rescale.bits_stored - 1) if rescale.signed else 0
    inside = low <= first and last < low + (1 << rescale.bits_stored)
    if inside and not rescale.wrapped_bits and rescale.padding is None:  # HU follow the order of the stored values
        least = min(end * rescale.slope + rescale.intercept for end in (first, last))
    else:
        least = float(rescale.hounsfield(stored).min())
    return least if least < HU_MIN else None
