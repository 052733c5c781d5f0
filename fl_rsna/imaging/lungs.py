"""The box around the lungs of a frontal chest film, by a rule that looks at grey alone: no annotation takes part.

Lungs are two large dark regions inside a bright body, left and right of its middle and about equally high. What is dark
and reaches the border of the film is air or collimation. Where that is not what a film looks like, the box is all of it:
a model that sees too much learns more slowly, one that sees half a lung misses what is in the other half.
"""

from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 128  # the lungs are searched on so many points along the longer side
SMOOTH = 2.0  # Gaussian, in points
LEVELS = np.arange(0.7, 1.55, 0.05)  # of Otsu's threshold between lung and tissue; the one with most lung is taken
LEAST_LUNG, GREATEST_LUNG = 0.015, 0.3  # of the film
LEAST_FILL = 0.4  # of its box: a lung that leaks into neck, armpit or bowel fills less
MARGIN = 0.12  # of the box's height and width, on every side
LEAST_HEIGHT = 0.8  # of the box's width: dense lower lobes hide the base of the lungs
Box = tuple[int, int, int, int]


def lung_box(grey: NDArray[np.uint16]) -> Box:
    """Rows and columns [top, left, bottom, right) of both lungs of a film [H, W], dense is bright; all of it without them."""
    height, width = grey.shape
    scale = max(height, width) / GRID
    if scale < 1:
        return 0, 0, height, width
    size = max(1, round(width / scale)), max(1, round(height / scale))
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (0, 0), SMOOTH)
    shades = (small / 257).astype(np.uint8)
    found = [_two_lungs((shades < level).astype(np.uint8)) for level in _levels(shades)]
    area, box = max(pair for pair in [(0, (0, 0, 0, 0)), *found] if pair is not None)
    return _outwards(box, scale, height, width) if area else (0, 0, height, width)


def _levels(small: NDArray[np.uint8]) -> list[float]:
    """Thresholds to try, around Otsu's between dark and bright among all points that are no black surroundings."""
    least, most = np.percentile(small.astype(np.float64), (2, 98))
    if most - least < 8:  # of 255: nothing to tell apart
        return []
    return [float(factor) * _otsu(small[_inside(small)]) for factor in LEVELS]


def _inside(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Points that no way through dark ones leads to from the border: the body with all that is in it."""
    dark = (small < 0.5 * _otsu(small.ravel())).astype(np.uint8)
    _, pieces = cv2.connectedComponents(dark, connectivity=4)
    rim = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    outside = np.isin(pieces, rim[rim > 0])
    return np.ones_like(outside) if outside.all() else ~outside


def _otsu(values: NDArray[np.uint8]) -> float:
    level, _ = cv2.threshold(np.ascontiguousarray(values).reshape(1, -1), 0, 255, cv2.THRESH_OTSU)
    return float(level)


def _two_lungs(dark: NDArray[np.uint8]) -> tuple[int, Box] | None:
    """Points and box of the two largest pieces that can be a pair of lungs, on the grid."""
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
    """Beside each other, and at least half of the lower one's rows are rows of the other, too."""
    left, right = sorted((one, other), key=lambda box: box[1] + box[3])
    beside = (left[1] + left[3]) / 2 < right[1] and (right[1] + right[3]) / 2 > left[3]
    together = min(one[2], other[2]) - max(one[0], other[0])
    return beside and together >= 0.5 * min(one[2] - one[0], other[2] - other[0])


def _outwards(box: Box, scale: float, height: int, width: int) -> Box:
    """The box in pixels with its margin, inside the film."""
    top, left, bottom, right = (side * scale for side in box)
    bottom = max(bottom, top + LEAST_HEIGHT * (right - left))
    down, across = MARGIN * (bottom - top), MARGIN * (right - left)
    return (
        max(0, int(top - down)),
        max(0, int(left - across)),
        min(height, int(np.ceil(bottom + down))),
        min(width, int(np.ceil(right + across))),
    )
