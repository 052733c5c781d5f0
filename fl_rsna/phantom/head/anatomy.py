"""Draw the anatomy of one synthetic head: the numbers and textures in which heads differ."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.head.geometry import Ellipsoid, Field, Plane, Point, point

MAP_SIZE = 384  # pixels a side of the surface maps
MAP_REACH = 1.75  # half width of the maps, in units of the equal-area projection
MAP_CENTER: Point = (0.0, 4.0, 26.0)  # the point from which directions are taken
GYRUS_PIXELS = 5.6  # Gaussian width that sets the spacing of sulci to about 12 mm at the convexity


@dataclass(frozen=True, slots=True, kw_only=True)
class Infarct:
    """An old infarct, darker than brain by `drop_hu`. It distracts a detector and never makes a label."""

    solid: Ellipsoid
    drop_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The numbers and textures that make one head differ from the next; lengths in mm, densities in HU.

    `scale` stretches the template head along x, y, z; `atrophy` runs from 0 (young) to 1 (advanced). The maps `surface`
    [S, S, 4] hold, for all directions from the brain's centre, the distance to the nearest sulcus (radians), the depth
    of that sulcus (mm), a factor of the skull's thickness and the diploe's texture. `coarse`, `middle`, `fine` [Z, n,
    n] are smooth, finer and finest noise with unit deviation; `sway` [Z, n, n, 2] displaces the brain in x and y.
    """

    scale: Point
    egg: float
    atrophy: float
    ventricle: tuple[float, float]
    sulcus_mm: float
    skull_mm: float
    scalp_mm: float
    sinus: Point
    grey_hu: float
    white_hu: float
    csf_hu: float
    falx_hu: float
    blood_pool_hu: float
    pineal_hu: float
    choroid_hu: tuple[float, float]
    pallidum_hu: float
    falx_plaques: tuple[Ellipsoid, ...]
    infarcts: tuple[Infarct, ...]
    white_loss_hu: float
    surface: Field
    coarse: Field
    middle: Field
    fine: Field
    sway: Field


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a random adult head."""
    size, atrophy = rng.normal(1, 0.035), float(rng.beta(1.3, 1.6))
    scale = (float(size * rng.normal(1, 0.03)), float(size * rng.normal(1, 0.03)), float(size * rng.normal(1, 0.03)))
    roominess = 0.55 + 0.85 * atrophy
    ventricle = float(np.clip(roominess * rng.normal(1, 0.13), 0.42, 1.6))
    skew = float(rng.normal(0, 0.08))
    grey_hu = float(rng.normal(37.5, 1.2))
    return Anatomy(
        scale=scale,
        egg=float(rng.normal(0.085, 0.03)),
        atrophy=atrophy,
        ventricle=(ventricle * (1 + skew), ventricle * (1 - skew)),
        sulcus_mm=0.12 + 1.15 * atrophy**1.5 * float(rng.uniform(0.7, 1.2)),
        skull_mm=float(np.clip(rng.normal(6.6, 1.1), 4.5, 10)),
        scalp_mm=float(np.clip(rng.normal(5.0, 1.2), 3, 9)),
        sinus=(float(rng.uniform(8, 30)), float(rng.uniform(3, 5.5)), float(rng.uniform(8, 17))),
        grey_hu=grey_hu,
        white_hu=grey_hu - float(rng.uniform(7, 10)),
        csf_hu=float(rng.normal(6, 1.5)),
        falx_hu=float(rng.uniform(44, 66)),
        blood_pool_hu=float(rng.uniform(44, 66)),
        pineal_hu=float(rng.choice([0, 90, 160, 260])),
        choroid_hu=(float(rng.choice([0, 60, 110, 200])), float(rng.choice([0, 60, 110, 200]))),
        pallidum_hu=float(rng.uniform(12, 60)) if rng.random() < 0.1 else 0.0,
        falx_plaques=tuple(_draw_plaque(rng) for _ in range(rng.poisson(0.4))),
        infarcts=tuple(_draw_infarct(rng) for _ in range(rng.poisson(0.15 + 0.5 * atrophy))),
        white_loss_hu=float(rng.uniform(0, 7)) * atrophy,
        surface=_draw_surface_maps(rng, atrophy),
        coarse=_draw_noise(rng, layers=7, side=11),
        middle=_draw_noise(rng, layers=22, side=32),
        fine=_draw_noise(rng, layers=40, side=96),
        sway=np.stack([_draw_noise(rng, layers=7, side=8), _draw_noise(rng, layers=7, side=8)], axis=-1)
        * np.float32(1.4),
    )


def at_height(stack: Field, height: float) -> Field:
    """Interpolate the layer [n, n] of a noise stack at `height` 0..1 of the scanned range, between its two nearest layers."""
    place = float(np.clip(height, 0, 1)) * (len(stack) - 1)
    lower = min(int(place), len(stack) - 2)
    layer: Field = stack[lower] + (stack[lower + 1] - stack[lower]) * (place - lower)
    return layer


def over_image(layer: Field, size: int) -> Field:
    """Stretch a noise layer smoothly over an image of `size` pixels a side."""
    return np.asarray(cv2.resize(layer, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def look_up_surface(anatomy: Anatomy, plane: Plane) -> tuple[Field, Field, Field, Field]:
    """Look up the surface maps for each pixel, four fields [h, w].

    They are the distance to the nearest sulcus (mm), the sulcus's depth (mm), the factor of the skull's thickness, and
    the diploe's texture.
    """
    x, y, z = plane.x - MAP_CENTER[0], (plane.y - MAP_CENTER[1]) * 0.86, plane.z - MAP_CENTER[2]
    r = np.sqrt(x * x + y * y + z * z) + 1e-3
    spread = np.sqrt(2 / (r * np.maximum(r + z, 0.25 * r)))  # Lambert's azimuthal equal-area projection from the vertex
    spread *= 0.5 * MAP_SIZE / MAP_REACH
    across, along = x * spread + MAP_SIZE / 2, y * spread + MAP_SIZE / 2
    found = cv2.remap(anatomy.surface, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    maps = np.asarray(found, dtype=np.float32)
    return maps[..., 0] * r, maps[..., 1], maps[..., 2], maps[..., 3]


def _draw_surface_maps(rng: np.random.Generator, atrophy: float) -> Field:
    """Draw the maps of `Anatomy.surface`: sulci are the zeros of smooth noise."""
    folds = _draw_smooth_noise(rng, GYRUS_PIXELS) - 0.7 * _draw_smooth_noise(rng, GYRUS_PIXELS * 2.4)
    slope = np.hypot(cv2.Sobel(folds, cv2.CV_32F, 1, 0), cv2.Sobel(folds, cv2.CV_32F, 0, 1)) / 8
    radians = 2 * MAP_REACH / MAP_SIZE
    distance = np.clip(np.abs(folds) / (slope + 1e-3) * radians, 0, 0.2)
    deep = np.clip(11 + 3 * atrophy + 4 * _draw_smooth_noise(rng, 8), 3, 22)
    thickness = np.clip(1 + 0.17 * _draw_smooth_noise(rng, 22) + 0.02 * _draw_smooth_noise(rng, 6), 0.55, 1.6)
    diploe = 0.7 * _draw_smooth_noise(rng, 6) + 0.5 * _draw_smooth_noise(rng, 1.5)
    return np.stack([distance, deep, thickness, diploe], axis=-1).astype(np.float32)


def _draw_smooth_noise(rng: np.random.Generator, sigma: float) -> Field:
    """Draw smooth noise of unit deviation on the surface maps."""
    noise = rng.standard_normal((MAP_SIZE, MAP_SIZE), dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), dtype=np.float32) * np.float32(2 * np.sqrt(np.pi) * sigma)


def _draw_noise(rng: np.random.Generator, *, layers: int, side: int) -> Field:
    return rng.standard_normal((layers, side, side), dtype=np.float32)


def _draw_plaque(rng: np.random.Generator) -> Ellipsoid:
    """Draw a calcified plaque in the falx."""
    center = (0.0, float(rng.choice([-1, 1]) * rng.uniform(50, 70)), float(rng.uniform(45, 75)))
    return Ellipsoid(
        center=center, radii=(float(rng.uniform(0.8, 2)), float(rng.uniform(2, 6)), float(rng.uniform(3, 7)))
    )


def _draw_infarct(rng: np.random.Generator) -> Infarct:
    """Draw a lacune or a territorial infarct."""
    side = float(rng.choice([-1, 1]))
    if rng.random() < 0.5:  # lacune
        center, radius = (side * rng.uniform(10, 28), rng.uniform(-20, 20), rng.uniform(25, 45)), rng.uniform(2, 5)
        radii: NDArray[np.float64] = np.full(3, radius)
    else:  # territorial
        center = (side * rng.uniform(35, 58), rng.uniform(-40, 60), rng.uniform(20, 70))
        radii = rng.uniform([10, 12, 10], [20, 26, 20])
    return Infarct(solid=Ellipsoid(center=point(center), radii=point(radii)), drop_hu=float(rng.uniform(8, 20)))
