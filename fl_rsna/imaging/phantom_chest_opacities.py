"""What is wrong with a chest: the four appearances of SIIM-FISABIO-RSNA and the findings each is made of.

Litmanovich et al. 2020 (J Thorac Imaging 35:354), as the data set's classes name them. Typical: multifocal bilateral,
peripheral opacities, rounded, mid to lower zone. Indeterminate: none of that, but one lung, the middle or the upper zones
alone. Atypical: a lobe, fluid, free air, nodules or cavities. Negative: no opacity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np

from fl_rsna.imaging.phantom_chest_shapes import Field, smooth_noise

SIDES = (-1, 1)  # the patient's right, left


class Appearance(IntEnum):
    """The class of a study; values are the place in COVID_CXR.labels."""

    negative = 0
    typical = 1
    indeterminate = 2
    atypical = 3


class Lobe(IntEnum):
    """Lobes that fill with a straight fissure to one side."""

    right_upper = 0
    right_middle = 1
    right_lower = 2
    left_upper = 3
    left_lower = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Haze:
    """A ground-glass opacity around the place (u, v) of one lung; `cm` of water where it is densest."""

    side: int
    u: float
    v: float
    radii_mm: tuple[float, float]
    turn_deg: float
    cm: float
    soft: float  # 0.3 a clear edge, 1 none
    ragged: Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidation:
    """A lobe whose air spaces are filled, up to a sharp fissure; `filled` is the share of its air."""

    lobe: Lobe
    filled: float
    slant: float
    part: float
    ragged: Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodule:
    """A round, sharp opacity; a cavity has air inside a wall."""

    side: int
    u: float
    v: float
    radius_mm: float
    cavity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Effusion:
    """Fluid over the diaphragm that climbs along the chest wall; no opacity of the lung, so it has no box."""

    side: int
    depth_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeAir:
    """A lung that has left the chest wall: a fine line, nothing outside of it; it has no box either."""

    side: int
    gap_mm: float


Finding: TypeAlias = Haze | Consolidation | Nodule | Effusion | FreeAir
Findings: TypeAlias = tuple[Finding, ...]


def draw_findings(rng: np.random.Generator, appearance: Appearance) -> Findings:
    """Random findings that make up one appearance."""
    match appearance:
        case Appearance.negative:
            return ()
        case Appearance.typical:
            return _typical(rng)
        case Appearance.indeterminate:
            return _pick(rng, ((0.5, _one_lung), (0.25, _central), (0.25, _upper)))(rng)
        case Appearance.atypical:
            return _pick(
                rng, ((0.42, _lobar), (0.16, _effusion), (0.10, _free_air), (0.14, _lobar_effusion), (0.18, _nodules))
            )(rng)


def _pick(
    rng: np.random.Generator, kinds: tuple[tuple[float, Callable[[np.random.Generator], Findings]], ...]
) -> Callable[[np.random.Generator], Findings]:
    return kinds[int(rng.choice(len(kinds), p=[chance for chance, _ in kinds]))][1]


def _severity(rng: np.random.Generator) -> float:
    """How dense a patient's opacities are, in cm of water at their middle."""
    return float(rng.uniform(1.5, 3.2))


def _typical(rng: np.random.Generator) -> Findings:
    cm = _severity(rng)
    return tuple(
        _haze(rng, side, u=(0.5, 0.98), v=(0.42, 0.98), radius_mm=(13, 30), cm=cm)
        for side in SIDES
        for _ in range(int(rng.integers(2, 5)))
    )


def _one_lung(rng: np.random.Generator) -> Findings:
    cm, side = _severity(rng), int(rng.choice(SIDES))
    return tuple(
        _haze(rng, side, u=(0.3, 0.95), v=(0.3, 0.92), radius_mm=(22, 42), cm=1.1 * cm)
        for _ in range(int(rng.integers(2, 5)))
    )


def _central(rng: np.random.Generator) -> Findings:
    cm = 1.1 * _severity(rng)
    return tuple(
        _haze(rng, side, u=(0.2, 0.48), v=(0.4, 0.7), radius_mm=(26, 42), cm=cm, soft=0.9)
        for side in SIDES
        for _ in range(int(rng.integers(1, 3)))
    )


def _upper(rng: np.random.Generator) -> Findings:
    cm = _severity(rng)
    sides = SIDES if rng.random() < 0.5 else (int(rng.choice(SIDES)),)
    return tuple(
        _haze(rng, side, u=(0.2, 0.9), v=(0.12, 0.34), radius_mm=(20, 36), cm=cm)
        for side in sides
        for _ in range(int(rng.integers(1, 3)))
    )


def _lobar(rng: np.random.Generator) -> Findings:
    return (
        Consolidation(
            lobe=Lobe(int(rng.integers(len(Lobe)))),
            filled=float(rng.uniform(0.35, 0.8)),
            slant=float(rng.normal(0.05, 0.06)),
            part=float(rng.uniform(0.6, 1)),
            ragged=smooth_noise(rng, 8),
        ),
    )


def _effusion(rng: np.random.Generator) -> Findings:
    sides = SIDES if rng.random() < 0.3 else (int(rng.choice(SIDES)),)
    return tuple(Effusion(side=side, depth_mm=float(rng.uniform(26, 90))) for side in sides)


def _lobar_effusion(rng: np.random.Generator) -> Findings:
    return _lobar(rng) + _effusion(rng)


def _free_air(rng: np.random.Generator) -> Findings:
    return (FreeAir(side=int(rng.choice(SIDES)), gap_mm=float(rng.uniform(9, 34))),)


def _nodules(rng: np.random.Generator) -> Findings:
    count, cavity = int(rng.integers(2, 7)), bool(rng.random() < 0.5)
    return tuple(
        Nodule(
            side=int(rng.choice(SIDES)),
            u=float(rng.uniform(0.1, 0.9)),
            v=float(rng.uniform(0.15, 0.9)),
            radius_mm=float(rng.uniform(7, 14) + (6 if cavity and number == 0 else 0)),
            cavity=cavity and number < 2,
        )
        for number in range(count)
    )


def _haze(
    rng: np.random.Generator,
    side: int,
    *,
    u: tuple[float, float],
    v: tuple[float, float],
    radius_mm: tuple[float, float],
    cm: float,
    soft: float = 0.6,
) -> Haze:
    radius, long = rng.uniform(*radius_mm), rng.uniform(1, 1.5)
    return Haze(
        side=side,
        u=float(rng.uniform(*u)),
        v=float(rng.uniform(*v)),
        radii_mm=(float(radius), float(radius * long)),
        turn_deg=float(rng.normal(0, 25)),
        cm=float(cm * rng.uniform(0.75, 1.25)),
        soft=float(soft * rng.uniform(0.8, 1.2)),
        ragged=smooth_noise(rng, 8),
    )
