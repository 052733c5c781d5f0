"""Overlays are one colour that hides nothing where there is no heat."""

import base64

import cv2
import numpy as np

from fl_rsna.reporting.images.explanations import DENSEST, HEAT_RGB, LESION_RGB, heat_uri, lesion_uri


def read(uri: str) -> np.ndarray:
    """The pixels of a PNG data URI, uint8 [S, S, 4] in R, G, B, A."""
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)


def test_heat_is_denser_where_hotter_and_one_colour() -> None:
    heat = np.tile(np.linspace(0, 0.45, 64), (64, 1))  # below the line
    pixels = read(heat_uri(heat))
    assert pixels.shape == (64, 64, 4)
    alpha = pixels[..., 3].astype(int)
    assert (np.diff(alpha, axis=1) >= 0).all()
    np.testing.assert_allclose(alpha / 255, heat * DENSEST, atol=0.04)
    assert (pixels[alpha > 0, :3] == HEAT_RGB).all()
    assert not pixels[alpha == 0].any()


def test_a_line_runs_around_the_hottest() -> None:
    heat = np.zeros((32, 32))
    heat[8:20, 8:20] = 1
    alpha = read(heat_uri(heat))[..., 3]
    assert (alpha[8, 8:20] == 255).all()
    assert abs(int(alpha[14, 14]) - DENSEST * 255) <= 1
    assert not alpha[:8].any()


def test_no_heat_hides_nothing() -> None:
    assert not read(heat_uri(np.zeros((16, 16)))).any()


def test_a_lesion_is_its_outline() -> None:
    lesion = np.zeros((32, 32), bool)
    lesion[4:12, 5:15] = True
    pixels = read(lesion_uri(lesion))
    lined = pixels[..., 3] == 255
    expected = lesion.copy()
    expected[5:11, 6:14] = False
    np.testing.assert_array_equal(lined, expected)
    assert (pixels[lined, :3] == LESION_RGB).all()
