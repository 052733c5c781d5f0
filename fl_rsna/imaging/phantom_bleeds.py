"""The five bleeds: where they can lie, how large they are, and who has which."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fl_rsna.imaging.phantom_geometry import Ellipsoid, Point, point
from fl_rsna.imaging.phantom_skull import INNER_RADII, WIDEST_Z

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """Epidural: biconvex under the skull around `center`, `thick_mm` in its middle, out to `reach_mm`."""

    center: Point
    thick_mm: float
    reach_mm: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crescent:
    """Subdural: a rind over one convexity, or along the falx when `along_falx`."""

    side: float
    center: Point
    reach: Point
    thick_mm: float
    along_falx: bool
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Subarachnoid: blood in sulci and cisterns inside `region`."""

    region: Ellipsoid
    widen_mm: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Clot:
    """Intraparenchymal: lobes of blood within a rim of oedema."""

    lobes: tuple[Ellipsoid, ...]
    rim_mm: float
    wobble: float
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Intraventricular: blood below a fluid level (`level_y`) on each side, and casts that fill a region."""

    level_y: tuple[float, float]  # left, right; large: none
    casts: tuple[Ellipsoid, ...]
    hu: float


Bleed: TypeAlias = Lens | Crescent | Film | Clot | Layer


def subtype(bleed: Bleed) -> int:
    """Index into SUBTYPES."""
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
    """No bleed for about half of all patients, else one or two subtypes."""
    if rng.random() > BLEEDING_SHARE:
        return ()
    kinds = [int(rng.choice(5, p=FIRST_SHARES))]
    if rng.random() < SECOND_SHARE:
        kinds.append(int(rng.choice(5, p=SECOND_SHARES[kinds[0]])))
    side = float(rng.choice([-1, 1]))
    return tuple(_draw(rng, kind, side) for kind in sorted(kinds))


def _draw(rng: np.random.Generator, kind: int, side: float) -> Bleed:
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
