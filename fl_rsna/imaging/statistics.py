"""Compute facts about pixels: a slice's HU statistics and the box around its head, a film's grey levels and the box around its lungs.

The rule that finds the lungs of a frontal chest film uses grey levels only; no annotation takes part. It looks for two
large dark regions inside a bright body, left and right of its middle and about equally high. A dark region that reaches
the border of the film is air or collimation. Where a film does not look like this, the box is the whole film: a model
that sees too much learns more slowly, but a model that sees half a lung misses the findings in the other half.
"""

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MIN, HU_OFFSET, Rescale
from fl_rsna.imaging.dicom.padding import Stored, to_stored_values
from fl_rsna.imaging.dicom.radiograph import WHITE, Presentation, compute_padding_share

GRID = 128  # points along the longer side of the grid on which the lungs are searched
SMOOTH = 2.0  # SD of the Gaussian blur, in points of the grid
LEVELS = np.arange(0.7, 1.55, 0.05)  # factors of Otsu's threshold; the one that gives most lung is taken
LEAST_LUNG, GREATEST_LUNG = 0.015, 0.3  # shares of the film that one lung may cover
LEAST_FILL = 0.4  # share of its box that a lung fills; one that leaks into neck, armpit or bowel fills less
MARGIN = 0.12  # share of the box's height and width that is added on every side
LEAST_HEIGHT = 0.8  # of the box, as a share of its width: dense lower lobes hide the base of the lungs
Box = tuple[int, int, int, int]
BRAIN_HU = (0, 80)  # the range of the brain window; pixels within it count as brain
HEAD_ABOVE_HU = -300  # skin and everything denser is above this
BOX_GRID = 128  # the head is searched on about this many points a side


def lung_box(grey: NDArray[np.uint16]) -> Box:
    """Find the box around both lungs of a film: rows and columns [top, left, bottom, right).

    `grey` [H, W] shows dense tissue bright. The box is the whole film where no pair of lungs is found, and for a film
    smaller than GRID.
    """
    height, width = grey.shape
    scale = max(height, width) / GRID
    if scale < 1:
        return 0, 0, height, width
    size = max(1, round(width / scale)), max(1, round(height / scale))
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (0, 0), SMOOTH)
    shades = (small / 257).astype(np.uint8)
    found = [_find_two_lungs((shades < level).astype(np.uint8)) for level in _list_thresholds(shades)]
    area, box = max(pair for pair in [(0, (0, 0, 0, 0)), *found] if pair is not None)
    if not area:
        return 0, 0, height, width
    top, left, bottom, right = (side * scale for side in box)
    bottom = max(bottom, top + LEAST_HEIGHT * (right - left))
    down, across = MARGIN * (bottom - top), MARGIN * (right - left)
    return (
        max(0, int(top - down)),
        max(0, int(left - across)),
        min(height, int(np.ceil(bottom + down))),
        min(width, int(np.ceil(right + across))),
    )


def _list_thresholds(small: NDArray[np.uint8]) -> list[float]:
    """List the grey levels (0 to 255) to try as the border between lung and tissue; none for a film without contrast.

    They lie around Otsu's threshold between dark and bright points. Black surroundings, which are dark points connected
    to the border, are left out.
    """
    least, most = np.percentile(small.astype(np.float64), (2, 98))
    if most - least < 8:  # grey levels of 255: too little contrast
        return []
    dark = (small < 0.5 * _otsu(small.ravel())).astype(np.uint8)
    _, pieces = cv2.connectedComponents(dark, connectivity=4)
    rim = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    surroundings = np.isin(pieces, rim[rim > 0])
    level = _otsu(small if surroundings.all() else small[~surroundings])
    return [float(factor) * level for factor in LEVELS]


def _otsu(values: NDArray[np.uint8]) -> float:
    """Compute Otsu's threshold of values of any shape."""
    level, _ = cv2.threshold(np.ascontiguousarray(values).reshape(1, -1), 0, 255, cv2.THRESH_OTSU)
    return float(level)


def _find_two_lungs(dark: NDArray[np.uint8]) -> tuple[int, Box] | None:
    """Find the two largest pieces of `dark` [h, w] that can be a pair of lungs; return their points together and the box around both."""
    opened = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, facts, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    height, width = dark.shape
    fits = [
        (int(area), (int(y), int(x), int(y + down), int(x + across)))
        for x, y, across, down, area in facts[1:]
        if LEAST_LUNG <= area / dark.size <= GREATEST_LUNG and area >= LEAST_FILL * across * down
        and x > 0 and y > 0 and x + across < width and y + down < height
    ]  # fmt: skip
    fits = sorted(fits, reverse=True)[:4]
    for (first, one), (second, other) in combinations(fits, 2):
        if _are_a_pair(one, other):
            union = min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
            return first + second, union
    return None


def _are_a_pair(one: Box, other: Box) -> bool:
    """Tell whether two boxes lie beside each other and share at least half of the rows of the shorter one."""
    left, right = sorted((one, other), key=lambda box: box[1] + box[3])
    beside = (left[1] + left[3]) / 2 < right[1] and (right[1] + right[3]) / 2 > left[3]
    together = min(one[2], other[2]) - max(one[0], other[0])
    return beside and together >= 0.5 * min(one[2] - one[0], other[2] - other[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmStatistics:
    """Statistics of one film's pixels. Names and units are those of the index (cohort/prepared/index.py); grey is 0 black to 1 white."""

    grey_min: float
    grey_max: float
    grey_mean: float
    grey_std: float
    padding_share: float
    crop_top: int
    crop_left: int
    crop_bottom: int
    crop_right: int


def film_statistics(grey: NDArray[np.uint16], stored: Stored, shown: Presentation) -> FilmStatistics:
    """Compute the statistics of a film.

    `grey` [H, W] is the film as it is shown, 0 to 65,535; `stored` [H, W] holds the stored values that it was made
    from.
    """
    least, greatest = cv2.minMaxLoc(grey)[:2]
    mean, deviation = (float(part[0, 0]) for part in cv2.meanStdDev(grey))
    top, left, bottom, right = lung_box(grey)
    return FilmStatistics(
        grey_min=least / WHITE,
        grey_max=greatest / WHITE,
        grey_mean=mean / WHITE,
        grey_std=deviation / WHITE,
        padding_share=compute_padding_share(stored, shown),
        crop_top=top,
        crop_left=left,
        crop_bottom=bottom,
        crop_right=right,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Statistics of one slice's pixels. Names and units are those of the index (cohort/prepared/index.py)."""

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
    """Compute the statistics of a slice.

    `plane` [H, W] is HU clipped to [HU_MIN, HU_MAX] plus HU_OFFSET; `stored` [H, W] holds the stored values that it was
    made from.
    """
    count = plane.size
    least, greatest = (int(value) - HU_OFFSET for value in cv2.minMaxLoc(plane)[:2])
    total, squares = round(cv2.norm(plane, cv2.NORM_L1)), round(cv2.norm(plane, cv2.NORM_L2SQR))  # exact below 2^53
    brain = cv2.inRange(plane, np.array(BRAIN_HU[0] + HU_OFFSET), np.array(BRAIN_HU[1] + HU_OFFSET))
    brain_count = cv2.countNonZero(brain)
    brain_total = cv2.norm(plane, cv2.NORM_L1, brain)
    lowest, highest = (min(max(hu, BRAIN_HU[0]), BRAIN_HU[1]) for hu in (least, greatest))
    top, left, bottom, right = head_box(plane)
    return Statistics(
        hu_min=least,
        hu_max=greatest,
        hu_mean=total / count - HU_OFFSET,
        hu_std=max(0, count * squares - total * total) ** 0.5 / count,
        brain_share=brain_count / count,
        brain_hu_mean=brain_total / brain_count - HU_OFFSET if brain_count else 0.0,
        brain_range_hu=float(highest - lowest),
        padding_hu=_find_padding_hu(stored, rescale) if least == HU_MIN else None,
        wrapped_12_bit=rescale.wrapped_bits == 12,
        sign_restored=rescale.wrapped_bits > 12,
        crop_top=top,
        crop_left=left,
        crop_bottom=bottom,
        crop_right=right,
    )


def head_box(plane: NDArray[np.uint16]) -> tuple[int, int, int, int]:
    """Find the box around the largest piece denser than air: rows and columns [top, left, bottom, right).

    `plane` [H, W] is HU plus HU_OFFSET. The box is the whole image where nothing is denser than air. Only every n-th
    row and column is searched, about BOX_GRID of them, after thin parts (table, headrest) are removed by morphological
    opening. The box is accurate to about n pixels.
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


def _find_padding_hu(stored: Stored, rescale: Rescale) -> float | None:
    """Find the HU of the padding: what the rescale makes of padding that the header names, else the least HU before clipping.

    The latter is None where it is not below HU_MIN.
    """
    if rescale.padding is not None and rescale.padding.hu is not None:
        values = to_stored_values(stored, rescale.bits_stored, rescale.signed)
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
