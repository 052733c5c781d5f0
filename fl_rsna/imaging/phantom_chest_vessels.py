"""The lungs' vessels and airways: trees that leave the hila, thinning outwards."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_chest_anatomy import Thorax
from fl_rsna.imaging.phantom_chest_outlines import CARINA_MM, HILUM_MM
from fl_rsna.imaging.phantom_chest_shapes import Field, Frame, Mask, Points, blur, share, smooth_line, stroke

FULL_CM = 2.0  # of water where a layer says 255
_MAIN_DEG = np.array([-78, -62, -44, -24, -4, 16, 34, 50, 64, 76])  # below the horizontal, from tip to base
_MAIN_MM = np.array([66, 74, 84, 88, 92, 98, 104, 112, 112, 104])
_MAIN_WIDE_MM = np.array([3.0, 3.4, 3.6, 3.2, 3.4, 4.2, 5.0, 5.6, 5.8, 4.8])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Branches of one lung by generation: `lines` [n, P, 2] in mm and `wide_mm` [n] at their roots."""

    lines: tuple[NDArray[np.float64], ...]
    wide_mm: tuple[NDArray[np.float64], ...]


def draw_tree(rng: np.random.Generator, side: int) -> Tree:
    """The branches of one lung, 10 main ones and two generations of twigs."""
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
    """cm of water [H, W] of both lungs' vessels."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for tree in trees:
        for lines, wide in zip(reversed(tree.lines), reversed(tree.wide_mm), strict=True):
            _draw_generation(layer, frame, lines, wide * thorax.vessels)
    return blur(share(layer), 0.7 * frame.scale) * np.float32(FULL_CM)


def hilum_shadow(thorax: Thorax, frame: Frame) -> Field:
    """The great branches at the hila."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for side, (x, y) in zip((-1, 1), HILUM_MM, strict=True):
        lower = smooth_line(
            [(x - side * 4, y - 10), (x + side * 2, y), (x + side * 9, y + 20), (x + side * 14, y + 44)]
        )
        upper = smooth_line([(x - side * 1, y - 6), (x + side * 5, y - 16), (x + side * 10, y - 34)])
        for line, wide in ((lower, 15.0), (upper, 9.0)):
            for part, (piece, thin) in enumerate(zip(_thirds(line), (1.0, 0.8, 0.55), strict=True)):
                stroke(layer, frame, [piece], wide * thin * min(1.2, thorax.vessels), 230 - 50 * part)
    return blur(share(layer), 2.4 * frame.scale) * np.float32(3.2)


def airway_shadow(frame: Frame, bend_mm: float) -> Field:
    """Share 0..1 [H, W] of the trachea and the main bronchi, which let the beam through."""
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
    """Share 0..1 [H, W] of the airways that stay dark where a lung's air spaces are filled."""
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
    """Lines [n, steps + 1, 2] that wander from `start` in the directions `angle`."""
    wander = np.cumsum(rng.normal(0, 0.1, (len(start), steps)), axis=1) + rng.normal(
        0, 0.02, (len(start), 1)
    ) * np.arange(steps)
    heading = angle[:, None] + wander
    step = (length / steps)[:, None]
    path = np.stack([side * np.cos(heading) * step, np.sin(heading) * step], axis=2).cumsum(axis=1)
    return cast("NDArray[np.float64]", np.concatenate([start[:, None], start[:, None] + path], axis=1))


def _draw_generation(layer: Mask, frame: Frame, lines: NDArray[np.float64], wide_mm: NDArray[np.float64]) -> None:
    """Branches drawn from tip to root, each third wider than the one before; alike widths in one go."""
    groups = np.clip(np.rint(wide_mm / 0.6), 1, 12).astype(int)
    for thin, (first, last) in zip((0.4, 0.65, 1.0), ((2, 3), (1, 2), (0, 1)), strict=True):
        steps = lines.shape[1] - 1
        part = lines[:, first * steps // 3 : last * steps // 3 + 1]
        for group in np.unique(groups):
            wide = group * 0.6 * thin
            stroke(layer, frame, part[groups == group], wide, 255 * min(1.0, 2.2 * wide / 10 / FULL_CM + 0.1))


def _thirds(line: Points) -> tuple[Points, Points, Points]:
    cut = len(line) // 3
    return line[: cut + 1], line[cut : 2 * cut + 1], line[2 * cut :]
