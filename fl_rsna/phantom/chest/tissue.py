"""Compute what the beam meets in a healthy chest, in cm of water [H, W]: body, air, heart, diaphragm, breasts, bones, vessels and airways.

Bones are ribs, clavicles, shoulder blades and spine. Vessels and airways are trees that leave the hila and thin
outwards.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.anatomy import CARINA_MM, HILUM_MM, Chest, Scar, Thorax, View
from fl_rsna.phantom.chest.geometry import (
    Field,
    Frame,
    Mask,
    Points,
    blur,
    bulge,
    fill,
    move_points,
    oval,
    share,
    smooth_line,
    smooth_noise,
    step_up,
    stretch,
    stroke,
)

RIBS = 11
_START_MM = np.array([10, 24, 43, 64, 86, 108, 131, 154, 178, 202, 226]) - 14.0  # where each rib leaves the spine
_DEPTH_MM = np.array([26, 42, 56, 67, 76, 82, 86, 88, 86, 80, 70])  # half of the chest at each rib from back to front
_REACH_DEG = np.array([118, 126, 132, 136, 138, 138, 136, 130, 122, 112, 100])  # angle at which cartilage begins
FULL_CM = 2.0  # of water where a layer is 255
_MAIN_DEG = np.array([-78, -62, -44, -24, -4, 16, 34, 50, 64, 76])  # below the horizontal, from tip to base
_MAIN_MM = np.array([66, 74, 84, 88, 92, 98, 104, 112, 112, 104])
_MAIN_WIDE_MM = np.array([3.0, 3.4, 3.6, 3.2, 3.4, 4.2, 5.0, 5.6, 5.8, 4.8])
HEART_FILLS = 0.88  # share of the air that the middle of the heart replaces


def bone_shadow(chest: Chest, frame: Frame) -> Field:
    """Draw all bones of one film in cm of water [H, W]."""
    back, front = (np.zeros(frame.shape, dtype=np.uint8) for _ in range(2))
    for side in (-1, 1):
        for number in range(RIBS):
            line, turn = _shape_rib(chest, number, side)
            behind = turn <= np.pi / 2
            wide = 9.5 + 0.35 * min(number, 6)
            _draw_tube(back, frame, line[behind], wide, 0.62)
            if number < 10:
                before, broad = line[~behind], wide + 1.5  # its front broadens, and fades where cartilage begins
                cut = max(2, len(before) * 2 // 3)
                stroke(front, frame, [before[cut - 1 :]], broad + 1, 80)
                stroke(front, frame, [before[cut - 1 : -1]], broad, 130)
                _draw_tube(front, frame, before[:cut], broad, 0.62)
    cage = share(back) + np.float32(0.8) * share(front)
    cage *= 0.25 + 0.75 * step_up(np.abs(frame.x) - np.float32(30), 36)  # ribs are thin where they meet the spine
    bones = blur(cage, 0.8 * frame.scale) * np.float32(1.15) + _draw_girdle(chest, frame)
    return bones * np.float32(chest.thorax.bone)


def spine_shadow(chest: Chest, frame: Frame) -> Field:
    """Draw vertebral bodies, their arches and spines in cm of water [H, W]; they are faint behind the heart."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    bend = chest.thorax.spine_bend_mm
    first, last = float(frame.y.min()) - 12, float(frame.y.max()) + 12
    for y in np.arange(-230.0, 470.0, 24.5):
        if not first < y < last:
            continue
        x, waist = bend * np.sin(y / 75), 15.5 + 0.012 * y
        body = np.array(
            [(-waist - 1.5, -9), (waist + 1.5, -9), (waist, 0), (waist + 1.5, 9), (-waist - 1.5, 9), (-waist, 0)]
        )
        np.maximum(layer, fill(frame, move_points(body, x, y)) // 3 * 2, out=layer)
        stroke(layer, frame, [oval(x + across, y - 3, 3, 4.2) for across in (-11, 11)], 1.6, 235)
        plates = np.array([[(x - waist, y + end), (x + waist, y + end)] for end in (-9, 9)])
        stroke(layer, frame, plates, 1.8, 230)
        stroke(layer, frame, [np.array([(x, y + 2), (x, y + 13)])], 4.5, 220)
    return blur(share(layer), 1.6 * frame.scale) * np.float32(1.0 * chest.thorax.bone)


def _shape_rib(chest: Chest, number: int, side: int) -> tuple[Points, np.ndarray]:
    """Shape a rib as half an ellipse around the chest that falls to the front; return its line [26, 2] and the angle along it."""
    turn = np.linspace(0.03, np.radians(_REACH_DEG[number]), 26)
    depth, slope = _DEPTH_MM[number], chest.thorax.rib_slope
    lift = 0.35 * chest.pose.breath_mm * (1 - number / 14)
    start = _START_MM[number] * chest.angles_mm[0] / 262 + (10 if chest.thorax.barrel > 0.5 else 0) * number / 14
    y = start + slope * depth * (1 - np.cos(turn)) * (1 - lift / 260) - 6 * np.sin(2 * turn)
    wall = chest.wall(float(start + slope * depth), side) + 2.5
    bend = chest.thorax.spine_bend_mm * np.sin(start / 75)
    x = side * (5 + (wall - 5) * np.sin(turn) ** 0.92) + bend * np.cos(turn).clip(0)
    return np.stack([x, y], axis=1), turn


def _draw_tube(layer: Mask, frame: Frame, line: Points, width_mm: float, core: float) -> None:
    """Draw a bone whose rim is denser than its marrow."""
    stroke(layer, frame, [line], width_mm, 255)
    stroke(layer, frame, [line], width_mm - 2.6, 255 * core)


def _draw_girdle(chest: Chest, frame: Frame) -> Field:
    """Draw clavicles, shoulder blades and the heads of the arms in cm of water [H, W]."""
    ap = chest.pose.view is View.ap
    collar, blade = (np.zeros(frame.shape, dtype=np.uint8) for _ in range(2))
    up, out = (16.0 if ap else 0.0), 30.0 * chest.pose.arms
    twist = 1.3 * chest.pose.twist_mm
    for side in (-1, 1):
        clavicle = smooth_line(
            [(14, 46 - 0.6 * up), (30, 38 - 0.8 * up), (58, 22 - up), (90, 8 - up), (122, 1 - up), (158, -8 - up)]
        )
        _draw_tube(collar, frame, move_points(clavicle * (side, 1), twist, 0), 11.0, 0.66)
        edge = smooth_line([(112, 2), (116, 40), (126, 90), (136, 122), (146, 112), (156, 70), (170, 22)])
        shifted = move_points(edge, out, 0) * (side, 1)
        np.maximum(blade, fill(frame, shifted) // 4, out=blade)
        stroke(blade, frame, [shifted[-24:]], 6.0, 200)
        stroke(blade, frame, [shifted[:22]], 2.0, 130)
        ridge = move_points(smooth_line([(118, 8), (146, -8), (176, -20)]), out, 0)
        stroke(blade, frame, [ridge * (side, 1)], 8.0, 150)
        np.maximum(blade, fill(frame, oval(side * (190 + 0.4 * out), 8, 23, 24)) // 2, out=blade)
    return blur(share(collar), 0.8 * frame.scale) * np.float32(1.9) + blur(
        share(blade), 1.2 * frame.scale
    ) * np.float32(2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The vessels of one lung, generation by generation: `lines` [n, P, 2] in mm and `wide_mm` [n] at their roots."""

    lines: tuple[NDArray[np.float64], ...]
    wide_mm: tuple[NDArray[np.float64], ...]


def draw_tree(rng: np.random.Generator, side: int) -> Tree:
    """Draw the branches of one lung: 10 main ones and two generations of twigs."""
    root = np.array(HILUM_MM[int(side > 0)])
    angle = np.radians(_MAIN_DEG + rng.normal(0, 5, 10))
    start = root + np.stack([side * 4 * np.ones(10), np.linspace(-12, 24, 10)], axis=1)
    lines, wide = [_grow(rng, start, angle, _MAIN_MM, side, 12)], [_MAIN_WIDE_MM * rng.lognormal(0, 0.12, 10)]
    for places, length, thinner in ((np.array([2, 4, 6, 8, 10]), 38.0, 0.5), (np.array([2, 4, 6]), 22.0, 0.62)):
        parents = lines[-1]
        count = len(parents) * len(places)
        ahead = parents[:, places] - parents[:, places - 1]
        along = np.arctan2(ahead[..., 1], side * ahead[..., 0]).ravel()
        turn = np.tile(np.where(np.arange(len(places)) % 2, 1, -1), len(parents)) * rng.uniform(0.45, 0.95, count)
        sizes = np.full(count, length) * rng.uniform(0.6, 1.25, count)
        lines.append(_grow(rng, parents[:, places].reshape(-1, 2), along + turn, sizes, side, 8))
        taper = 1 - 0.55 * places / parents.shape[1]
        wide.append((wide[-1][:, None] * taper * thinner).ravel())
    return Tree(lines=tuple(lines), wide_mm=tuple(wide))


def vessel_shadow(trees: tuple[Tree, Tree], thorax: Thorax, frame: Frame) -> Field:
    """Draw the vessels of both lungs in cm of water [H, W]."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for tree in trees:
        for lines, wide in zip(reversed(tree.lines), reversed(tree.wide_mm), strict=True):
            _draw_generation(layer, frame, lines, wide * thorax.vessels)
    return blur(share(layer), 0.7 * frame.scale) * np.float32(FULL_CM)


def hilum_shadow(thorax: Thorax, frame: Frame) -> Field:
    """Draw the great branches at the hila in cm of water [H, W]."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for side, (x, y) in zip((-1, 1), HILUM_MM, strict=True):
        lower = smooth_line(
            [(x - side * 4, y - 10), (x + side * 2, y), (x + side * 9, y + 20), (x + side * 14, y + 44)]
        )
        upper = smooth_line([(x - side * 1, y - 6), (x + side * 5, y - 16), (x + side * 10, y - 34)])
        for line, wide in ((lower, 15.0), (upper, 9.0)):
            cut = len(line) // 3
            thirds = line[: cut + 1], line[cut : 2 * cut + 1], line[2 * cut :]
            for part, (piece, thin) in enumerate(zip(thirds, (1.0, 0.8, 0.55), strict=True)):
                stroke(layer, frame, [piece], wide * thin * min(1.2, thorax.vessels), 230 - 50 * part)
    return blur(share(layer), 2.4 * frame.scale) * np.float32(3.2)


def airway_shadow(frame: Frame, bend_mm: float) -> Field:
    """Draw the share 0..1 [H, W] of the trachea and the main bronchi, which let the beam through."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    x, y = CARINA_MM
    trachea = smooth_line([(0, -120), (0, -40), (-1 + bend_mm, 20), (-3 + bend_mm, 66), (x - 3, y)])
    right = smooth_line([(x - 3, y - 2), (-16, y + 14), (-34, y + 30), (-44, y + 54)])
    left = smooth_line([(x - 3, y - 2), (20, y + 14), (44, y + 24), (60, y + 40)])
    stroke(layer, frame, [trachea], 15.0, 255)
    for branch in (right, left):
        stroke(layer, frame, [branch[:10]], 11.0, 170)
        stroke(layer, frame, [branch[9:]], 6.5, 90)
    return blur(share(layer), 1.4 * frame.scale)


def bronchogram(tree: Tree, frame: Frame) -> Field:
    """Draw the share 0..1 [H, W] of the airways that stay dark where a lung's air spaces are filled."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    stroke(layer, frame, tree.lines[0][:, :5], 3.0, 200)
    stroke(layer, frame, tree.lines[0][:, 4:9], 1.8, 150)
    stroke(layer, frame, tree.lines[1][::2, :5], 1.2, 130)
    return blur(share(layer), 0.7 * frame.scale)


def _grow(
    rng: np.random.Generator,
    start: Points,
    angle: NDArray[np.float64],
    length: NDArray[np.float64],
    side: int,
    steps: int,
) -> NDArray[np.float64]:
    """Grow lines [n, steps + 1, 2] that wander from `start` in the directions `angle`."""
    wander = np.cumsum(rng.normal(0, 0.1, (len(start), steps)), axis=1) + rng.normal(
        0, 0.02, (len(start), 1)
    ) * np.arange(steps)
    heading = angle[:, None] + wander
    step = (length / steps)[:, None]
    path = np.stack([side * np.cos(heading) * step, np.sin(heading) * step], axis=2).cumsum(axis=1)
    return cast("NDArray[np.float64]", np.concatenate([start[:, None], start[:, None] + path], axis=1))


def _draw_generation(layer: Mask, frame: Frame, lines: NDArray[np.float64], wide_mm: NDArray[np.float64]) -> None:
    """Draw branches from tip to root, each third wider than the one before; branches of like width in one go."""
    groups = np.clip(np.rint(wide_mm / 0.6), 1, 12).astype(int)
    for thin, (first, last) in zip((0.4, 0.65, 1.0), ((2, 3), (1, 2), (0, 1)), strict=True):
        steps = lines.shape[1] - 1
        part = lines[:, first * steps // 3 : last * steps // 3 + 1]
        for group in np.unique(groups):
            wide = group * 0.6 * thin
            stroke(layer, frame, part[groups == group], wide, 255 * min(1.0, 2.2 * wide / 10 / FULL_CM + 0.1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """A healthy chest before the detector.

    `solid` [H, W] is everything but the lungs' vessels, `vessels` [H, W] is these; both in cm of water. `air_cm` [H, W]
    is the air that may be filled, `lungs` [2, H, W] are the patient's right and left lung as 0..1, `heart` [H, W] is
    the heart's mask.
    """

    solid: Field
    vessels: Field
    air_cm: Field
    lungs: Field
    heart: NDArray[np.bool_]


def lay_tissue(chest: Chest, trees: tuple[Tree, Tree], frame: Frame, rng: np.random.Generator) -> Tissue:
    """Lay out a healthy chest in a film's pixels; `rng` draws textures only."""
    thorax, px = chest.thorax, frame.scale
    masks = [fill(frame, outline) for outline in chest.lungs]
    lungs = np.stack([blur(share(mask), 0.5 * px) for mask in masks])
    both = np.maximum(masks[0], masks[1])
    depth = bulge(both, 62 * px)
    heart = fill(frame, chest.heart)
    great_vessels = bulge(fill(frame, chest.vessels), 26 * px) * np.float32(0.8)
    knob = bulge(fill(frame, chest.knob), 15 * px) * 0.8
    middle = np.maximum(bulge(heart, 46 * px), np.maximum(great_vessels, knob))
    free = 1 - np.float32(HEART_FILLS) * blur(middle, 0.8 * px)
    air_cm = blur(depth, 0.5 * px) * lungs.max(axis=0) * free * np.float32(thorax.air_cm)
    belly = step_up(frame.y - np.float32(chest.domes_mm[0] + 10), 60)
    body = bulge(fill(frame, chest.body), 62 * px) * (np.float32(thorax.body_cm) + 2.2 * belly)
    solid = body - air_cm + _draw_recess(chest, frame) + spine_shadow(chest, frame) + bone_shadow(chest, frame)
    airway = airway_shadow(frame, -0.15 * thorax.knob_mm)
    solid = solid - airway * np.float32(2.0) - _draw_belly_gas(chest, frame) + _draw_breasts(chest, frame)
    hidden = lungs.max(axis=0) * free
    vessels = (vessel_shadow(trees, thorax, frame) + _draw_interstitium(thorax, frame, rng)) * hidden
    for scar in thorax.scars:
        solid = solid + _draw_scar(scar, chest, frame) * hidden
    return Tissue(
        solid=solid + hilum_shadow(thorax, frame), vessels=vessels, air_cm=air_cm, lungs=lungs, heart=heart > 127
    )


def _draw_recess(chest: Chest, frame: Frame) -> Field:
    """Draw the lung behind the diaphragm as negative cm of water [H, W]: below the domes it is a little darker than belly."""
    layer = np.zeros(frame.shape, dtype=np.float32)
    for side, dome in zip((-1, 1), chest.domes_mm, strict=True):
        back = fill(frame, oval(side * 74, dome - 6, 56, 44))
        layer -= bulge(back, 30 * frame.scale) * (1 - step_up(frame.y - np.float32(dome + 14), 50)) * np.float32(0.9)
    return layer


def _draw_belly_gas(chest: Chest, frame: Frame) -> Field:
    """Draw the air in the stomach, with its level, and in the bowel, in cm of water [H, W]."""
    x, wide, high = chest.thorax.bubble
    top = chest.domes_mm[1] + 9
    stomach = blur(share(fill(frame, oval(x, top + high, wide, high))), 1.2 * frame.scale)
    stomach = stomach * (1 - step_up(frame.y - np.float32(top + 1.35 * high), 3))
    layer = stomach * np.float32(2.2)
    for across, broad, tall in chest.thorax.gut:
        loop = fill(frame, oval(across, chest.domes_mm[1] + 38 + tall, broad, tall))
        layer = layer + blur(share(loop), 2 * frame.scale) * np.float32(1.3)
    return layer


def _draw_breasts(chest: Chest, frame: Frame) -> Field:
    """Draw breasts and nipples in cm of water [H, W]."""
    wide, high, thick = chest.thorax.breast
    layer = np.zeros(frame.shape, dtype=np.float32)
    if chest.thorax.female:
        for side in (-1, 1):
            shape = fill(frame, oval(side * 96, chest.thorax.breast_y_mm, wide, high, turn_deg=-8 * side))
            below = 0.5 + 0.5 * step_up(frame.y - np.float32(chest.thorax.breast_y_mm - 0.2 * high), 1.4 * high)
            layer += bulge(shape, 0.75 * high * frame.scale) * below * np.float32(thick)
    if chest.thorax.nipples:
        for side in (-1, 1):
            layer += (
                blur(
                    share(fill(frame, oval(side * 92, chest.thorax.breast_y_mm + 0.4 * high + 8, 4.5, 4))),
                    0.8 * frame.scale,
                )
                * 0.5
            )
    return layer


def _draw_interstitium(thorax: Thorax, frame: Frame, rng: np.random.Generator) -> Field:
    """Draw fine markings that no vessel tree has, in cm of water [H, W]; they coarsen with age."""
    rows, columns = frame.shape
    side = max(8, int(max(rows, columns) / frame.scale / 5))
    fine, wide = stretch(smooth_noise(rng, side), rows, columns), stretch(smooth_noise(rng, 9), rows, columns)
    return np.abs(fine) * np.float32(0.10 + 0.10 * thorax.unrest) + wide * np.float32(0.12)


def _draw_scar(scar: Scar, chest: Chest, frame: Frame) -> Field:
    """Draw a scar in cm of water [H, W]."""
    x, y = chest.spot(scar.side, scar.u, scar.v)
    if not scar.plate:
        return blur(share(fill(frame, oval(x, y, scar.size_mm, scar.size_mm))), 0.4 * frame.scale) * np.float32(
            0.22 * scar.size_mm
        )
    layer = np.zeros(frame.shape, dtype=np.uint8)
    run = np.array([np.cos(np.radians(scar.slant_deg)), np.sin(np.radians(scar.slant_deg))]) * scar.size_mm / 2
    stroke(layer, frame, [move_points(np.stack([-run, run]), x, y)], 3.0, 255)
    return blur(share(layer), 0.9 * frame.scale) * np.float32(0.8)
