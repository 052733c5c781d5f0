"""Choose the square of an image that a model sees: around the head, the lungs, or, leaking the label, the readers' boxes.

All slices of a series share one square around the head, so that neighbours stay aligned. Each radiograph has its own square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.boxes import BOXES, read_boxes, union_inside
from fl_rsna.imaging.png_store import Image
from fl_rsna.settings.model import Crop

BOX = ("crop_top", "crop_left", "crop_bottom", "crop_right")  # columns of an image's box, in pixels of the DICOM image
FRAME = ("rows", "columns")
SERIES = ["patient_id", "series_id"]
MARGIN = 0.02  # share of the box's longer side added on each side
ROUNDING = 1e-6  # pixels by which a corner may miss a whole pixel
LEAST = 0.2  # smallest share of the image's side; a head, also in a field of view of 70 cm, and lungs are larger
HAS_BRAIN = 0.02  # least share of brain pixels; below it, a box of the whole image means that no head was found
TRUTH_SHOWN = (
    "the model was shown crops made from ground-truth boxes, which no patient's film has: its scores are too high"
)


@dataclass(frozen=True, slots=True)
class Square:
    """Square part of a square image: upper left corner and side, as shares of the image's side from 0 to 1."""

    top: float
    left: float
    side: float

    def pixels(self, size: int) -> tuple[int, int, int]:
        """Return (top, left, side) in whole pixels of the smallest square that contains this one, in an image of `size` x `size`."""
        starts = [int(share * size + ROUNDING) for share in (self.top, self.left)]
        ends = [int(np.ceil((share + self.side) * size - ROUNDING)) for share in (self.top, self.left)]
        side = min(size, max(end - start for start, end in zip(starts, ends, strict=True)))
        top, left = (min(start, size - side) for start in starts)
        return top, left, side


WHOLE = Square(0.0, 0.0, 1.0)


def squares(index: pd.DataFrame, crop: Crop) -> list[Square]:
    """Return the square to show of each image of an index, in its order.

    Raises ValueError when the index lacks a column that the crop needs.
    """
    match crop:
        case Crop.none:
            return [WHOLE] * len(index)
        case Crop.head:
            return _around_heads(index)
        case Crop.lungs:
            # The films of a series are no stack, so each has its own square. A box of the whole image means that no lungs were found.
            _check_columns(index, (*FRAME, *BOX), "the lungs' boxes")
            return _around_each(_in_stored_frame(index, index[list(BOX)].to_numpy(np.float64)), least=LEAST)
        case Crop.boxes_leaky:
            return _around_truth(index)


def cut(image: Image, square: Square) -> Image:
    """Return the pixels of a stored square image [D, D(, 3)] inside the square."""
    if square == WHOLE:
        return image
    top, left, side = square.pixels(len(image))
    return image[top : top + side, left : left + side]


def uncut(seen: NDArray[np.float32], square: Square) -> NDArray[np.float32]:
    """Place a map [D, D] of the cut-out square at its place in a whole image [D, D] of zeros."""
    if square == WHOLE:
        return seen
    top, left, side = square.pixels(len(seen))
    whole = np.zeros_like(seen)
    whole[top : top + side, left : left + side] = cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA)
    return whole


def _around_heads(index: pd.DataFrame) -> list[Square]:
    """Return one square for all slices of a series. A box of the whole image counts only where the slice shows brain."""
    _check_columns(index, (*FRAME, *BOX, "brain_share"), "the heads' boxes")
    found = _in_stored_frame(index, index[list(BOX)].to_numpy(np.float64))
    seen = index["brain_share"].to_numpy(np.float64) >= HAS_BRAIN
    there = found.sane & (seen | ~found.whole)
    series = pd.MultiIndex.from_frame(index[SERIES].astype(str)).factorize()[0]
    count = series.max() + 1 if len(series) else 0
    first, last = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(first, series[there], found.first[there])
    np.maximum.at(last, series[there], found.last[there])
    around = [_square(*corners, least=LEAST) for corners in zip(first, last, strict=True)]
    return [around[number] for number in series]


def _around_truth(index: pd.DataFrame) -> list[Square]:
    """Return the square around the union of the boxes that readers drew on each film; the whole film where they drew none."""
    if BOXES not in index:
        raise ValueError(
            f"model.crop: expected the ground-truth column {BOXES} in the index, which {Crop.boxes_leaky} cuts by, got none, as of any "
            f"patient whose film nobody marked; say model.crop={Crop.lungs}"
        )
    _check_columns(index, FRAME, "the images' sizes")
    drawn = []
    for image_id, cell, *shape in index[["image_id", BOXES, *FRAME]].itertuples(index=False, name=None):
        try:
            drawn.append(union_inside(read_boxes(cell), *shape))
        except ValueError as error:
            raise ValueError(f"model.crop: {error} for image {image_id} in the column {BOXES}; correct it") from None
    return _around_each(_in_stored_frame(index, np.array(drawn, np.float64).reshape(-1, 4)), least=0.0)


def _check_columns(index: pd.DataFrame, needed: Sequence[str], what: str) -> None:
    missing = [name for name in needed if name not in index]
    if missing:
        raise ValueError(
            f"model.crop: expected {what} in index.csv, got no {missing[0]}; prepare the data again or say model.crop=none"
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """Each image's box: its corners (down, right) [N, 2], as shares of the side of the stored square."""

    first: NDArray[np.float64]
    last: NDArray[np.float64]
    sane: NDArray[np.bool_]  # [N], the box is finite, not empty and inside the image
    whole: NDArray[np.bool_]  # [N], the box is the whole image


def _in_stored_frame(index: pd.DataFrame, boxes: NDArray[np.float64]) -> Stored:
    """Convert boxes [N, 4] (top, left, bottom, right) from pixels of the images, which were stored padded to centred squares."""
    shape = index[["rows", "columns"]].to_numpy(np.float64)
    side = shape.max(axis=1, keepdims=True)
    padded = np.floor((side - shape) / 2)
    low, high = boxes[:, :2], boxes[:, 2:]
    sane = np.all(np.isfinite(boxes), axis=1) & np.all((low >= 0) & (high > low) & (high <= shape), axis=1)
    whole = (low == 0).all(axis=1) & (high == shape).all(axis=1)
    return Stored((low + padded) / side, (high + padded) / side, np.asarray(sane), whole)


def _around_each(found: Stored, least: float) -> list[Square]:
    """Return each image's own square; the whole image where the box is invalid or is the whole image."""
    corners = zip(found.sane & ~found.whole, found.first, found.last, strict=True)
    return [_square(first, last, least=least) if there else WHOLE for there, first, last in corners]


def _square(first: NDArray[np.float64], last: NDArray[np.float64], *, least: float) -> Square:
    """Make the box from `first` to `last` square, add the margin and move it into the image; the whole image for no box."""
    side = float((last - first).max())
    if not side >= least:  # minus infinity where no slice had a box
        return WHOLE
    side *= 1 + 2 * MARGIN
    if side >= 1:
        return WHOLE
    top, left = np.clip((first + last - side) / 2, 0, 1 - side).tolist()
    return Square(top, left, side)
