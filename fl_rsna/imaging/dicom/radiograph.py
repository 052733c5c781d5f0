"""Turn the stored values of one radiograph into grey as the film is meant to be seen: 0 is black, 65,535 white and dense.

The steps and their order are DICOM's (PS3.3 C.11.1, C.11.2, PS3.4 N.2): the modality table or rescale; then the first
VOI table, else the first window, else the middle 99% of the values; then MONOCHROME1 is inverted.
PhotometricInterpretation alone decides whether to invert, never the look of the pixels. PresentationLUTShape is
ignored: in a film it must be INVERSE for MONOCHROME1 and IDENTITY for MONOCHROME2 (C.8.11.3.1.2), so it repeats the
photometric tag, and following both would invert a film twice. Stored values have 16 bits at most, so one exact table of
65,536 entries and one pass over a film do all steps.
"""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.lut import Lut, Values, Window
from fl_rsna.imaging.dicom.padding import Padding, Stored, to_stored_values

WHITE = 65535
PERCENTILES = (0.5, 99.5)  # of the values that are no padding, for a film whose header states no window


class Voi(StrEnum):
    """The part of a header that chose the values of interest."""

    lut = "lut"
    window = "window"
    percentiles = "percentiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """The rule by which a stored value becomes grey.

    Only the low `value_bits` bits are the value, in two's complement when `signed`. `padding` holds the values that are
    no picture; they become black, whatever the tables say. With `inverted` the least value is white.
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
        """The source of the values of interest: the VOI table, else the window, else percentiles."""
        if self.voi_lut is not None:
            return Voi.lut
        return Voi.percentiles if self.window is None else Voi.window


def to_grey16(stored: Stored, shown: Presentation) -> NDArray[np.uint16]:
    """Turn stored values [H, W] into grey uint16 [H, W]. A film of one value without a window becomes black."""
    index = np.ascontiguousarray(stored).view(np.uint16)
    table = grey_table(shown, np.bincount(index.ravel(), minlength=65536))
    return cv2.LUT(index, table).reshape(stored.shape)  # type: ignore[return-value]


def grey_table(shown: Presentation, counts: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Compute the grey of all 65,536 bit patterns, uint16 [65536].

    `counts` [65536] says how often a film has each pattern, which only percentiles need.
    """
    values, padding = modality_values(shown), find_padding_patterns(shown)
    match shown.voi:
        case Voi.lut:
            assert shown.voi_lut is not None
            share = shown.voi_lut.of(values) / shown.voi_lut.greatest
        case Voi.window:
            assert shown.window is not None
            share = shown.window.of(values)
        case Voi.percentiles:
            low, high = _find_percentiles(values, np.where(padding, 0, counts))
            if not high > low:
                return np.zeros(65536, np.uint16)
            share = np.clip((values - low) / (high - low), 0, 1)
    grey = np.rint(share * WHITE).astype(np.uint16)
    return np.where(padding, 0, WHITE - grey if shown.inverted else grey).astype(np.uint16)


def modality_values(shown: Presentation) -> Values:
    """Compute the value of each of the 65,536 bit patterns after the modality table or rescale, float64 [65536]."""
    stored = to_stored_values(np.arange(65536, dtype=np.uint16), shown.value_bits, shown.signed)
    values = stored.astype(np.float64)
    return values * shown.slope + shown.intercept if shown.modality_lut is None else shown.modality_lut.of(values)


def find_padding_patterns(shown: Presentation) -> NDArray[np.bool_]:
    """Find which of the 65,536 bit patterns are padding, bool [65536]; stored values are compared, before any rescale."""
    if shown.padding is None:
        return np.zeros(65536, bool)
    return shown.padding.holds(to_stored_values(np.arange(65536, dtype=np.uint16), shown.value_bits, shown.signed))


def compute_padding_share(stored: Stored, shown: Presentation) -> float:
    """Compute the share of pixels that are padding, 0 to 1."""
    if shown.padding is None:
        return 0.0
    return float(find_padding_patterns(shown)[np.ascontiguousarray(stored).view(np.uint16)].mean())


def _find_percentiles(values: Values, counts: NDArray[np.integer]) -> tuple[float, float]:
    """Find the two values of PERCENTILES: each is the least value that at least its share of the pixels does not exceed.

    Where both are the same value, the extremes are returned; 0, 0 without a pixel.
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
