"""Findings laid over a healthy chest: what they add to the beam's way, and the boxes around them."""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_chest_opacities import Consolidation, Effusion, Findings, FreeAir, Haze, Lobe, Nodule
from fl_rsna.imaging.phantom_chest_outlines import HILUM_MM, Chest
from fl_rsna.imaging.phantom_chest_shapes import Field, Frame, blur, step_up, stretch
from fl_rsna.imaging.phantom_chest_tissue import Tissue
from fl_rsna.imaging.phantom_chest_vessels import Tree, bronchogram

SEEN = 0.3  # of an opacity's densest point: what a reader draws the box around
SEEN_CM = 0.25
SMALLEST_BOX_MM = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disease:
    """`water_cm` [H, W] comes on top of the healthy chest, `kept` [H, W] 0..1 is what is left of its vessels.

    `opacity` [H, W] is where the lung is opaque; `boxes` enclose it, one for each lung or patch.
    """

    water_cm: Field
    kept: Field
    opacity: NDArray[np.bool_]
    boxes: tuple[Box, ...]


def lay_findings(findings: Findings, chest: Chest, tissue: Tissue, trees: tuple[Tree, Tree], frame: Frame) -> Disease:
    """All findings of one study as this film shows them."""
    water: Field = np.zeros_like(frame.y)
    kept: Field = np.ones_like(frame.y)
    opacity = np.zeros(frame.shape, dtype=np.bool_)
    for finding in findings:
        match finding:
            case Haze():
                added = _haze(finding, chest, tissue, frame)
            case Nodule():
                added = _nodule(finding, chest, tissue, frame)
            case Consolidation():
                added = _consolidation(finding, chest, tissue, trees, frame)
            case Effusion():
                water = np.maximum(water, _effusion(finding, chest, tissue, frame))
                continue
            case FreeAir():
                line, kept = _free_air(finding, chest, tissue, frame)
                water = water + line
                continue
        water = (np.maximum(water, added) + 0.4 * np.minimum(water, added)).astype(np.float32)
        opacity |= _seen(added)
    return Disease(water_cm=water, kept=kept, opacity=opacity, boxes=_boxes(opacity, tissue, frame))


def _seen(added: Field) -> NDArray[np.bool_]:
    return added > max(SEEN_CM, SEEN * float(added.max()))


def _haze(haze: Haze, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    x, y = chest.spot(haze.side, haze.u, haze.v)
    across, down = _local(frame, x, y, haze.turn_deg)
    wide, high = haze.radii_mm
    away = np.hypot(across / np.float32(wide), down / np.float32(high))
    rough = _ragged(haze.ragged, frame, x, y, 2.6 * max(wide, high))
    shape = step_up(1 - away + 0.22 * rough, 2 * haze.soft) * (1 + 0.1 * rough)
    return _in_lung(np.clip(shape, 0, 1.6) * np.float32(haze.cm), haze.side, tissue)


def _nodule(nodule: Nodule, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    x, y = chest.spot(nodule.side, nodule.u, nodule.v)
    across, down = _local(frame, x, y, 0.0)
    away = np.minimum(np.hypot(across, down) / np.float32(nodule.radius_mm), 1)
    ball = np.sqrt(1 - away * away)
    if nodule.cavity:
        inner = np.minimum(away / np.float32(0.68), 1)
        ball = ball - np.float32(0.66) * np.sqrt(1 - inner * inner)
    return _in_lung(blur(ball, 0.5 * frame.scale) * np.float32(0.2 * nodule.radius_mm), nodule.side, tissue)


def _consolidation(lobe: Consolidation, chest: Chest, tissue: Tissue, trees: tuple[Tree, Tree], frame: Frame) -> Field:
    """Filled air of a lobe: sharp at its fissure, fading elsewhere, with dark airways in it."""
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
    grain = _ragged(lobe.ragged, frame, side * 70, hilum, 160)
    airways = bronchogram(trees[int(side > 0)], frame)
    filled = np.clip(lobe.filled + 0.08 * grain, 0.1, 0.9) * (1 - 0.4 * airways)
    return _in_lung(region * filled * (tissue.air_cm + np.float32(0.8)), side, tissue)


def _effusion(effusion: Effusion, chest: Chest, tissue: Tissue, frame: Frame) -> Field:
    index = int(effusion.side > 0)
    wall = np.maximum(
        chest.wall(chest.domes_mm[index] - effusion.depth_mm / 2, effusion.side) - frame.x * effusion.side, 0
    )
    level = chest.angles_mm[index] - effusion.depth_mm * (0.62 + 0.5 * np.exp(-wall / np.float32(22)))
    below = step_up(frame.y - level.astype(np.float32), 14)
    return _in_lung(below * (tissue.air_cm * np.float32(0.92) + 0.6), effusion.side, tissue)


def _free_air(free: FreeAir, chest: Chest, tissue: Tissue, frame: Frame) -> tuple[Field, Field]:
    """The line of the lung's skin and the darker rim outside of it; and what is left of the vessels."""
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


def _in_lung(added: Field, side: int, tissue: Tissue) -> Field:
    """Only what fills air of this lung counts: behind the heart less is seen."""
    room = np.minimum(tissue.air_cm * np.float32(0.3), 1)
    return cast("Field", added * tissue.lungs[int(side > 0)] * room)


def _local(frame: Frame, x: float, y: float, turn_deg: float) -> tuple[Field, Field]:
    """Pixels in mm from (x, y) along axes turned by `turn_deg`."""
    cosine, sine = np.float32(np.cos(np.radians(turn_deg))), np.float32(np.sin(np.radians(turn_deg)))
    across, down = frame.x - np.float32(x), frame.y - np.float32(y)
    return across * cosine + down * sine, down * cosine - across * sine


def _ragged(noise: Field, frame: Frame, x: float, y: float, reach_mm: float) -> Field:
    """Noise of two grains that stays with the place (x, y) in whatever film it is seen."""
    side = 64
    grid = stretch(noise, side, side) + np.float32(0.5) * stretch(np.tile(noise, (3, 3)), side, side)
    linear, offset = frame.matrix[:, :2], frame.matrix[:, 2]
    onto = np.column_stack([linear * (2 * reach_mm / (side - 1)), linear @ (x - reach_mm, y - reach_mm) + offset])
    rows, columns = frame.shape
    return cast("Field", cv2.warpAffine(grid, onto, (columns, rows), borderMode=cv2.BORDER_REFLECT_101))


def _boxes(opacity: NDArray[np.bool_], tissue: Tissue, frame: Frame) -> tuple[Box, ...]:
    """A rectangle around every patch of each lung; patches whose rectangles touch share one."""
    found: list[Box] = []
    for lung in tissue.lungs:
        mask = (opacity & (lung > 0.5)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        least = SMALLEST_BOX_MM * frame.scale
        edges = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist() if min(w, h) >= max(least, 2)]
        found += [Box(x=x, y=y, width=right - x, height=bottom - y) for x, y, right, bottom in _joined(edges)]
    return tuple(found)


def _joined(edges: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Rectangles (left, top, right, bottom) of which no two overlap: those that do become one."""
    done: list[tuple[int, int, int, int]] = []
    for box in edges:
        while hit := next((other for other in done if _overlap(box, other)), None):
            done.remove(hit)
            box = min(box[0], hit[0]), min(box[1], hit[1]), max(box[2], hit[2]), max(box[3], hit[3])
        done.append(box)
    return sorted(done)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
