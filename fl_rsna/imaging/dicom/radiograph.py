"""Stored values of one radiograph to grey as the film is meant to be seen: 0 is black, 65,535 white and dense.

The order is DICOM's (PS3.3 C.11.1, C.11.2, PS3.4 N.2): modality table or rescale; the first VOI table, else the first
window, else the middle 99% of the values; then MONOCHROME1 turned over. That is decided by PhotometricInterpretation
alone, never by how the pixels look. PresentationLUTShape is not asked: in a film it must be INVERSE for MONOCHROME1
and IDENTITY for MONOCHROME2 (C.8.11.3.1.2), so it repeats the photometric tag, and following both would turn a film
twice. Stored values have 16 bits at most, so all of it is one table of 65,536 entries, exact, and one pass a film.
"""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.lut import Lut, Values, Window
from fl_rsna.imaging.dicom.padding import Padding, Stored, to_stored_values

WHITE = 65535
PERCENTILES = (0.5, 99.5)  # of the values that are no padding, where a header says nothing


class Voi(StrEnum):
    """What chose the values of interest."""

    lut = "lut"
    window = "window"
    percentiles = "percentiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a stored value becomes grey.

    Only the low `value_bits` bits are the value, in two's complement when `signed`. `padding` is no picture: black,
    whatever the tables say. `inverted`: the least value is white.
    """

    value_bits: int = 16
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi_lut: Lut | None = None
    window: Window | None = None
    inverted: bool = False
    padding: Padding | None = None

    @property
    def voi(self) -> Voi:
        if self.voi_lut is not None:
            return Voi.lut
        return Voi.percentiles if self.window is None else Voi.window


def to_grey16(stored: Stored, shown: Presentation) -> NDArray[np.uint16]:
    """stored [H, W] -> grey uint16 [H, W]. A film of one value without a window is black."""
    index = np.ascontiguousarray(stored).view(np.uint16)
    table = grey_table(shown, np.bincount(index.ravel(), minlength=65536))
    return cv2.LUT(index, table).reshape(stored.shape)  # type: ignore[return-value]


def grey_table(shown: Presentation, counts: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Grey of all 65,536 patterns; `counts` says how often a film has each, which only percentiles ask for."""
    values, padding = modality_values(shown), find_padding_patterns(shown)
    match shown.voi:
        case Voi.lut:
            assert shown.voi_lut is not None
            share = shown.voi_lut.of(values) / shown.voi_lut.greatest
        case Voi.window:
            assert shown.window is not None
            share = shown.window.of(values)
        case Voi.percentiles:
            low, high = _percentiles(values, np.where(padding, 0, counts))
            if not high > low:
                return np.zeros(65536, np.uint16)
            share = np.clip((values - low) / (high - low), 0, 1)
    grey = np.rint(share * WHITE).astype(np.uint16)
    return np.where(padding, 0, WHITE - grey if shown.inverted else grey).astype(np.uint16)


def modality_values(shown: Presentation) -> Values:
    """What each of the 65,536 patterns is after the modality table or rescale, float64."""
    values = _list_stored_values(shown).astype(np.float64)
    return values * shown.slope + shown.intercept if shown.modality_lut is None else shown.modality_lut.of(values)


def find_padding_patterns(shown: Presentation) -> NDArray[np.bool_]:
    """Which of the 65,536 patterns are padding, compared as they are stored."""
    if shown.padding is None:
        return np.zeros(65536, bool)
    return shown.padding.holds(_list_stored_values(shown))


def compute_padding_share(stored: Stored, shown: Presentation) -> float:
    """Share of pixels that are padding."""
    if shown.padding is None:
        return 0.0
    return float(find_padding_patterns(shown)[np.ascontiguousarray(stored).view(np.uint16)].mean())


def _list_stored_values(shown: Presentation) -> NDArray[np.integer]:
    return to_stored_values(np.arange(65536, dtype=np.uint16), shown.value_bits, shown.signed)


def _percentiles(values: Values, counts: NDArray[np.integer]) -> tuple[float, float]:
    """The least values that at least such shares of the pixels do not exceed, or the extremes where these are one value.

    0, 0 without a pixel.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return 0.0, 0.0
    low, high = (values[order[np.searchsorted(reached, part / 100 * reached[-1])]] for part in PERCENTILES)
    if low == high:
        there = values[counts > 0]
        low, high = there.min(), there.max()
    return float(low), float(high)
