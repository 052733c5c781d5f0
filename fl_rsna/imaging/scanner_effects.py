"""Simulate the same slice from another scanner, with that scanner's point spread, noise and calibration."""

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN
from fl_rsna.imaging.png_store import Image


def simulate_scanner(
    image: Image, *, blur_px: tuple[float, float], hu_noise: float, hu_shift: float, seed: int
) -> NDArray[np.uint16]:
    """Compute the stored HU, uint16 [H, W], that another scanner would have given, rounded and clipped to what may be stored.

    The steps follow a scanner's chain: a Gaussian point spread of SD `blur_px` (across, down) in pixels, white Gaussian
    noise of SD `hu_noise` drawn from `seed`, then `hu_shift` added. Pixels stored as 0 lie outside of what was measured
    (padding, or air at the end of the scale) and stay 0.
    """
    hu = image.astype(np.float32)
    if min(blur_px) > 0:
        hu = np.asarray(cv2.GaussianBlur(hu, (0, 0), sigmaX=blur_px[0], sigmaY=blur_px[1]), np.float32)
    if hu_noise > 0:
        hu += np.float32(hu_noise) * np.random.default_rng(seed).standard_normal(hu.shape, np.float32)
    stored = np.rint(np.clip(hu + np.float32(hu_shift), 0, HU_MAX - HU_MIN))
    return np.where(image == 0, 0, stored).astype(np.uint16)
