"""What the pictures in a page show, as pixels."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray


def pixels_of(uri: str) -> NDArray[np.uint8]:
    """A JPEG data URI back as RGB [H, W, 3]."""
    encoded = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1].astype(np.uint8)
