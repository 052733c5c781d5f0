"""Facts about a film's pixels: how grey it is as it is shown, and where its lungs are."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.lungs import lung_box
from fl_rsna.imaging.padding import Stored
from fl_rsna.imaging.radiograph import WHITE, Presentation, padding_share


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmStatistics:
    """Names and units are those of the index (cohort/columns.py); grey is 0 black to 1 white."""

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
    """`grey` [H, W] is the film as it is shown, 0 to 65,535, `stored` [H, W] what it was made from."""
    least, greatest = cv2.minMaxLoc(grey)[:2]
    mean, deviation = (float(part[0, 0]) for part in cv2.meanStdDev(grey))
    top, left, bottom, right = lung_box(grey)
    return FilmStatistics(
        grey_min=least / WHITE,
        grey_max=greatest / WHITE,
        grey_mean=mean / WHITE,
        grey_std=deviation / WHITE,
        padding_share=padding_share(stored, shown),
        crop_top=top,
        crop_left=left,
        crop_bottom=bottom,
        crop_right=right,
    )
