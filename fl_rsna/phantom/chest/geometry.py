"""Define the geometry of the chest phantom: template millimetres to pixels, smooth outlines, and soft painting.

Template coordinates: x to the patient's left, which is the right of the picture, y to the feet; the origin lies in the
midline at the level of the lungs' tips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Field: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.uint8]  # 0..255, the share of a pixel that is covered
Points: TypeAlias = NDArray[np.float64]  # [N, 2] of x, y in mm

SHIFT = 4  # bits of the fraction in OpenCV's fixed-point pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The pixels of a film: `matrix` [2, 3] turns (x, y, 1) in mm into column and row.

    `x`, `y` [H, W] are the mm of each pixel; `scale` is pixels per mm.
    """

    matrix: NDArray[np.float64]
    scale: float
    x: Field
    y: Field

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of the film."""
        rows, columns = self.x.shape
        return rows, columns

    def place(self, points: Points) -> NDArray[np.int32]:
        """Turn points [..., 2] in mm into OpenCV's fixed-point pixels."""
        pixels = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        placed: NDArray[np.int32] = np.rint(pixels * (1 << SHIFT)).astype(np.int32)
        return placed


def make_frame(matrix: NDArray[np.float64], rows: int, columns: int) -> Frame:
    """Make the frame of a film of this size from the matrix [2, 3] that turns mm into pixels."""
    inverse = np.linalg.inv(matrix[:, :2])
    origin = -inverse @ matrix[:, 2]
    across, down = np.arange(columns, dtype=np.float32)[None, :], np.arange(rows, dtype=np.float32)[:, None]
    x, y = (
        np.float32(origin[k]) + np.float32(inverse[k, 0]) * across + np.float32(inverse[k, 1]) * down for k in (0, 1)
    )
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    return Frame(matrix=matrix, scale=scale, x=x, y=y)


def smooth_line(points: ArrayLike, *, closed: bool = False, steps: int = 8) -> Points:
    """Draw a Catmull-Rom curve through the points [N, 2], with `steps` points from one to the next."""
    given: Points = np.asarray(points, dtype=np.float64)
    ends = (given[-1:], given[:2]) if closed else (2 * given[:1] - given[1:2], 2 * given[-1:] - given[-2:-1])
    p = np.concatenate([ends[0], given, ends[1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (p[k : len(p) - 3 + k, None, :] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, given[-1:]])


def oval(x: float, y: float, wide: float, high: float, *, turn_deg: float = 0.0) -> Points:
    """Outline an ellipse of these half axes in mm around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cosine, sine = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    across, down = wide * np.cos(angle), high * np.sin(angle)
    return np.stack([x + cosine * across - sine * down, y + sine * across + cosine * down], axis=1)


def move_points(points: Points, x: float, y: float) -> Points:
    """Move points by so many mm to the right and down."""
    there: Points = points + np.array([x, y])
    return there


def fill(frame: Frame, outline: Points) -> Mask:
    """Compute the share of each pixel that lies inside the outline, 0..255 [H, W]."""
    mask = np.zeros(frame.shape, dtype=np.uint8)
    cv2.fillPoly(mask, [frame.place(outline)], (255,), cv2.LINE_AA, SHIFT)
    return mask


def stroke(layer: Mask, frame: Frame, lines: Sequence[Points] | Points, width_mm: float, value: float) -> None:
    """Draw lines, each [P, 2] or all [n, P, 2], of `width_mm` over `layer` in place.

    A line thinner than a pixel is drawn one pixel wide and paler.
    """
    pixels = width_mm * frame.scale
    grey = float(np.clip(value * min(1.0, pixels), 0, 255))
    placed = list(frame.place(lines)) if isinstance(lines, np.ndarray) else [frame.place(line) for line in lines]
    cv2.polylines(layer, placed, False, (grey,), max(1, round(pixels)), cv2.LINE_AA, SHIFT)


def share(mask: Mask) -> Field:
    """Turn a mask 0..255 into shares 0..1."""
    return mask.astype(np.float32) * np.float32(1 / 255)


def blur(field: Field, pixels: float) -> Field:
    """Blur by a Gaussian of SD `pixels`; below a fifth of a pixel not at all."""
    if pixels < 0.2:
        return field
    return cast("Field", cv2.GaussianBlur(field, (0, 0), pixels, borderType=cv2.BORDER_REPLICATE))


def haze_of(field: Field, pixels: float) -> Field:
    """Blur widely, by a Gaussian of SD `pixels`, on a smaller picture."""
    step = max(1, int(pixels / 3))
    rows, columns = field.shape
    small = cv2.resize(field, (max(2, columns // step), max(2, rows // step)), interpolation=cv2.INTER_AREA)
    soft = blur(cast("Field", small), pixels / step)
    return cast("Field", cv2.resize(soft, (columns, rows), interpolation=cv2.INTER_LINEAR))


def bulge(mask: Mask, radius: float) -> Field:
    """Compute the thickness of a rounded solid of this outline: 0 at its edge, 1 from `radius` pixels inwards."""
    away: Any = cv2.distanceTransform(cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1], cv2.DIST_L2, 3)
    away *= np.float32(-1 / radius)
    away += np.float32(1)
    np.maximum(away, 0, out=away)
    away *= away
    return cast("Field", np.sqrt(1 - away))


def smooth_noise(rng: np.random.Generator, side: int) -> Field:
    """Draw a small square of unit noise that `stretch` lays over pictures."""
    return rng.standard_normal((side, side), dtype=np.float32)


def stretch(noise: Field, rows: int, columns: int) -> Field:
    """Stretch noise smoothly over a picture."""
    return cast("Field", cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC))


def step_up(value: Field, edge: float) -> Field:
    """Compute a smooth step: 0 below -edge / 2, 1 above edge / 2."""
    t: Field = value * np.float32(1 / edge)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    smooth: Field = t * np.float32(-2)
    smooth += np.float32(3)
    smooth *= t
    smooth *= t
    return smooth
