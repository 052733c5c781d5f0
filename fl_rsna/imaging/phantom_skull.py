"""The head's shell: skin, scalp, skull with diploe, and the cavity the brain lies in."""

from dataclasses import dataclass

import numpy as np

from fl_rsna.imaging.phantom_anatomy import Anatomy, look_up_surface
from fl_rsna.imaging.phantom_geometry import (
    Capsule,
    Ellipsoid,
    Field,
    Plane,
    blend,
    both_sides,
    paint,
    ramp,
    sheet,
    union_depth,
)

INNER_RADII = (67.0, 85.0, 73.0)  # inner table above its widest level
INNER_BELOW = 98.0  # vertical radius below it
WIDEST_Z = 27.0
BASE_TOP = 42.0  # above this level there is nothing but vault
THICKNESS_MM = 5.0  # of a slice: blurs what lies oblique to it

TEMPORAL_FOSSA = Ellipsoid(center=(36.0, -14.0, 1.0), radii=(26.0, 33.0, 21.0))
POSTERIOR_FOSSA = Ellipsoid(center=(0.0, 40.0, -12.0), radii=(59.0, 48.0, 38.0))
SELLA = Ellipsoid(center=(0.0, -2.0, 8.0), radii=(20.0, 22.0, 11.0))
CANAL_RADIUS, CANAL_Y, CANAL_TOP = 15.0, 30.0, -36.0
FACE = Ellipsoid(center=(0.0, -44.0, -48.0), radii=(70.0, 60.0, 95.0))
NECK = Ellipsoid(center=(0.0, 22.0, -62.0), radii=(75.0, 72.0, 90.0))
NOSE = Ellipsoid(center=(0.0, -104.0, -38.0), radii=(14.0, 17.0, 26.0))
EAR = Capsule(start=(74.0, 8.0, -14.0), end=(84.0, 26.0, -10.0), radii=(4.0, 2.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Depth fields [h, w] in mm of one slice.

    `vault` below the inner table, `cavity` inside the brain's space (vault and base), `skin` below the skin.
    `blur` is the width over which the vault's surfaces fade (wide where they run along the slice), `sulcus` the
    distance to the nearest sulcal sheet, `sulcus_depth` how deep that sheet reaches, `bone` the skull's thickness,
    `diploe` a texture.
    """

    vault: Field
    cavity: Field
    skin: Field
    blur: Field
    sulcus: Field
    sulcus_depth: Field
    bone: Field
    diploe: Field


def shape_shell(plane: Plane, inner: Plane, anatomy: Anatomy) -> Shell:
    """The depth fields every tissue is placed by; `inner` is the plane as the gently deformed brain sees it."""
    vault, slope_z = _vault_depth(plane, anatomy)
    sulcus, sulcus_depth, thickness, diploe = look_up_surface(anatomy, inner)
    front = np.clip((-plane.y - 40) / 60, 0, 1) + 0.7 * np.clip((plane.y - 50) / 40, 0, 1)
    bone = anatomy.skull_mm * thickness * (0.85 + 0.45 * front)
    scalp = anatomy.scalp_mm * (0.9 + 0.1 * thickness)
    skin, cavity = vault + bone + scalp, vault
    if plane.level < BASE_TOP:
        floor = _floor_depth(plane)
        cavity = np.minimum(vault, floor)
        skin = np.maximum(skin, union_depth((FACE, NECK, NOSE, *both_sides((EAR,))), plane))
        bone = np.where(floor < vault, np.minimum(bone, 3.8), bone)
    return Shell(
        vault=vault,
        cavity=cavity,
        skin=skin,
        blur=1.2 + 0.6 * THICKNESS_MM * slope_z,
        sulcus=sulcus,
        sulcus_depth=sulcus_depth,
        bone=bone,
        diploe=diploe,
    )


def paint_scalp(hu: Field, plane: Plane, anatomy: Anatomy, shell: Shell, texture: Field, bundles: Field) -> None:
    """Fat and skin over the vault; below it muscle, parted by fat where `bundles` [h, w] is near zero."""
    blend(hu, -75 + 12 * texture, ramp(shell.skin, shell.blur))
    if plane.level < BASE_TOP + 20:
        low = ramp(36 - plane.z, 20.0)
        deep = ramp(shell.skin - anatomy.scalp_mm, 3.0)
        parted = np.clip(4.5 * np.abs(bundles) - 0.35, 0, 1)
        blend(hu, 56.0, parted * low * deep)
        for side in both_sides((Ellipsoid(center=(64.5, -28.0, 2.0), radii=(8.0, 28.0, 34.0)),)):
            paint(hu, plane, side, 60.0)
    blend(hu, 50.0, sheet(shell.skin - 2.2, 1.5, 1.0 + 0.3 * shell.blur))


def paint_skull(hu: Field, shell: Shell) -> None:
    """Outer and inner table of dense bone with darker diploe between them."""
    outside = shell.cavity + shell.bone  # depth below the outer table
    share = ramp(outside, shell.blur) * ramp(-shell.cavity, shell.blur)
    middle = ramp(np.minimum(outside, -shell.cavity) - 0.27 * shell.bone, 1.0 + 0.4 * shell.blur)
    thick = np.clip((shell.bone - 3.5) / 3, 0, 1)
    density = 1560 - (860 + 130 * shell.diploe) * middle * thick
    blend(hu, density, share)


def _vault_depth(plane: Plane, anatomy: Anatomy) -> tuple[Field, Field]:
    """Depth below the inner table (egg: narrower in front) and the share of its normal that points along z."""
    a, b, c = INNER_RADII
    x = plane.x * (1 - anatomy.egg * plane.y / b)
    z = plane.z - WIDEST_Z
    height = np.where(z > 0, np.float32(1 / c), np.float32(1 / INNER_BELOW))
    qx, qy, qz = (x / a) ** 2, (plane.y / b) ** 2, (z * height) ** 2
    level = np.sqrt(np.maximum(qx + qy + qz - 0.3 * qx * qy, 1e-6))  # the product squares the outline a little
    slope = np.sqrt(qx / a**2 + qy / b**2 + qz * height**2) / level + 1e-5
    inside: Field = (1 - level) / slope
    slope_z: Field = np.abs(z) * height**2 / (level * slope)
    return inside, slope_z


def _floor_depth(plane: Plane) -> Field:
    """Depth above the three fossae of the skull base; open towards the vault and the spinal canal."""
    across = np.abs(plane.x)
    front = ramp(-plane.y - 27, 16.0)
    roof = 1.5 + front * (2 + 11 * np.exp(-(((across - 29) / 13) ** 2)) - 0.12 * np.clip(plane.y + 60, -40, 0))
    floor = np.maximum(plane.z - roof, union_depth((POSTERIOR_FOSSA, SELLA, *both_sides((TEMPORAL_FOSSA,))), plane))
    if plane.level < CANAL_TOP + 25:
        canal = CANAL_RADIUS - np.hypot(plane.x, plane.y - CANAL_Y)
        floor = np.maximum(floor, np.minimum(canal, (CANAL_TOP + 8 - plane.z) * 0.7))
    return np.asarray(floor)
