"""Another scanner's picture: its shift, noise and blur are what they say, and what was not measured stays 0."""

from typing import Any

import cv2
import numpy as np
import pytest

from fl_rsna.imaging.scanner_effects import simulate_scanner


def seen(image: np.ndarray, **changes: Any) -> np.ndarray:  # type: ignore[type-arg]
    return simulate_scanner(image, **{"blur_px": (0, 0), "hu_noise": 0, "hu_shift": 0, "seed": 1, **changes})


def flat(value: int = 1064, size: int = 128) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((size, size), value, np.uint16)


def test_nothing_asked_for_is_nothing_changed() -> None:
    every = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(seen(every), every)


@pytest.mark.parametrize("shift", [15, -15, 2.6])
def test_a_shift_is_added_and_kept_inside_what_can_be_stored(shift: float) -> None:
    every = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    expected = np.clip(np.rint(np.arange(4096) + np.float32(shift)), 0, 4095)
    expected[0] = 0  # not measured
    found = seen(every, hu_shift=shift)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.ravel(), expected)


def test_noise_has_its_spread_and_follows_from_the_seed_alone() -> None:
    noise = seen(flat(), hu_noise=10.0).astype(float) - 1064
    assert abs(noise.mean()) < 0.4  # 5 standard errors of 16,384 pixels
    assert abs(noise.std() - 10) < 0.3
    np.testing.assert_array_equal(seen(flat(), hu_noise=10.0), seen(flat(), hu_noise=10.0))
    assert (seen(flat(), hu_noise=10.0, seed=2) != noise + 1064).mean() > 0.9


def test_blur_is_a_gaussian_of_its_own_spread_in_each_direction() -> None:
    point = np.full((41, 41), 1000, np.uint16)
    point[20, 20] = 4000
    spread = seen(point, blur_px=(1.0, 2.0)).astype(float) - 1000
    assert abs(spread.sum() - 3000) < 60  # rounding to whole HU
    offset = np.arange(41) - 20.0
    assert abs((spread.sum(0) * offset**2).sum() / spread.sum() - 1) < 0.1
    assert abs((spread.sum(1) * offset**2).sum() / spread.sum() - 4) < 0.4


def test_blur_comes_before_noise_and_noise_before_the_shift() -> None:
    image = np.kron(np.array([[900, 1200], [1300, 1000]], np.uint16), np.ones((16, 16), np.uint16))
    hu = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigmaX=1.5, sigmaY=1.5)
    drawn = np.random.default_rng(1).standard_normal(hu.shape, np.float32) * 5
    expected = np.rint(hu + drawn + 7)
    np.testing.assert_array_equal(seen(image, blur_px=(1.5, 1.5), hu_noise=5.0, hu_shift=7.0), expected)


def test_what_was_not_measured_stays_so() -> None:
    image = flat()
    image[:40] = 0
    found = seen(image, blur_px=(2.0, 2.0), hu_noise=20.0, hu_shift=30.0)
    assert not found[:40].any()
    assert found[45:].mean() > 1064
