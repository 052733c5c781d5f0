"""Ribs, clavicles, shoulder blades and spine as shadows: cm of water [H, W] on top of the soft tissue."""

import numpy as np

from fl_rsna.imaging.phantom_chest_anatomy import View
from fl_rsna.imaging.phantom_chest_outlines import Chest
from fl_rsna.imaging.phantom_chest_shapes import (
    Field,
    Frame,
    Mask,
    Points,
    blur,
    fill,
    moved,
    oval,
    share,
    smooth_line,
    step_up,
    stroke,
)

RIBS = 11
_START_MM = np.array([10, 24, 43, 64, 86, 108, 131, 154, 178, 202, 226]) - 14.0  # where each leaves the spine
_DEPTH_MM = np.array([26, 42, 56, 67, 76, 82, 86, 88, 86, 80, 70])  # half of the chest from back to front
_REACH_DEG = np.array([118, 126, 132, 136, 138, 138, 136, 130, 122, 112, 100])  # where cartilage begins


def bone_shadow(chest: Chest, frame: Frame) -> Field:
    """All bones of one film."""
    back, front = (np.zeros(frame.shape, dtype=np.uint8) for _ in range(2))
    for side in (-1, 1):
        for number in range(RIBS):
            line, turn = _rib(chest, number, side)
            behind = turn <= np.pi / 2
            wide = 9.5 + 0.35 * min(number, 6)
            _tube(back, frame, line[behind], wide, 0.62)
            if number < 10:
                _front(front, frame, line[~behind], wide + 1.5)
    cage = share(back) + np.float32(0.8) * share(front)
    cage *= 0.25 + 0.75 * step_up(np.abs(frame.x) - np.float32(30), 36)  # thin where they meet the spine
    return (blur(cage, 0.8 * frame.scale) * np.float32(1.15) + _girdle(chest, frame)) * np.float32(chest.thorax.bone)


def spine_shadow(chest: Chest, frame: Frame) -> Field:
    """Vertebral bodies, their arches and spines; seen faintly through the heart."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    bend = chest.thorax.spine_bend_mm
    first, last = float(frame.y.min()) - 12, float(frame.y.max()) + 12
    for y in np.arange(-230.0, 470.0, 24.5):
        if not first < y < last:
            continue
        x = bend * np.sin(y / 75)
        _block(layer, frame, x, y)
    return blur(share(layer), 1.6 * frame.scale) * np.float32(1.0 * chest.thorax.bone)


def _rib(chest: Chest, number: int, side: int) -> tuple[Points, np.ndarray]:
    """A rib is half an ellipse around the chest that falls to the front; returns its line and the angle along it."""
    turn = np.linspace(0.03, np.radians(_REACH_DEG[number]), 26)
    depth, slope = _DEPTH_MM[number], chest.thorax.rib_slope
    lift = 0.35 * chest.pose.breath_mm * (1 - number / 14)
    start = _START_MM[number] * chest.angles_mm[0] / 262 + (10 if chest.thorax.barrel > 0.5 else 0) * number / 14
    y = start + slope * depth * (1 - np.cos(turn)) * (1 - lift / 260) - 6 * np.sin(2 * turn)
    wall = chest.wall(float(start + slope * depth), side) + 2.5
    bend = chest.thorax.spine_bend_mm * np.sin(start / 75)
    x = side * (5 + (wall - 5) * np.sin(turn) ** 0.92) + bend * np.cos(turn).clip(0)
    return np.stack([x, y], axis=1), turn


def _tube(layer: Mask, frame: Frame, line: Points, width_mm: float, core: float) -> None:
    """A bone whose rim is denser than its marrow."""
    stroke(layer, frame, [line], width_mm, 255)
    stroke(layer, frame, [line], width_mm - 2.6, 255 * core)


def _front(layer: Mask, frame: Frame, line: Points, width_mm: float) -> None:
    """The front of a rib: it broadens and fades where cartilage begins."""
    cut = max(2, len(line) * 2 // 3)
    stroke(layer, frame, [line[cut - 1 :]], width_mm + 1, 80)
    stroke(layer, frame, [line[cut - 1 : -1]], width_mm, 130)
    _tube(layer, frame, line[:cut], width_mm, 0.62)


def _girdle(chest: Chest, frame: Frame) -> Field:
    """Clavicles, shoulder blades and the heads of the arms."""
    ap = chest.pose.view is View.ap
    collar, blade = (np.zeros(frame.shape, dtype=np.uint8) for _ in range(2))
    up, out = (16.0 if ap else 0.0), 30.0 * chest.pose.arms
    twist = 1.3 * chest.pose.twist_mm
    for side in (-1, 1):
        clavicle = smooth_line(
            [(14, 46 - 0.6 * up), (30, 38 - 0.8 * up), (58, 22 - up), (90, 8 - up), (122, 1 - up), (158, -8 - up)]
        )
        _tube(collar, frame, moved(clavicle * (side, 1), twist, 0), 11.0, 0.66)
        edge = smooth_line([(112, 2), (116, 40), (126, 90), (136, 122), (146, 112), (156, 70), (170, 22)])
        shifted = moved(edge, out, 0) * (side, 1)
        np.maximum(blade, fill(frame, shifted) // 4, out=blade)
        stroke(blade, frame, [shifted[-24:]], 6.0, 200)
        stroke(blade, frame, [shifted[:22]], 2.0, 130)
        ridge = moved(smooth_line([(118, 8), (146, -8), (176, -20)]), out, 0)
        stroke(blade, frame, [ridge * (side, 1)], 8.0, 150)
        np.maximum(blade, fill(frame, oval(side * (190 + 0.4 * out), 8, 23, 24)) // 2, out=blade)
    return blur(share(collar), 0.8 * frame.scale) * np.float32(1.9) + blur(
        share(blade), 1.2 * frame.scale
    ) * np.float32(2.2)


def _block(layer: Mask, frame: Frame, x: float, y: float) -> None:
    """One vertebra around (x, y)."""
    waist = 15.5 + 0.012 * y
    body = np.array(
        [(-waist - 1.5, -9), (waist + 1.5, -9), (waist, 0), (waist + 1.5, 9), (-waist - 1.5, 9), (-waist, 0)]
    )
    np.maximum(layer, fill(frame, moved(body, x, y)) // 3 * 2, out=layer)
    stroke(layer, frame, [oval(x + across, y - 3, 3, 4.2) for across in (-11, 11)], 1.6, 235)
    plates = np.array([[(x - waist, y + end), (x + waist, y + end)] for end in (-9, 9)])
    stroke(layer, frame, plates, 1.8, 230)
    stroke(layer, frame, [np.array([(x, y + 2), (x, y + 13)])], 4.5, 220)
