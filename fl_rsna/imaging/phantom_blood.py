"""The five bleeds in one slice: where blood lies, how it looks, what it pushes aside, and where it is seen."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_bleeds import SUBTYPES, Bleed, Clot, Crescent, Film, Layer, Lens, subtype
from fl_rsna.imaging.phantom_brain import BLUR_MM, Brain
from fl_rsna.imaging.phantom_geometry import Field, Plane, Point, blend, depth, point, ramp, sheet
from fl_rsna.imaging.phantom_skull import Shell

SEEN_SHARE, SEEN_CONTRAST_HU = 0.4, 9.0  # a mask holds voxels with this much blood and this much contrast


def displaced(plane: Plane, bleeds: tuple[Bleed, ...]) -> Plane:
    """The plane as the brain sees it: pushed away from lenses, crescents and clots."""
    for bleed in bleeds:
        match bleed:
            case Lens(center=center, thick_mm=thick):
                plane = _pushed(plane, center, 0.75 * thick, 40.0)
            case Crescent(along_falx=False, side=side, center=(_, y, z), thick_mm=thick):
                plane = _pushed(plane, (side * 62.0, y, z), 0.75 * thick, 44.0)
            case Clot(lobes=lobes):
                x, y, z = lobes[0].center
                plane = _pushed(plane, (1.4 * x, y, z), 0.25 * lobes[0].radii[0], 34.0)
            case _:
                pass
    return plane


def _pushed(plane: Plane, center: Point, push_mm: float, width_mm: float) -> Plane:
    """Tissue near `center` moved by up to `push_mm` across the midline."""
    near = (plane.x - center[0]) ** 2 + (plane.y - center[1]) ** 2 + (plane.z - center[2]) ** 2
    shift = np.exp(near * np.float32(-0.5 / width_mm**2)) * np.float32(push_mm * np.sign(center[0]))
    return replace(plane, x=plane.x + shift)


def paint_bleeds(
    brain: Brain, plane: Plane, shell: Shell, bleeds: tuple[Bleed, ...], texture: Field, bundles: Field
) -> NDArray[np.bool_]:
    """Paint the bleeds into `brain.hu`; returns where each subtype is really seen, [5, h, w].

    `texture` and the coarser `bundles` [h, w] roughen their edges.
    """
    seen = np.zeros((len(SUBTYPES), *plane.x.shape), dtype=np.bool_)
    for bleed in bleeds:
        before = brain.hu.copy()
        match bleed:
            case Lens():
                share = _lens_share(bleed, plane, shell)
            case Crescent():
                share = _crescent_share(bleed, plane, shell, brain, texture)
            case Film():
                share = _film_share(bleed, plane, brain, texture)
            case Layer():
                share = _layer_share(bleed, plane, brain)
            case Clot():
                share = _clot_share(bleed, plane, brain, bundles)
        share = share * ramp(shell.cavity)
        blend(brain.hu, bleed.hu + 3 * texture, share)
        seen[subtype(bleed)] |= (share > SEEN_SHARE) & (brain.hu - before > SEEN_CONTRAST_HU) & (shell.cavity > 0)
    return seen


def _lens_share(lens: Lens, plane: Plane, shell: Shell) -> Field:
    away = (plane.x - lens.center[0]) ** 2 + (plane.y - lens.center[1]) ** 2 + (plane.z - lens.center[2]) ** 2
    lateral = np.maximum(away - shell.cavity**2, 0) / lens.reach_mm**2
    share: Field = ramp(lens.thick_mm * (1 - lateral) - shell.cavity) * (lateral < 1)
    return share


def _crescent_share(crescent: Crescent, plane: Plane, shell: Shell, brain: Brain, texture: Field) -> Field:
    (_, y, z), (_, ry, rz) = crescent.center, crescent.reach
    spread = ((plane.y - y) / ry) ** 2 + ((plane.z - z) / rz) ** 2
    thick = crescent.thick_mm * (1 - spread**3) * (1 + 0.1 * texture)
    lateral = plane.x * crescent.side
    if crescent.along_falx:
        return sheet(lateral - 0.5 * thick, 0.5 * np.maximum(thick, 0), BLUR_MM) * (spread < 1) * (plane.z > 34)
    wall = np.minimum(thick, np.maximum(lateral - 2, 0) * 0.6)
    return ramp(wall - shell.cavity) * (spread < 1) * (brain.tent < 3)


def _film_share(film: Film, plane: Plane, brain: Brain, texture: Field) -> Field:
    if not (box := plane.box(film.region)):
        return np.zeros_like(plane.x)
    near = np.zeros_like(plane.x)
    near[box] = np.clip(depth(film.region, plane, box) / 12 + 0.35 * texture[box], 0, 1)
    sulci = sheet(brain.fold, brain.sulcus_mm + film.widen_mm, BLUR_MM)
    rim = ramp(0.8 - brain.surface)
    spaces = np.maximum(np.maximum(sulci, 0.8 * rim), ramp(brain.cisterns + 0.5) * np.clip(0.9 + 0.4 * texture, 0, 1))
    share: Field = np.minimum(1, 1.6 * near) * spaces * (brain.ventricles < 0)
    return share


def _layer_share(layer: Layer, plane: Plane, brain: Brain) -> Field:
    level = np.where(plane.x > 0, np.float32(layer.level_y[0]), np.float32(layer.level_y[1]))
    fill = ramp(plane.y - level) * (plane.z > 8)
    for cast in layer.casts:
        fill = np.maximum(fill, ramp(depth(cast, plane), 3.0))
    share: Field = fill * ramp(brain.ventricles + 1.2)  # blood distends
    return share


def _clot_share(clot: Clot, plane: Plane, brain: Brain, bundles: Field) -> Field:
    """Blood share of the clot; darkens the rim of oedema around it on the way."""
    inside = np.full_like(plane.x, -99)
    for lobe in clot.lobes:
        reach = replace(lobe, radii=point([radius + 14 for radius in lobe.radii]))
        if box := plane.box(reach):
            np.maximum(inside[box], depth(lobe, plane, box), out=inside[box])
    inside += clot.wobble * bundles
    rim = ramp(inside + clot.rim_mm, 4.0) * (brain.hu > 18)
    brain.hu[:] -= 10 * rim
    return ramp(inside, 3.0) * ramp(brain.surface)
