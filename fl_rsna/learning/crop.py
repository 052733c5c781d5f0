"""A square around the head, one for all slices of a series, so that neighbours stay aligned."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.choices import Crop
from fl_rsna.imaging.store import Image

BOX = ("crop_top", "crop_left", "crop_bottom", "crop_right")  # of a slice, in pixels of the DICOM image
NEEDED = (*BOX, "rows", "columns", "brain_share")
SERIES = ["patient_id", "series_id"]
MARGIN = 0.02  # of the box's longer side, on each side; a union of boxes is wide already
ROUNDING = 1e-6  # of a pixel
LEAST = 0.2  # of the image's side: a head is no smaller even in a field of view of 70 cm
HAS_BRAIN = (
    0.02  # share of pixels, as in the index's `noise`: below it a box of the whole image means that none was found
)


@dataclass(frozen=True, slots=True)
class Square:
    """Part of a square image: upper left corner and side as shares of the image's side, each 0 to 1."""

    top: float
    left: float
    side: float

    def pixels(self, size: int) -> tuple[int, int, int]:
        """(top, left, side) in an image of `size` pixels a side: the least whole pixels that hold it."""
        starts = [int(share * size + ROUNDING) for share in (self.top, self.left)]
        ends = [int(np.ceil((share + self.side) * size - ROUNDING)) for share in (self.top, self.left)]
        side = min(size, max(end - start for start, end in zip(starts, ends, strict=True)))
        top, left = (min(start, size - side) for start in starts)
        return top, left, side


WHOLE = Square(0.0, 0.0, 1.0)


def squares(index: pd.DataFrame, crop: Crop) -> list[Square]:
    """What is shown of each slice of an index, in its order. Raises ValueError when the index has no boxes."""
    match crop:
        case Crop.none:
            return [WHOLE] * len(index)
        case Crop.head:
            return _around_heads(index)


def cut(image: Image, square: Square) -> Image:
    """That part of a stored square image [D, D(, 3)]."""
    if square == WHOLE:
        return image
    top, left, side = square.pixels(len(image))
    return image[top : top + side, left : left + side]


def uncut(seen: NDArray[np.float32], square: Square) -> NDArray[np.float32]:
    """A map [D, D] of what was cut out, laid back onto a whole image [D, D] of zeros."""
    if square == WHOLE:
        return seen
    top, left, side = square.pixels(len(seen))
    whole = np.zeros_like(seen)
    whole[top : top + side, left : left + side] = cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA)
    return whole


def _around_heads(index: pd.DataFrame) -> list[Square]:
    missing = [name for name in NEEDED if name not in index]
    if missing:
        raise ValueError(
            f"model.crop: expected the heads' boxes in index.csv, got no {missing[0]}; prepare the data again or say model.crop=none"
        )
    lowest, highest, found = _in_stored_frame(index)
    series = pd.MultiIndex.from_frame(index[SERIES].astype(str)).factorize()[0]
    count = series.max() + 1 if len(series) else 0
    first, last = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(first, series[found], lowest[found])
    np.maximum.at(last, series[found], highest[found])
    around = [_square(*corners) for corners in zip(first, last, strict=True)]
    return [around[number] for number in series]


def _in_stored_frame(
    index: pd.DataFrame,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Corners (down, right) [N, 2] twice of each slice's box, as shares of the square that was stored, and if it is one.

    A slice was padded to a centred square. A box of the whole image counts only where there is brain to see.
    """
    shape = index[["rows", "columns"]].to_numpy(np.float64)
    boxes = index[list(BOX)].to_numpy(np.float64)
    side = shape.max(axis=1, keepdims=True)
    padded = np.floor((side - shape) / 2)
    low, high = boxes[:, :2], boxes[:, 2:]
    sane = np.isfinite(boxes).all(axis=1) & (low >= 0).all(axis=1) & (high > low).all(axis=1)
    sane &= (high <= shape).all(axis=1)
    whole = (low == 0).all(axis=1) & (high == shape).all(axis=1)
    seen = index["brain_share"].to_numpy(np.float64) >= HAS_BRAIN
    return (low + padded) / side, (high + padded) / side, sane & (seen | ~whole)


def _square(first: NDArray[np.float64], last: NDArray[np.float64]) -> Square:
    """The box from `first` to `last` made square, with its margin, moved into the image; the whole image if it is none."""
    side = float((last - first).max())
    if not side >= LEAST:  # no slice had a box: minus infinity
        return WHOLE
    side *= 1 + 2 * MARGIN
    if side >= 1:
        return WHOLE
    top, left = np.clip((first + last - side) / 2, 0, 1 - side).tolist()
    return Square(top, left, side)
