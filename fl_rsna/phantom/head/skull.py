"""Shape and paint the head's shell and bones: skin, scalp, skull with diploe, petrous bones, mastoid cells, orbits, sinuses and jaw.

The shell also gives the depth inside the brain's cavity.
"""

from dataclasses import dataclass

import numpy as np

from fl_rsna.phantom.head.anatomy import Anatomy, look_up_surface
from fl_rsna.phantom.head.geometry import (
    Capsule,
    Ellipsoid,
    Field,
    Plane,
    Point,
    Solid,
    blend,
    both_sides,
    depth,
    paint,
    ramp,
    sheet,
    union_depth,
)

AIR_HU, FAT_HU, MUSCLE_HU = -950.0, -92.0, 55.0

BONES: tuple[tuple[Solid, float], ...] = (
    (Capsule(start=(54.0, 20.0, -13.0), end=(15.0, -1.0, -9.0), radii=(11.0, 5.5)), 1050.0),  # petrous pyramid
    (Ellipsoid(center=(30.0, 8.0, -10.0), radii=(8.0, 5.5, 5.0)), 1750.0),  # otic capsule
    (Ellipsoid(center=(57.0, 28.0, -22.0), radii=(11.0, 15.0, 19.0)), 750.0),  # mastoid
    (Capsule(start=(12.0, -30.0, 6.0), end=(58.0, -46.0, 8.0), radii=(2.5, 4.0)), 900.0),  # sphenoid wing
    (Capsule(start=(44.0, -80.0, -24.0), end=(66.0, -52.0, -24.0), radii=(5.0, 2.8)), 950.0),  # zygoma
    (Capsule(start=(66.0, -52.0, -24.0), end=(66.0, -16.0, -22.0), radii=(2.4, 3.0)), 950.0),  # zygomatic arch
    (Capsule(start=(46.0, -78.0, -24.0), end=(45.0, -78.0, 16.0), radii=(4.5, 3.5)), 950.0),  # lateral orbital rim
    (Capsule(start=(51.0, -8.0, -28.0), end=(47.0, -20.0, -75.0), radii=(5.5, 4.0)), 900.0),  # mandible
    (Capsule(start=(12.0, -34.0, -24.0), end=(16.0, -30.0, -56.0), radii=(2.5, 2.5)), 700.0),  # pterygoid
    (Ellipsoid(center=(25.0, 34.0, -46.0), radii=(8.0, 11.0, 7.0)), 750.0),  # occipital condyle
    (Capsule(start=(24.0, 26.0, -60.0), end=(20.0, 44.0, -62.0), radii=(7.0, 4.0)), 700.0),  # atlas
)
MIDLINE_BONES: tuple[tuple[Solid, float], ...] = (
    (Capsule(start=(0.0, -4.0, -8.0), end=(0.0, 14.0, -44.0), radii=(9.0, 5.0)), 650.0),  # clivus
    (Capsule(start=(0.0, -84.0, -14.0), end=(0.0, -98.0, -24.0), radii=(6.0, 3.0)), 700.0),  # nasal bones
    (Capsule(start=(0.0, -36.0, -58.0), end=(0.0, -84.0, -58.0), radii=(4.0, 14.0)), 600.0),  # palate
)
GLOBE: Point = (31.0, -76.0, -7.0)
ORBIT = Capsule(start=(12.0, -36.0, -5.0), end=(31.0, -74.0, -7.0), radii=(4.0, 18.0))
ORBIT_STRANDS: tuple[tuple[Solid, float], ...] = (
    (Capsule(start=(12.0, -38.0, -5.0), end=(29.0, -66.0, -7.0), radii=(2.4, 2.0)), 38.0),  # optic nerve
    (Capsule(start=(11.0, -40.0, -5.0), end=(18.0, -72.0, -6.0), radii=(1.5, 2.2)), 55.0),  # medial rectus
    (Capsule(start=(15.0, -38.0, -5.0), end=(43.0, -70.0, -7.0), radii=(1.5, 2.2)), 55.0),  # lateral rectus
    (Capsule(start=(13.0, -40.0, 0.0), end=(30.0, -72.0, 6.0), radii=(1.5, 2.2)), 55.0),  # superior rectus
    (Capsule(start=(13.0, -40.0, -10.0), end=(30.0, -72.0, -20.0), radii=(1.5, 2.2)), 55.0),  # inferior rectus
)
MAXILLARY = Ellipsoid(center=(29.0, -64.0, -44.0), radii=(15.0, 17.0, 17.0))
SPHENOID = Ellipsoid(center=(8.0, -22.0, -12.0), radii=(8.5, 10.0, 8.0))
ETHMOID = Ellipsoid(center=(0.0, -58.0, -8.0), radii=(13.0, 25.0, 14.0))
NASAL = Ellipsoid(center=(0.0, -62.0, -42.0), radii=(13.0, 34.0, 20.0))
EAR_CANAL = Capsule(start=(60.0, 8.0, -18.0), end=(88.0, 8.0, -20.0), radii=(3.0, 3.5))
MASTOID_CELLS = Ellipsoid(center=(57.0, 27.0, -20.0), radii=(9.0, 13.0, 16.0))
MIDDLE_EAR = Ellipsoid(center=(42.0, 11.0, -12.0), radii=(5.0, 5.0, 5.0))
CHEWING: tuple[Solid, ...] = (
    Ellipsoid(center=(58.0, -34.0, -48.0), radii=(7.0, 17.0, 26.0)),  # masseter
    Ellipsoid(center=(36.0, -30.0, -42.0), radii=(9.0, 13.0, 22.0)),  # pterygoids
    Ellipsoid(center=(18.0, 82.0, -52.0), radii=(17.0, 14.0, 26.0)),  # neck
    Ellipsoid(center=(48.0, 56.0, -54.0), radii=(12.0, 20.0, 24.0)),
)
INNER_RADII = (67.0, 85.0, 73.0)  # inner table above its widest level
INNER_BELOW = 98.0  # vertical radius below that level
WIDEST_Z = 27.0
BASE_TOP = 42.0  # above this level there is nothing but vault
THICKNESS_MM = 5.0  # of a slice; it blurs surfaces that are oblique to the slice
TEMPORAL_FOSSA = Ellipsoid(center=(36.0, -14.0, 1.0), radii=(26.0, 33.0, 21.0))
POSTERIOR_FOSSA = Ellipsoid(center=(0.0, 40.0, -12.0), radii=(59.0, 48.0, 38.0))
SELLA = Ellipsoid(center=(0.0, -2.0, 8.0), radii=(20.0, 22.0, 11.0))
CANAL_RADIUS, CANAL_Y, CANAL_TOP = 15.0, 30.0, -36.0
FACE = Ellipsoid(center=(0.0, -44.0, -48.0), radii=(70.0, 60.0, 95.0))
NECK = Ellipsoid(center=(0.0, 22.0, -62.0), radii=(75.0, 72.0, 90.0))
NOSE = Ellipsoid(center=(0.0, -104.0, -38.0), radii=(14.0, 17.0, 26.0))
EAR = Capsule(start=(74.0, 8.0, -14.0), end=(84.0, 26.0, -10.0), radii=(4.0, 2.5))


def paint_base(hu: Field, plane: Plane, anatomy: Anatomy, cells: Field, texture: Field) -> None:
    """Paint bones, orbits and air spaces into `hu`; `cells` and the smoother `texture` [h, w] cut air into cells."""
    for solid in both_sides(CHEWING):
        paint(hu, plane, solid, MUSCLE_HU + 4, 4.0)
    for solid, density in (*MIDLINE_BONES, *((side, hu_) for one, hu_ in BONES for side in both_sides((one,)))):
        if box := plane.box(solid):
            inside = depth(solid, plane, box)
            value = density + 350 * ramp(2.5 - inside, 2.5) + 160 * cells[box]  # a dense rim, a mottled core
            blend(hu, np.maximum(value, hu[box]), ramp(inside), box)  # bone that is already denser stays
    for side in (1.0, -1.0):
        _paint_orbit(hu, plane, side)
    _paint_air(hu, plane, anatomy, cells, texture)


def _paint_orbit(hu: Field, plane: Plane, side: float) -> None:
    """Paint an orbit: bony cone, fat, muscles, optic nerve, and globe with lens."""
    if not plane.box(_on(side, ORBIT)):
        return
    wall = Capsule(start=ORBIT.start, end=(31.0, -70.0, -7.0), radii=(7.0, 19.5))
    paint(hu, plane, _on(side, wall), 650.0)
    paint(hu, plane, _on(side, ORBIT), FAT_HU)
    for solid, value in ORBIT_STRANDS:
        paint(hu, plane, _on(side, solid), value, 1.6)
    x, y, z = GLOBE
    paint(hu, plane, _on(side, Ellipsoid(center=GLOBE, radii=(12.6, 12.6, 12.6))), 48.0, 1.4)
    paint(hu, plane, _on(side, Ellipsoid(center=GLOBE, radii=(11.0, 11.0, 11.0))), 11.0, 1.4)
    paint(hu, plane, _on(side, Ellipsoid(center=(x, y - 8.5, z), radii=(4.6, 2.2, 4.6))), 88.0, 1.4)
    lid = Ellipsoid(center=(x, y - 13.5, z), radii=(11.5, 3.0, 10.0))
    paint(hu, plane, _on(side, lid), 35.0)


def _paint_air(hu: Field, plane: Plane, anatomy: Anatomy, cells: Field, texture: Field) -> None:
    """Paint the air of sinuses, nose, ears and mastoid cells."""
    wide, deep, high = anatomy.sinus
    frontal = Ellipsoid(center=(0.28 * wide, -87.5, 16.0 + 0.4 * high), radii=(wide, deep, high))
    for space, septa in ((frontal, 0.12), (SPHENOID, 0.0), (MAXILLARY, 0.0)):
        for solid in both_sides((space,)):
            _paint_cavity(hu, plane, solid, texture, septa)
    _paint_cavity(hu, plane, ETHMOID, texture + 0.3 * cells, 0.26)
    _paint_cavity(hu, plane, NASAL, texture, 0.0)
    if box := plane.box(NASAL):  # conchae and septum of the nose
        inside = ramp(depth(NASAL, plane, box) - 1)
        across = np.abs(plane.x[box])
        blend(hu, 45.0, inside * ramp(2.6 - np.abs(across - 7.5) - 0.06 * np.abs(plane.y[box] + 56)), box)
        blend(hu, 350.0, inside * ramp(1.2 - across), box)
    for solid in both_sides((EAR_CANAL, MIDDLE_EAR)):
        paint(hu, plane, solid, AIR_HU)
    for solid in both_sides((MASTOID_CELLS,)):
        _paint_cavity(hu, plane, solid, cells, 0.7)


def _paint_cavity(hu: Field, plane: Plane, solid: Solid, texture: Field, septa: float) -> None:
    """Paint air inside a thin bony wall, cut by septa where the texture is within `septa` of zero."""
    if box := plane.box(solid):
        inside = depth(solid, plane, box) + 1.2 * texture[box]
        blend(hu, np.maximum(hu[box], 700), ramp(inside + 1.8), box)
        air = ramp(inside) * np.clip((np.abs(texture[box]) - septa) * 4 + 0.5, 0, 1)
        blend(hu, AIR_HU, air, box)


def _on(side: float, solid: Solid) -> Solid:
    """Return the solid on the left (1) or mirrored to the right (-1)."""
    return solid if side > 0 else both_sides((solid,))[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The depth fields [h, w] of one slice in mm.

    `vault` is the depth below the inner table, `cavity` the depth inside the brain's space (vault and base), `skin` the
    depth below the skin. `blur` is the width over which the vault's surfaces fade (wide where they run along the
    slice), `sulcus` the distance to the nearest sulcal sheet, `sulcus_depth` how deep that sheet reaches, `bone` the
    skull's thickness, `diploe` a texture.
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
    """Compute the depth fields by which every tissue is placed; `inner` is the plane with the brain's gentle deformation."""
    vault, slope_z = _compute_vault_depth(plane, anatomy)
    sulcus, sulcus_depth, thickness, diploe = look_up_surface(anatomy, inner)
    front = np.clip((-plane.y - 40) / 60, 0, 1) + 0.7 * np.clip((plane.y - 50) / 40, 0, 1)
    bone = anatomy.skull_mm * thickness * (0.85 + 0.45 * front)
    scalp = anatomy.scalp_mm * (0.9 + 0.1 * thickness)
    skin, cavity = vault + bone + scalp, vault
    if plane.level < BASE_TOP:
        floor = _compute_floor_depth(plane)
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
    """Paint fat and skin over the vault, and below it muscle, which fat parts where `bundles` [h, w] is near zero."""
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
    """Paint the outer and inner table of dense bone with darker diploe between them."""
    outside = shell.cavity + shell.bone  # depth below the outer table
    share = ramp(outside, shell.blur) * ramp(-shell.cavity, shell.blur)
    middle = ramp(np.minimum(outside, -shell.cavity) - 0.27 * shell.bone, 1.0 + 0.4 * shell.blur)
    thick = np.clip((shell.bone - 3.5) / 3, 0, 1)
    density = 1560 - (860 + 130 * shell.diploe) * middle * thick
    blend(hu, density, share)


def _compute_vault_depth(plane: Plane, anatomy: Anatomy) -> tuple[Field, Field]:
    """Compute the depth below the inner table (an egg, narrower in front) and the share of its normal that points along z."""
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


def _compute_floor_depth(plane: Plane) -> Field:
    """Compute the depth above the three fossae of the skull base, which are open towards the vault and the spinal canal."""
    across = np.abs(plane.x)
    front = ramp(-plane.y - 27, 16.0)
    roof = 1.5 + front * (2 + 11 * np.exp(-(((across - 29) / 13) ** 2)) - 0.12 * np.clip(plane.y + 60, -40, 0))
    floor = np.maximum(plane.z - roof, union_depth((POSTERIOR_FOSSA, SELLA, *both_sides((TEMPORAL_FOSSA,))), plane))
    if plane.level < CANAL_TOP + 25:
        canal = CANAL_RADIUS - np.hypot(plane.x, plane.y - CANAL_Y)
        floor = np.maximum(floor, np.minimum(canal, (CANAL_TOP + 8 - plane.z) * 0.7))
    return np.asarray(floor)
