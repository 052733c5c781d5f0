"""Draw the brain: folded cortex over white matter, deep nuclei, ventricles, cisterns, cerebellum, falx and tentorium."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fl_rsna.phantom.head.anatomy import Anatomy
from fl_rsna.phantom.head.geometry import (
    Capsule,
    Ellipsoid,
    Field,
    Plane,
    Solid,
    blend,
    both_sides,
    depth,
    mirror_solid,
    paint,
    ramp,
    sheet,
    union_depth,
)
from fl_rsna.phantom.head.skull import Shell

CORTEX_MM = 3.6
BLUR_MM = 1.3  # half width of the box over which pixel and slice blur a thin sheet
TENT_TOP = 40.0  # above this level there is no cerebellum

DEEP_GREY: tuple[Solid, ...] = (
    Ellipsoid(center=(14.0, -24.0, 40.0), radii=(5.5, 11.0, 10.0)),  # head of caudate
    Capsule(start=(15.0, -16.0, 48.0), end=(20.0, 18.0, 51.0), radii=(3.5, 2.0)),  # its body
    Ellipsoid(center=(25.0, -5.0, 32.0), radii=(7.5, 17.0, 11.0)),  # lentiform nucleus
    Ellipsoid(center=(10.5, 13.0, 33.0), radii=(9.0, 14.5, 10.0)),  # thalamus
)
PALLIDUM = Ellipsoid(center=(20.0, -4.0, 31.0), radii=(3.0, 6.0, 4.0))
FRONTAL_TO_OCCIPITAL = (  # centre line of a lateral ventricle (x, y, z) and its radius
    (14.0, -43.0, 39.0, 2.5),
    (8.5, -26.0, 43.0, 5.4),
    (6.5, -5.0, 48.0, 4.4),
    (9.5, 14.0, 50.0, 4.8),
    (18.0, 32.0, 44.0, 5.4),
    (24.0, 42.0, 35.0, 5.6),
    (24.0, 57.0, 31.0, 3.6),
    (20.0, 69.0, 31.0, 1.8),
)
ATRIUM_TO_TEMPORAL = ((26.0, 40.0, 30.0, 5.0), (33.0, 24.0, 15.0, 2.6), (32.0, 2.0, 5.0, 2.2))
CHOROID = Ellipsoid(center=(21.0, 39.0, 38.0), radii=(2.6, 4.0, 3.6))
PINEAL = Ellipsoid(center=(0.0, 27.0, 26.0), radii=(2.4, 3.0, 3.0))
MIDBRAIN = Ellipsoid(center=(0.0, 10.0, 9.0), radii=(15.0, 12.5, 12.0))
PONS = Ellipsoid(center=(0.0, 11.0, -14.0), radii=(17.0, 13.0, 14.0))
MEDULLA = Capsule(start=(0.0, 19.0, -26.0), end=(0.0, 30.0, -70.0), radii=(9.0, 6.5))
FOURTH = Ellipsoid(center=(0.0, 32.0, -13.0), radii=(7.5, 4.5, 11.0))
CISTERNS: tuple[Solid, ...] = (
    Ellipsoid(center=(0.0, -8.0, 5.0), radii=(7.0, 7.5, 8.0)),  # suprasellar
    Capsule(start=(0.0, -14.0, 6.0), end=(0.0, -30.0, 12.0), radii=(3.0, 1.0)),
    Ellipsoid(center=(0.0, 11.0, 11.0), radii=(18.0, 15.5, 11.0)),  # ambient and interpeduncular, around the midbrain
    Ellipsoid(center=(0.0, 28.0, 17.0), radii=(9.0, 5.0, 8.0)),  # quadrigeminal
    Ellipsoid(center=(0.0, 36.0, 29.0), radii=(6.0, 7.0, 4.0)),  # superior cerebellar
    Ellipsoid(center=(0.0, 1.0, -14.0), radii=(18.0, 6.0, 15.0)),  # prepontine
    Ellipsoid(center=(0.0, 24.0, -44.0), radii=(15.0, 12.0, 14.0)),  # around the medulla
    Ellipsoid(center=(0.0, 60.0, -42.0), radii=(11.0, 10.0, 9.0)),  # cisterna magna
    *both_sides(
        (
            Capsule(start=(7.0, -10.0, 6.0), end=(34.0, -13.0, 12.0), radii=(2.6, 2.2)),  # sylvian stem
            Capsule(start=(4.0, -5.0, 5.0), end=(16.0, 4.0, 8.0), radii=(3.2, 2.4)),
            Ellipsoid(center=(20.0, 3.0, -16.0), radii=(5.0, 5.0, 8.0)),  # cerebellopontine angle
        )
    ),
)
INSULA = Ellipsoid(center=(38.0, -1.0, 27.0), radii=(14.0, 24.0, 16.0))  # where the sylvian fissure covers the insula
SYLVIAN: tuple[Solid, ...] = (  # openings of the sylvian fissure to the surface
    Capsule(start=(39.0, -18.0, 18.0), end=(64.0, -26.0, 18.0), radii=(1.7, 2.6)),
    Capsule(start=(39.0, 6.0, 28.0), end=(64.0, 16.0, 34.0), radii=(1.5, 2.2)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """The brain of one slice before the skull is laid over it.

    `hu` [h, w] is its density; the other fields [h, w] are in mm. `surface` is the depth below the pia, `ventricles`
    and `cisterns` are depths inside their walls, `fold` is the distance from the nearest sulcal sheet (large below its
    bottom), `tent` is the depth below the tentorium (-99 where there is none), and `sulcus_mm` is half the width of the
    sulci.
    """

    hu: Field
    surface: Field
    fold: Field
    sulcus_mm: Field
    ventricles: Field
    cisterns: Field
    tent: Field


def draw_brain(plane: Plane, anatomy: Anatomy, shell: Shell, texture: Field) -> Brain:
    """Draw all that lies inside the cavity of one slice, without bleeds."""
    tent = _compute_tent_depth(plane)
    rim, fissure = _compute_surface_depths(plane, anatomy, shell, tent)
    surface = np.minimum(rim, fissure)
    reach = np.minimum(shell.vault, fissure + 4 + 2 * np.maximum(24 - plane.z, 0))
    fold = np.maximum(shell.sulcus, reach - shell.sulcus_depth)
    fold = np.where(tent > -3, np.float32(9), fold)
    sulcus_mm = anatomy.sulcus_mm * np.clip(1.4 - surface / (shell.sulcus_depth + 1) + 0.45 * texture, 0.15, 2)
    hu = _draw_cortex(anatomy, surface, fold, sulcus_mm, texture)
    _paint_nuclei(hu, plane, anatomy)
    _paint_hindbrain(hu, plane, anatomy, tent, texture)
    _paint_insula(hu, plane, anatomy, texture)
    cisterns = _paint_cisterns(hu, plane, anatomy, shell)
    ventricles = _paint_ventricles(hu, plane, anatomy)
    _paint_dura(hu, plane, anatomy, shell, tent)
    _paint_calcifications(hu, plane, anatomy)
    for infarct in anatomy.infarcts:
        if box := plane.box(infarct.solid):
            hu[box] -= infarct.drop_hu * ramp(depth(infarct.solid, plane, box), 5.0) * (hu[box] > anatomy.csf_hu + 12)
    return Brain(
        hu=hu, surface=surface, fold=fold, sulcus_mm=sulcus_mm, ventricles=ventricles, cisterns=cisterns, tent=tent
    )


def _compute_tent_depth(plane: Plane) -> Field:
    """Compute the depth below the tentorium, a ridge in the midline that slopes to the sides and back; -99 in front of it."""
    if plane.level > TENT_TOP:
        return np.full_like(plane.x, -99)
    ridge = 33 - 0.55 * np.abs(plane.x) - 0.42 * np.maximum(plane.y - 38, 0)
    return np.where(plane.y > 14, (ridge - plane.z) * 0.8, np.float32(-99))


def _compute_surface_depths(plane: Plane, anatomy: Anatomy, shell: Shell, tent: Field) -> tuple[Field, Field]:
    """Compute the depths below the brain's surface towards the skull, and towards the midline fissure."""
    front = np.clip(-plane.y / 80, 0, 1)
    rim = shell.cavity - (0.7 + anatomy.atrophy * (1.6 + 2.2 * front))
    callosum = np.sqrt(((plane.y - 2) / 44) ** 2 + ((plane.z - 36) / 24) ** 2)
    fissure = np.abs(plane.x) - (0.25 + anatomy.atrophy * (0.7 + 1.3 * front)) + 60 * np.maximum(1 - callosum, 0)
    fissure = np.where((plane.z < 6) | (tent > -2), np.float32(30), fissure)
    return rim, fissure


def _draw_cortex(anatomy: Anatomy, surface: Field, fold: Field, sulcus_mm: Field, texture: Field) -> Field:
    """Draw white matter, cortex and the CSF of sulci and surface, in HU [h, w]."""
    hu = anatomy.white_hu + 0.7 * texture
    hu -= anatomy.white_loss_hu * ramp(surface - 22, 16.0)
    grey = ramp(CORTEX_MM - np.minimum(surface, fold - sulcus_mm), 2.6)
    blend(hu, anatomy.grey_hu, grey)
    blend(hu, anatomy.csf_hu, sheet(fold, sulcus_mm, BLUR_MM))
    blend(hu, anatomy.csf_hu, ramp(-surface))
    return hu


def _paint_nuclei(hu: Field, plane: Plane, anatomy: Anatomy) -> None:
    """Paint the deep grey nuclei, and the pallidum where it is calcified."""
    if not 12 < plane.level < 64:
        return
    for solid in both_sides(DEEP_GREY):
        paint(hu, plane, solid, anatomy.grey_hu - 1.5, 5.0)
    if anatomy.pallidum_hu:
        for solid in both_sides((PALLIDUM,)):
            paint(hu, plane, solid, anatomy.grey_hu + anatomy.pallidum_hu, 3.0)


def _paint_hindbrain(hu: Field, plane: Plane, anatomy: Anatomy, tent: Field, texture: Field) -> None:
    """Paint the cerebellum with its folia and white matter."""
    if plane.level > TENT_TOP:
        return
    folia = np.sin(0.9 * plane.y + 0.35 * np.abs(plane.x) + 0.8 * texture)
    leaves = anatomy.grey_hu - 3.0 - (0.8 + 2.5 * anatomy.atrophy) * np.maximum(folia, 0)
    blend(hu, leaves, ramp(tent))
    for side in both_sides((Ellipsoid(center=(21.0, 40.0, -16.0), radii=(13.0, 15.0, 10.0)),)):
        paint(hu, plane, side, anatomy.white_hu + 1.5, 8.0)


def _paint_insula(hu: Field, plane: Plane, anatomy: Anatomy, texture: Field) -> None:
    """Paint the insula and the sylvian fissure."""
    if not 4 < plane.level < 54:
        return
    cleft = union_depth(both_sides(SYLVIAN), plane)
    bowed = 1.4 + 0.7 * texture - np.abs(np.abs(plane.x) - 36 - 0.009 * (plane.y + 3) ** 2 - 1.2 * texture)
    cleft = np.maximum(cleft, np.minimum(bowed, union_depth(both_sides((INSULA,)), plane)))
    blend(hu, anatomy.grey_hu, ramp(cleft + CORTEX_MM, 2.6))
    wide = anatomy.atrophy * 2.4 - 1.5
    blend(hu, anatomy.csf_hu, ramp(cleft + wide, 3.0))


def _paint_cisterns(hu: Field, plane: Plane, anatomy: Anatomy, shell: Shell) -> Field:
    """Paint the cisterns and the brain stem in them; return the cisterns' depth."""
    if plane.level > 48:
        return np.full_like(plane.x, -99)
    cisterns = union_depth(CISTERNS, plane) + (anatomy.atrophy - 0.3) * 1.6
    stem = union_depth((MIDBRAIN, PONS, MEDULLA), plane)
    notch = Ellipsoid(center=(0.0, -3.0, 9.0), radii=(4.0, 4.5, 8.0))
    stem = np.minimum(stem, -union_depth((notch,), plane))
    peduncles = union_depth(
        both_sides((Capsule(start=(12.0, 12.0, -14.0), end=(26.0, 34.0, -16.0), radii=(6.0, 7.0)),)), plane
    )
    stem = np.maximum(stem, peduncles)
    blend(hu, anatomy.csf_hu, ramp(cisterns))
    blend(hu, 0.5 * (anatomy.grey_hu + anatomy.white_hu), ramp(stem))
    open_space: Field = np.minimum(cisterns, -stem)
    return open_space


def _paint_ventricles(hu: Field, plane: Plane, anatomy: Anatomy) -> Field:
    """Paint the lateral, third and fourth ventricles; return their depth."""
    left, right = (
        [
            Capsule(start=(ax, ay, az), end=(bx, by, bz), radii=(ra * wide, rb * wide))
            for line in (FRONTAL_TO_OCCIPITAL, ATRIUM_TO_TEMPORAL)
            for (ax, ay, az, ra), (bx, by, bz, rb) in pairwise(line)
        ]
        for wide in anatomy.ventricle
    )
    third = Ellipsoid(center=(0.0, 6.0, 25.0), radii=(0.9 + 2.6 * sum(anatomy.ventricle) / 2, 15.0, 10.0))
    solids = (*left, *map(mirror_solid, right), third, FOURTH)
    ventricles = union_depth(solids, plane) if plane.level < 72 else np.full_like(plane.x, -99)
    septum: Field = sheet(plane.x, 0.7, 1.0) * ramp(30 - np.abs(plane.y + 8), 4.0) * (plane.z > 36)
    blend(hu, anatomy.csf_hu, ramp(ventricles) * (1 - septum))
    return ventricles


def _paint_dura(hu: Field, plane: Plane, anatomy: Anatomy, shell: Shell, tent: Field) -> None:
    """Paint falx and tentorium, and the venous sinuses along the skull."""
    callosum = np.sqrt(((plane.y - 2) / 52) ** 2 + ((plane.z - 34) / 33) ** 2)
    falx = sheet(plane.x, 0.75, 1.0) * ramp((callosum - 1) * 40, 6.0) * (plane.z > 8) * (tent < 0)
    blend(hu, anatomy.falx_hu, falx)
    upper = (plane.y > 15) | (plane.z > 60)
    sagittal = ramp(np.minimum(5.5 - shell.cavity, 4.5 - np.abs(plane.x) - 0.7 * shell.cavity)) * upper
    blend(hu, anatomy.blood_pool_hu, sagittal * (tent < 4))
    if plane.level < TENT_TOP:
        blend(hu, anatomy.falx_hu, 0.55 * sheet(tent, 0.9, 1.5) * (plane.y > 15))
        transverse = ramp(np.minimum(4.5 - np.abs(tent - 2), 6.0 - shell.cavity)) * ramp(plane.y - 36, 10.0)
        blend(hu, anatomy.blood_pool_hu, transverse)


def _paint_calcifications(hu: Field, plane: Plane, anatomy: Anatomy) -> None:
    """Paint the calcifications of the pineal gland, the choroid plexus and the falx."""
    if anatomy.pineal_hu:
        paint(hu, plane, PINEAL, anatomy.pineal_hu)
    for solid, value in zip((CHOROID, mirror_solid(CHOROID)), anatomy.choroid_hu, strict=True):
        if value:
            paint(hu, plane, solid, value)
    for plaque in anatomy.falx_plaques:
        paint(hu, plane, plaque, 350.0)
