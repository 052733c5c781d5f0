"""Draw what is wrong with a chest: the four appearances of SIIM-FISABIO-RSNA, the findings of each, and the boxes around them.

The classes follow Litmanovich et al. 2020 (J Thorac Imaging 35:354), as the data set names them. Typical: multifocal
bilateral, peripheral opacities, rounded, mid to lower zone. Indeterminate: none of that, but one lung, the middle or
the upper zones alone. Atypical: a lobe, fluid, free air, nodules or cavities. Negative: no opacity. A finding is given
by the cm of water that it adds to a healthy chest.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.anatomy import HILUM_MM, Chest
from fl_rsna.phantom.chest.geometry import Field, Frame, blur, smooth_noise, step_up, stretch
from fl_rsna.phantom.chest.tissue import Tissue, Tree, bronchogram

SIDES = (-1, 1)  # the patient's right, left
SEEN = 0.3  # share of an opacity's densest point from which a reader sees it and draws the box
SEEN_CM = 0.25  # cm of water below which no opacity is visible
SEVERITY_CM = (1.5, 3.2)  # how dense the opacities of patients are at their middle, in cm of water
SMALLEST_BOX_MM = 6.0


class Appearance(IntEnum):
    """The class of a study; values are the place in COVID_CXR.labels."""

    negative = 0
    typical = 1
    indeterminate = 2
    atypical = 3


class Lobe(IntEnum):
    """A lobe that fills with a straight fissure to one side."""

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
    """Fluid over the diaphragm that climbs along the chest wall. It is no opacity of the lung, so it has no box."""

    side: int
    depth_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeAir:
    """Air between a lung and the chest wall: a fine line at the lung's edge and no vessels outside of it. It has no box."""

    side: int
    gap_mm: float


Finding: TypeAlias = Haze | Consolidation | Nodule | Effusion | FreeAir
Findings: TypeAlias = tuple[Finding, ...]


def draw_findings(rng: np.random.Generator, appearance: Appearance) -> Findings:
    """Draw random findings that make up one appearance."""
    match appearance:
        case Appearance.negative:
            return ()
        case Appearance.typical:
            cm = float(rng.uniform(*SEVERITY_CM))
            return _draw_hazes(rng, SIDES, (2, 4), u=(0.5, 0.98), v=(0.42, 0.98), radius_mm=(13, 30), cm=cm)
        case Appearance.indeterminate:
            return _draw_indeterminate(rng)
        case Appearance.atypical:
            return _draw_atypical(rng)


def _draw_indeterminate(rng: np.random.Generator) -> Findings:
    """Draw haze in one lung (half of all patients), in the middle of both, or in the upper zones."""
    place = int(rng.choice(3, p=(0.5, 0.25, 0.25)))
    cm = float(rng.uniform(*SEVERITY_CM))
    match place:
        case 0:
            lung = (int(rng.choice(SIDES)),)
            return _draw_hazes(rng, lung, (2, 4), u=(0.3, 0.95), v=(0.3, 0.92), radius_mm=(22, 42), cm=1.1 * cm)
        case 1:
            return _draw_hazes(
                rng, SIDES, (1, 2), u=(0.2, 0.48), v=(0.4, 0.7), radius_mm=(26, 42), cm=1.1 * cm, soft=0.9
            )
        case _:
            sides = SIDES if rng.random() < 0.5 else (int(rng.choice(SIDES)),)
            return _draw_hazes(rng, sides, (1, 2), u=(0.2, 0.9), v=(0.12, 0.34), radius_mm=(20, 36), cm=cm)


def _draw_atypical(rng: np.random.Generator) -> Findings:
    """Draw a lobe, fluid, free air, a lobe with fluid, or nodules."""
    match int(rng.choice(5, p=(0.42, 0.16, 0.10, 0.14, 0.18))):
        case 0:
            return (_draw_consolidation(rng),)
        case 1:
            return _draw_effusions(rng)
        case 2:
            return (FreeAir(side=int(rng.choice(SIDES)), gap_mm=float(rng.uniform(9, 34))),)
        case 3:
            return (_draw_consolidation(rng), *_draw_effusions(rng))
        case _:
            return _draw_nodules(rng)


def _draw_consolidation(rng: np.random.Generator) -> Consolidation:
    return Consolidation(
        lobe=Lobe(int(rng.integers(len(Lobe)))),
        filled=float(rng.uniform(0.35, 0.8)),
        slant=float(rng.normal(0.05, 0.06)),
        part=float(rng.uniform(0.6, 1)),
        ragged=smooth_noise(rng, 8),
    )


def _draw_effusions(rng: np.random.Generator) -> Findings:
    sides = SIDES if rng.random() < 0.3 else (int(rng.choice(SIDES)),)
    return tuple(Effusion(side=side, depth_mm=float(rng.uniform(26, 90))) for side in sides)


def _draw_nodules(rng: np.random.Generator) -> Findings:
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


def _draw_hazes(
    rng: np.random.Generator,
    sides: tuple[int, ...],
    count: tuple[int, int],
    *,
    u: tuple[float, float],
    v: tuple[float, float],
    radius_mm: tuple[float, float],
    cm: float,
    soft: float = 0.6,
) -> Findings:
    """Draw ground-glass opacities in each lung of `sides`, from count[0] to count[1] of them; `u`, `v` and `radius_mm` are ranges."""
    drawn: list[Haze] = []
    for side in sides:
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            radius, long = rng.uniform(*radius_mm), rng.uniform(1, 1.5)
            haze = Haze(
                side=side,
                u=float(rng.uniform(*u)),
                v=float(rng.uniform(*v)),
                radii_mm=(float(radius), float(radius * long)),
                turn_deg=float(rng.normal(0, 25)),
                cm=float(cm * rng.uniform(0.75, 1.25)),
                soft=float(soft * rng.uniform(0.8, 1.2)),
                ragged=smooth_noise(rng, 8),
            )
            drawn.append(haze)
    return tuple(drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disease:
    """The findings of one film as fields [H, W].

    `water_cm` is added to the healthy chest; `kept` 0..1 is the share of its vessels that remains visible; `opacity` is
    where the lung is opaque; `boxes` enclose it, one for each lung or patch.
    """

    water_cm: Field
    kept: Field
    opacity: NDArray[np.bool_]
    boxes: tuple[Box, ...]


def lay_findings(findings: Findings, chest: Chest, tissue: Tissue, trees: tuple[Tree, Tree], frame: Frame) -> Disease:
    """Lay all findings of one study into a film's healthy chest."""
    water: Field = np.zeros_like(frame.y)
    kept: Field = np.ones_like(frame.y)
    opacity = np.zeros(frame.shape, dtype=np.bool_)
    for finding in findings:
        match finding:
            case Haze():
                added = _lay_haze(finding, chest, tissue, frame)
            case Nodule():
                added = _lay_nodule(finding, chest, tissue, frame)
            case Consolidation():
                added = _lay_consolidation(finding, chest, tissue, trees, frame)
            case Effusion():
                water = np.maximum(water, _lay_effusion(finding, chest, tissue, frame))
                continue
            case FreeAir():
                line, kept = _lay_free_air(finding, chest, tissue, frame)
                water = water + line
                continue
        water = (np.maximum(water, added) + 0.4 * np.minimum(water, added)).astype(np.float32)
        opacity |= added > max(SEEN_CM, SEEN * float(added.max()))
    return Disease(water_cm=water, kept=kept, opacity=opacity, boxes=_find_boxes(opacity, tissue, frame))


def _lay_haze(haze: Haze, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    """Compute the cm of water [H, W] of a ground-glass opacity."""
    x, y = chest.spot(haze.side, haze.u, haze.v)
    cosine, sine = np.float32(np.cos(np.radians(haze.turn_deg))), np.float32(np.sin(np.radians(haze.turn_deg)))
    across, down = frame.x - np.float32(x), frame.y - np.float32(y)
    wide, high = haze.radii_mm
    away = np.hypot(
        (across * cosine + down * sine) / np.float32(wide), (down * cosine - across * sine) / np.float32(high)
    )
    rough = _warp_noise(haze.ragged, frame, x, y, 2.6 * max(wide, high))
    shape = step_up(1 - away + 0.22 * rough, 2 * haze.soft) * (1 + 0.1 * rough)
    return _limit_to_lung(np.clip(shape, 0, 1.6) * np.float32(haze.cm), haze.side, tissue)


def _lay_nodule(nodule: Nodule, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    """Compute the cm of water [H, W] of a nodule or cavity."""
    x, y = chest.spot(nodule.side, nodule.u, nodule.v)
    away = np.hypot(frame.x - np.float32(x), frame.y - np.float32(y))
    away = np.minimum(away / np.float32(nodule.radius_mm), 1)
    ball = np.sqrt(1 - away * away)
    if nodule.cavity:
        inner = np.minimum(away / np.float32(0.68), 1)
        ball = ball - np.float32(0.66) * np.sqrt(1 - inner * inner)
    return _limit_to_lung(blur(ball, 0.5 * frame.scale) * np.float32(0.2 * nodule.radius_mm), nodule.side, tissue)


def _lay_consolidation(
    lobe: Consolidation, chest: Chest, tissue: Tissue, trees: tuple[Tree, Tree], frame: Frame
) -> Field:
    """Compute the cm of water [H, W] of a filled lobe: sharp at its fissure, fading elsewhere, with dark airways in it."""
    side = -1 if lobe.lobe in (Lobe.right_upper, Lobe.right_middle, Lobe.right_lower) else 1
    x, y = frame.x * np.float32(side), frame.y
    hilum, dome = HILUM_MM[int(side > 0)][1], chest.domes_mm[int(side > 0)]
    fissure = hilum + 6 + np.float32(lobe.slant) * (x - 40)
    match lobe.lobe:
        case Lobe.right_upper:
            region = step_up(fissure - y, 3) * step_up(y - np.float32(fissure.mean() - 105 * lobe.part), 50)
        case Lobe.right_middle:
            region = (
                step_up(y - fissure, 3)
                * step_up(np.float32(60 + 50 * lobe.part) - x, 45)
                * step_up(fissure + 85 - y, 40)
            )
        case Lobe.left_upper:
            region = step_up(hilum + 34 - y - 0.5 * (x - 40), 40) * step_up(y - np.float32(hilum - 95 * lobe.part), 50)
        case Lobe.right_lower | Lobe.left_lower:
            top = dome - 30 - 65 * lobe.part - 0.9 * (x - 50)
            region = step_up(y - top, 24)
    grain = _warp_noise(lobe.ragged, frame, side * 70, hilum, 160)
    airways = bronchogram(trees[int(side > 0)], frame)
    filled = np.clip(lobe.filled + 0.08 * grain, 0.1, 0.9) * (1 - 0.4 * airways)
    return _limit_to_lung(region * filled * (tissue.air_cm + np.float32(0.8)), side, tissue)


def _lay_effusion(effusion: Effusion, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    """Compute the cm of water [H, W] of an effusion."""
    index = int(effusion.side > 0)
    wall = np.maximum(
        chest.wall(chest.domes_mm[index] - effusion.depth_mm / 2, effusion.side) - frame.x * effusion.side, 0
    )
    level = chest.angles_mm[index] - effusion.depth_mm * (0.62 + 0.5 * np.exp(-wall / np.float32(22)))
    below = step_up(frame.y - level.astype(np.float32), 14)
    return _limit_to_lung(below * (tissue.air_cm * np.float32(0.92) + 0.6), effusion.side, tissue)


def _lay_free_air(free: FreeAir, chest: Chest, tissue: Tissue, frame: Frame) -> tuple[Field, Field]:
    """Compute the cm of water [H, W] of the lung's edge and the darker rim outside of it, and the share of vessels that remains."""
    index = int(free.side > 0)
    lung = (tissue.lungs[index] > 0.5).astype(np.uint8)
    inwards = cv2.distanceTransform(lung, cv2.DIST_L2, 5) / np.float32(frame.scale)
    height = np.clip(frame.y / np.float32(chest.domes_mm[index]), 0, 1)
    gap = np.float32(free.gap_mm) * (1.15 - height)
    outer = step_up(frame.x * free.side - np.float32(34), 24)  # the lung stays at its root
    depth = inwards + (1 - outer) * 60
    rim = step_up(gap - depth, 1.5) * lung
    line = np.exp(-(((depth - gap) / np.float32(1.1)) ** 2)) * outer * (height < 0.97) * lung
    return cast("Field", 0.75 * line - 0.9 * rim), cast("Field", 1 - rim)


def _limit_to_lung(added: Field, side: int, tissue: Tissue) -> Field:
    """Keep only what fills air of this lung: behind the heart less is visible."""
    room = np.minimum(tissue.air_cm * np.float32(0.3), 1)
    return cast("Field", added * tissue.lungs[int(side > 0)] * room)


def _warp_noise(noise: Field, frame: Frame, x: float, y: float, reach_mm: float) -> Field:
    """Lay noise of two grain sizes around the place (x, y); it stays with that place in every film."""
    side = 64
    grid = stretch(noise, side, side) + np.float32(0.5) * stretch(np.tile(noise, (3, 3)), side, side)
    linear, offset = frame.matrix[:, :2], frame.matrix[:, 2]
    onto = np.column_stack([linear * (2 * reach_mm / (side - 1)), linear @ (x - reach_mm, y - reach_mm) + offset])
    rows, columns = frame.shape
    return cast("Field", cv2.warpAffine(grid, onto, (columns, rows), borderMode=cv2.BORDER_REFLECT_101))


def _find_boxes(opacity: NDArray[np.bool_], tissue: Tissue, frame: Frame) -> tuple[Box, ...]:
    """Find a rectangle around every patch of each lung; patches whose rectangles touch share one."""
    found: list[Box] = []
    for lung in tissue.lungs:
        mask = (opacity & (lung > 0.5)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        least = SMALLEST_BOX_MM * frame.scale
        edges = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist() if min(w, h) >= max(least, 2)]
        found += [Box(x=x, y=y, width=right - x, height=bottom - y) for x, y, right, bottom in _merge_rectangles(edges)]
    return tuple(found)


def _merge_rectangles(edges: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Merge rectangles (left, top, right, bottom) until no two overlap."""
    done: list[tuple[int, int, int, int]] = []
    for a in edges:
        while b := next((b for b in done if a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]), None):
            done.remove(b)
            a = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
        done.append(a)
    return sorted(done)
