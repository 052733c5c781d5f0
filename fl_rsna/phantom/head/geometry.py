"""Define the geometry of the head phantom: slice planes in head coordinates, solids as depth fields, and soft painting.

Head coordinates in mm follow DICOM's patient axes: x to the patient's left, y to the back, z to the vertex; the origin
lies in the midline at the level of the sella. A depth field is positive inside a solid and approximates the distance to
its surface in mm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.floating[Any]]  # float32 throughout
Point: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice]

WARP_MM = 4.0  # anatomy may be displaced by this much against the plain pixel grid
SOFT_EDGE_MM = 2.2  # a pixel and part of the slice thickness, for the partial volume at an oblique surface
WHOLE: Box = (slice(None), slice(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """An axis-aligned ellipsoid."""

    center: Point
    radii: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Capsule:
    """A segment from `start` to `end` whose radius runs linearly from `radii[0]` to `radii[1]`."""

    start: Point
    end: Point
    radii: tuple[float, float]


Solid: TypeAlias = Ellipsoid | Capsule


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The pixels of one slice's crop in head coordinates.

    `x`, `y`, `z` [h, w] are in mm; `origin` [3] is the crop's first pixel, `steps` [3, 2] what one column and one
    row add to it, `inverse` [2, 3] its pseudo-inverse; `level` is the mean z.
    """

    x: Field
    y: Field
    z: Field
    origin: NDArray[np.float64]
    steps: NDArray[np.float64]
    inverse: NDArray[np.float64]
    level: float

    def box(self, solid: Solid) -> Box | None:
        """Find the pixels that the solid can touch on this plane, or None."""
        center, reach = find_bounding_sphere(solid)
        offset = np.asarray(center) - self.origin
        column, row = self.inverse @ offset
        away = float(np.linalg.norm(offset - self.steps @ (column, row)))
        if away > reach:
            return None
        half = float(np.sqrt(reach**2 - away**2)) / float(np.linalg.norm(self.steps[:, 0])) + 1
        height, width = self.x.shape
        top, bottom = max(0, int(row - half)), min(height, int(row + half) + 2)
        left, right = max(0, int(column - half)), min(width, int(column + half) + 2)
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def point(values: Iterable[float]) -> Point:
    """Turn three numbers of any kind into a point of plain floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def make_plane(x: Field, y: Field, z: Field, origin: NDArray[np.float64], steps: NDArray[np.float64]) -> Plane:
    """Make a plane from its coordinate fields [h, w] and the affine map that they come from."""
    inverse: NDArray[np.float64] = np.asarray(np.linalg.pinv(steps), dtype=np.float64)
    return Plane(x=x, y=y, z=z, origin=origin, steps=steps, inverse=inverse, level=float(z.mean()))


def find_bounding_sphere(solid: Solid) -> tuple[Point, float]:
    """Find the centre and radius in mm of a sphere around the solid, with room for the warp and the soft edge."""
    room = WARP_MM + SOFT_EDGE_MM
    match solid:
        case Ellipsoid():
            return solid.center, max(solid.radii) + room
        case Capsule():
            ax, ay, az = solid.start
            bx, by, bz = solid.end
            half = 0.5 * float(np.sqrt((ax - bx) ** 2 + (ay - by) ** 2 + (az - bz) ** 2))
            return ((ax + bx) / 2, (ay + by) / 2, (az + bz) / 2), half + max(solid.radii) + room


def depth(solid: Solid, plane: Plane, box: Box = WHOLE) -> Field:
    """Compute the depth in mm inside the solid on the pixels of `box`."""
    match solid:
        case Ellipsoid(center=(cx, cy, cz), radii=(rx, ry, rz)):
            q = ((plane.x[box] - cx) / rx) ** 2 + ((plane.y[box] - cy) / ry) ** 2 + ((plane.z[box] - cz) / rz) ** 2
            inside: Field = (1 - np.sqrt(q)) * float((rx * ry * rz) ** (1 / 3))
            return inside
        case Capsule(start=(ax, ay, az), end=(bx, by, bz), radii=(ra, rb)):
            dx, dy, dz = bx - ax, by - ay, bz - az
            px, py, pz = plane.x[box] - ax, plane.y[box] - ay, plane.z[box] - az
            along = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
            away = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2)
            return np.asarray(ra + (rb - ra) * along - away)


def union_depth(solids: Iterable[Solid], plane: Plane) -> Field:
    """Compute the depth in mm inside the union of the solids; -99 far from all of them."""
    result = np.full_like(plane.x, -99)
    for solid in solids:
        if box := plane.box(solid):
            np.maximum(result[box], depth(solid, plane, box), out=result[box])
    return result


def mirror_solid(solid: Solid) -> Solid:
    """Mirror a solid at the midline."""
    match solid:
        case Ellipsoid(center=(x, y, z)):
            return Ellipsoid(center=(-x, y, z), radii=solid.radii)
        case Capsule(start=(ax, ay, az), end=(bx, by, bz)):
            return Capsule(start=(-ax, ay, az), end=(-bx, by, bz), radii=solid.radii)


def both_sides(solids: Iterable[Solid]) -> list[Solid]:
    """List every solid and its mirror image."""
    return [side for solid in solids for side in (solid, mirror_solid(solid))]


def ramp(depth_mm: Field, edge_mm: float | Field = SOFT_EDGE_MM) -> Field:
    """Compute the share of a voxel that lies inside, 0..1, for a surface blurred over `edge_mm`."""
    share = depth_mm / edge_mm
    share += 0.5
    return np.clip(share, 0, 1, out=share)


def sheet(distance_mm: Field, half_width_mm: float | Field, blur_mm: float | Field) -> Field:
    """Compute the share 0..1 of a thin sheet blurred by a box of half width `blur_mm`; below 1 where it is thinner than the box."""
    share = (half_width_mm + blur_mm - np.abs(distance_mm)) / (2 * blur_mm)
    return np.asarray(np.minimum(np.clip(share, 0, 1), half_width_mm / blur_mm))


def blend(hu: Field, value: float | Field, share: Field, box: Box = WHOLE) -> None:
    """Mix `value` into `hu` in place by `share` 0..1."""
    view = hu[box]
    view += (value - view) * share


def paint(hu: Field, plane: Plane, solid: Solid, value: float, edge_mm: float = SOFT_EDGE_MM) -> None:
    """Paint a solid of one HU value over `hu` in place, with a soft edge."""
    if box := plane.box(solid):
        blend(hu, value, ramp(depth(solid, plane, box), edge_mm), box)
