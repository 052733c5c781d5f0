"""Heat and lesions as transparent pictures to lie over a slice.

One hue on grey is told apart by everyone, and a slice brings its own black ground, so a page may be light or dark.
"""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

HEAT_RGB, LESION_RGB = (230, 159, 0), (86, 180, 233)  # orange and sky blue of Okabe and Ito
DENSEST, STEPS = 0.6, 12  # alpha of full heat, and steps up to it: smooth enough, and small as a PNG
LINE_AT = 0.5  # of the highest heat


def heat_uri(heat: NDArray[np.floating]) -> str:
    """Heat [S, S] in 0..1 as a PNG data URI: the denser the hotter, with a line around half of the highest."""
    alpha = np.round(np.round(np.clip(heat, 0, 1) * STEPS) / STEPS * DENSEST * 255).astype(np.uint8)
    return _uri(_lined(alpha, heat >= LINE_AT), HEAT_RGB)


def lesion_uri(lesion: NDArray[np.bool_]) -> str:
    """The outline of a lesion [S, S] as a PNG data URI."""
    return _uri(_lined(np.zeros(lesion.shape, np.uint8), lesion), LESION_RGB)


def _lined(alpha: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(alpha, outlines, -1, 255, 1), dtype=np.uint8)


def _uri(alpha: NDArray[np.uint8], colour: tuple[int, int, int]) -> str:
    """One colour of these densities; wholly transparent pixels hold no colour, so that they cost nothing."""
    pixels = np.zeros((*alpha.shape, 4), np.uint8)
    pixels[alpha > 0, :3] = colour[::-1]  # OpenCV writes blue first
    pixels[..., 3] = alpha
    done, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done, "OpenCV encodes every 8-bit array"
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()
