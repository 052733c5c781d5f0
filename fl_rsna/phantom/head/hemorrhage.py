"""Draw and paint the five bleeds: where each can lie, how large it is, who has which, how it looks in a slice and what it pushes aside."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.head.brain import BLUR_MM, Brain
from fl_rsna.phantom.head.geometry import Ellipsoid, Field, Plane, Point, blend, depth, point, ramp, sheet
from fl_rsna.phantom.head.skull import INNER_RADII, WIDEST_Z, Shell

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
BLEEDING_SHARE = 0.49  # of all patients
FIRST_SHARES = (0.17, 0.25, 0.15, 0.20, 0.23)  # of the first bleed, in the order of SUBTYPES
SECOND_SHARE = 0.52  # of bleeding patients have a second subtype
SECOND_SHARES = (  # row: first bleed; column: second
    (0.00, 0.25, 0.00, 0.45, 0.30),
    (0.00, 0.00, 0.60, 0.25, 0.15),
    (0.00, 0.55, 0.00, 0.45, 0.00),
    (0.10, 0.25, 0.30, 0.00, 0.35),
    (0.10, 0.25, 0.05, 0.60, 0.00),
)
SEEN_SHARE, SEEN_CONTRAST_HU = 0.4, 9.0  # a mask holds voxels with this much blood and this much contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """An epidural bleed: biconvex under the skull around `center`, `thick_mm` in its middle, out to `reach_mm`."""

    center: Point
    thick_mm: float
    reach_mm: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crescent:
    """A subdural bleed: a rind over one convexity, or along the falx when `along_falx`."""

    side: float
    center: Point
    reach: Point
    thick_mm: float
    along_falx: bool
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A subarachnoid bleed: blood in sulci and cisterns inside `region`."""

    region: Ellipsoid
    widen_mm: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Clot:
    """An intraparenchymal bleed: lobes of blood within a rim of oedema."""

    lobes: tuple[Ellipsoid, ...]
    rim_mm: float
    wobble: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An intraventricular bleed: blood below a fluid level (`level_y`) on each side, and casts that fill a region."""

    level_y: tuple[float, float]  # left, right; large: none
    casts: tuple[Ellipsoid, ...]
    hu: float


Bleed: TypeAlias = Lens | Crescent | Film | Clot | Layer


def subtype(bleed: Bleed) -> int:
    """Return the bleed's index into SUBTYPES."""
    match bleed:
        case Lens():
            return 0
        case Clot():
            return 1
        case Layer():
            return 2
        case Film():
            return 3
        case Crescent():
            return 4


def draw_bleeds(rng: np.random.Generator) -> tuple[Bleed, ...]:
    """Draw one patient's bleeds: none for about half of all patients, else one or two subtypes."""
    if rng.random() > BLEEDING_SHARE:
        return ()
    kinds = [int(rng.choice(5, p=FIRST_SHARES))]
    if rng.random() < SECOND_SHARE:
        kinds.append(int(rng.choice(5, p=SECOND_SHARES[kinds[0]])))
    side = float(rng.choice([-1, 1]))
    return tuple(_draw(rng, kind, side) for kind in sorted(kinds))


def _draw(rng: np.random.Generator, kind: int, side: float) -> Bleed:
    """Draw a bleed of the subtype with the index `kind`."""
    hu = float(rng.uniform(54, 75))
    match kind:
        case 0:
            return _draw_lens(rng, side, hu)
        case 1:
            return _draw_clot(rng, side, hu)
        case 2:
            return _draw_layer(rng, hu)
        case 3:
            return _draw_film(rng, side, hu)
        case _:
            return _draw_crescent(rng, side, hu)


def _draw_lens(rng: np.random.Generator, side: float, hu: float) -> Lens:
    y, z = rng.uniform(-60, 60), rng.uniform(0, 80)
    a, b, c = INNER_RADII
    width = a * float(np.sqrt(max(0.05, 1 - (y / b) ** 2 - ((z - WIDEST_Z) / c) ** 2)))
    reach = float(rng.uniform(24, 42))
    return Lens(
        center=(side * width, float(y), float(z)),
        reach_mm=reach,
        thick_mm=reach * float(rng.uniform(0.32, 0.58)),
        hu=hu,
    )


def _draw_crescent(rng: np.random.Generator, side: float, hu: float) -> Crescent:
    along_falx = bool(rng.random() < 0.15)
    y, z = float(rng.normal(0, 18)), float(rng.normal(48, 14))
    reach = (200.0, float(rng.uniform(44, 78)), float(rng.uniform(28, 48)))
    thick = float(rng.uniform(3.5, 6)) if along_falx else float(4.5 + rng.gamma(2.2, 2.0))
    return Crescent(
        side=side,
        center=(0.0, y + 25 * along_falx, z + 12 * along_falx),
        reach=reach,
        thick_mm=min(thick, 18),
        along_falx=along_falx,
        hu=hu - 3,
    )


def _draw_film(rng: np.random.Generator, side: float, hu: float) -> Film:
    if rng.random() < 0.5:  # aneurysmal: around the basal cisterns
        center, radii = (
            (side * rng.uniform(0, 16), rng.uniform(-14, 8), rng.uniform(4, 16)),
            rng.uniform([42, 36, 26], [64, 54, 40]),
        )
    else:  # traumatic: over a convexity
        center = (side * rng.uniform(34, 55), rng.uniform(-50, 55), rng.uniform(25, 85))
        radii = rng.uniform([28, 28, 24], [46, 48, 40])
    region = Ellipsoid(center=point(center), radii=point(radii))
    return Film(region=region, widen_mm=float(rng.uniform(1.1, 1.9)), hu=hu + 4)


def _draw_clot(rng: np.random.Generator, side: float, hu: float) -> Clot:
    place = rng.random()
    if place < 0.4:  # deep
        center = np.array([side * rng.uniform(12, 28), rng.uniform(-12, 18), rng.uniform(24, 44)])
    elif place < 0.86:  # lobar
        angle, z = rng.uniform(-0.42 * np.pi, 0.46 * np.pi), rng.uniform(8, 84)
        ring = np.sqrt(max(0.1, 1 - ((z - WIDEST_Z) / 73) ** 2))
        center = np.array([side * 44 * np.cos(angle) * ring + side * 6, 58 * np.sin(angle) * ring, z])
    else:  # hindbrain
        center = np.array([side * rng.uniform(0, 28), rng.uniform(24, 56), rng.uniform(-30, 0)])
    radius = float(np.clip(rng.lognormal(2.65, 0.38), 5.5, 30)) * (1.0 if place < 0.86 else 0.75)
    lobes = [Ellipsoid(center=point(center), radii=point(radius * rng.uniform(0.75, 1.25, 3)))]
    for _ in range(int(rng.integers(0, 4))):
        moved = center + rng.normal(0, 0.55 * radius, 3)
        lobes.append(Ellipsoid(center=point(moved), radii=point(radius * rng.uniform(0.4, 0.8, 3))))
    return Clot(lobes=tuple(lobes), rim_mm=float(rng.uniform(2, 10)), wobble=0.14 * radius, hu=hu)


def _draw_layer(rng: np.random.Generator, hu: float) -> Layer:
    style = rng.random()
    one, other = float(rng.uniform(24, 54)), float(rng.uniform(28, 80))
    levels = (one, other) if rng.random() < 0.5 else (other, one)
    casts: list[Ellipsoid] = []
    if style < 0.7:
        side = float(rng.choice([-1, 1]))
        center = (side * 10.0, float(rng.uniform(-35, 10)), float(rng.uniform(40, 50)))
        casts.append(Ellipsoid(center=center, radii=(14.0, float(rng.uniform(18, 48)), float(rng.uniform(14, 24)))))
    if rng.random() < 0.45:
        casts.append(Ellipsoid(center=(0.0, 16.0, 5.0), radii=(8.0, 26.0, 38.0)))  # third and fourth ventricle
    return Layer(level_y=(99.0, 99.0) if 0.5 < style < 0.7 else levels, casts=tuple(casts), hu=hu)


def displace_plane(plane: Plane, bleeds: tuple[Bleed, ...]) -> Plane:
    """Displace the plane as the bleeds displace the brain: away from lenses, crescents and clots."""
    for bleed in bleeds:
        match bleed:
            case Lens(center=center, thick_mm=thick):
                plane = _push_tissue(plane, center, 0.75 * thick, 40.0)
            case Crescent(along_falx=False, side=side, center=(_, y, z), thick_mm=thick):
                plane = _push_tissue(plane, (side * 62.0, y, z), 0.75 * thick, 44.0)
            case Clot(lobes=lobes):
                x, y, z = lobes[0].center
                plane = _push_tissue(plane, (1.4 * x, y, z), 0.25 * lobes[0].radii[0], 34.0)
            case _:
                pass
    return plane


def _push_tissue(plane: Plane, center: Point, push_mm: float, width_mm: float) -> Plane:
    """Move the tissue near `center` by up to `push_mm` across the midline."""
    near = (plane.x - center[0]) ** 2 + (plane.y - center[1]) ** 2 + (plane.z - center[2]) ** 2
    shift = np.exp(near * np.float32(-0.5 / width_mm**2)) * np.float32(push_mm * np.sign(center[0]))
    return replace(plane, x=plane.x + shift)


def paint_bleeds(
    brain: Brain, plane: Plane, shell: Shell, bleeds: tuple[Bleed, ...], texture: Field, bundles: Field
) -> NDArray[np.bool_]:
    """Paint the bleeds into `brain.hu`; return where each subtype is visible, bool [5, h, w].

    `texture` and the coarser `bundles` [h, w] roughen their edges.
    """
    seen = np.zeros((len(SUBTYPES), *plane.x.shape), dtype=np.bool_)
    for bleed in bleeds:
        before = brain.hu.copy()
        match bleed:
            case Lens():
                share = _compute_lens_share(bleed, plane, shell)
            case Crescent():
                share = _compute_crescent_share(bleed, plane, shell, brain, texture)
            case Film():
                share = _compute_film_share(bleed, plane, brain, texture)
            case Layer():
                share = _compute_layer_share(bleed, plane, brain)
            case Clot():
                share = _compute_clot_share(bleed, plane, brain, bundles)
        share = share * ramp(shell.cavity)
        blend(brain.hu, bleed.hu + 3 * texture, share)
        seen[subtype(bleed)] |= (share > SEEN_SHARE) & (brain.hu - before > SEEN_CONTRAST_HU) & (shell.cavity > 0)
    return seen


def _compute_lens_share(lens: Lens, plane: Plane, shell: Shell) -> Field:
    """Compute the share of blood 0..1 of an epidural bleed."""
    away = (plane.x - lens.center[0]) ** 2 + (plane.y - lens.center[1]) ** 2 + (plane.z - lens.center[2]) ** 2
    lateral = np.maximum(away - shell.cavity**2, 0) / lens.reach_mm**2
    share: Field = ramp(lens.thick_mm * (1 - lateral) - shell.cavity) * (lateral < 1)
    return share


def _compute_crescent_share(crescent: Crescent, plane: Plane, shell: Shell, brain: Brain, texture: Field) -> Field:
    """Compute the share of blood 0..1 of a subdural bleed."""
    (_, y, z), (_, ry, rz) = crescent.center, crescent.reach
    spread = ((plane.y - y) / ry) ** 2 + ((plane.z - z) / rz) ** 2
    thick = crescent.thick_mm * (1 - spread**3) * (1 + 0.1 * texture)
    lateral = plane.x * crescent.side
    if crescent.along_falx:
        return sheet(lateral - 0.5 * thick, 0.5 * np.maximum(thick, 0), BLUR_MM) * (spread < 1) * (plane.z > 34)
    wall = np.minimum(thick, np.maximum(lateral - 2, 0) * 0.6)
    return ramp(wall - shell.cavity) * (spread < 1) * (brain.tent < 3)


def _compute_film_share(film: Film, plane: Plane, brain: Brain, texture: Field) -> Field:
    """Compute the share of blood 0..1 of a subarachnoid bleed."""
    if not (box := plane.box(film.region)):
        return np.zeros_like(plane.x)
    near = np.zeros_like(plane.x)
    near[box] = np.clip(depth(film.region, plane, box) / 12 + 0.35 * texture[box], 0, 1)
    sulci = sheet(brain.fold, brain.sulcus_mm + film.widen_mm, BLUR_MM)
    rim = ramp(0.8 - brain.surface)
    spaces = np.maximum(np.maximum(sulci, 0.8 * rim), ramp(brain.cisterns + 0.5) * np.clip(0.9 + 0.4 * texture, 0, 1))
    share: Field = np.minimum(1, 1.6 * near) * spaces * (brain.ventricles < 0)
    return share


def _compute_layer_share(layer: Layer, plane: Plane, brain: Brain) -> Field:
    """Compute the share of blood 0..1 of an intraventricular bleed."""
    level = np.where(plane.x > 0, np.float32(layer.level_y[0]), np.float32(layer.level_y[1]))
    fill = ramp(plane.y - level) * (plane.z > 8)
    for cast in layer.casts:
        fill = np.maximum(fill, ramp(depth(cast, plane), 3.0))
    share: Field = fill * ramp(brain.ventricles + 1.2)  # blood widens the ventricles
    return share


def _compute_clot_share(clot: Clot, plane: Plane, brain: Brain, bundles: Field) -> Field:
    """Compute the share of blood 0..1 of an intraparenchymal bleed, and darken the rim of oedema around it in `brain.hu`."""
    inside = np.full_like(plane.x, -99)
    for lobe in clot.lobes:
        reach = replace(lobe, radii=point([radius + 14 for radius in lobe.radii]))
        if box := plane.box(reach):
            np.maximum(inside[box], depth(lobe, plane, box), out=inside[box])
    inside += clot.wobble * bundles
    rim = ramp(inside + clot.rim_mm, 4.0) * (brain.hu > 18)
    brain.hu[:] -= 10 * rim
    return ramp(inside, 3.0) * ramp(brain.surface)
