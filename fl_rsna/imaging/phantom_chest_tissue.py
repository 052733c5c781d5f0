"""What the beam meets in a healthy chest, in cm of water: body, air, heart, diaphragm, breasts, bones and vessels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_chest_anatomy import Scar, Thorax
from fl_rsna.imaging.phantom_chest_bones import bone_shadow, spine_shadow
from fl_rsna.imaging.phantom_chest_outlines import Chest
from fl_rsna.imaging.phantom_chest_shapes import (
    Field,
    Frame,
    blur,
    bulge,
    fill,
    moved,
    oval,
    share,
    smooth_noise,
    step_up,
    stretch,
    stroke,
)
from fl_rsna.imaging.phantom_chest_vessels import Tree, airway_shadow, hilum_shadow, vessel_shadow

HEART_FILLS = 0.88  # of the air behind and before the heart's middle


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """A healthy chest before the detector.

    `solid` [H, W] is everything but the lungs' vessels, `vessels` [H, W] these; both in cm of water. `air_cm` [H, W] is
    the air that may be filled, `lungs` [2, H, W] the patient's right and left lung as 0..1, `heart` [H, W] the heart's mask.
    """

    solid: Field
    vessels: Field
    air_cm: Field
    lungs: Field
    heart: NDArray[np.bool_]


def lay_tissue(chest: Chest, trees: tuple[Tree, Tree], frame: Frame, rng: np.random.Generator) -> Tissue:
    """A healthy chest; `rng` draws textures only."""
    thorax, px = chest.thorax, frame.scale
    masks = [fill(frame, outline) for outline in chest.lungs]
    lungs = np.stack([blur(share(mask), 0.5 * px) for mask in masks])
    both = np.maximum(masks[0], masks[1])
    depth = bulge(both, 62 * px)
    heart = fill(frame, chest.heart)
    middle = np.maximum(
        bulge(heart, 46 * px), np.maximum(_vessel_bulge(chest, frame), bulge(fill(frame, chest.knob), 15 * px) * 0.8)
    )
    free = 1 - np.float32(HEART_FILLS) * blur(middle, 0.8 * px)
    air_cm = blur(depth, 0.5 * px) * lungs.max(axis=0) * free * np.float32(thorax.air_cm)
    solid = (
        _body(chest, frame) - air_cm + _recess(chest, frame) + spine_shadow(chest, frame) + bone_shadow(chest, frame)
    )
    airway = airway_shadow(frame, -0.15 * thorax.knob_mm)
    solid = solid - airway * np.float32(2.0) - _belly_gas(chest, frame) + _breasts(chest, frame)
    hidden = lungs.max(axis=0) * free
    vessels = (vessel_shadow(trees, thorax, frame) + _network(thorax, frame, rng)) * hidden
    for scar in thorax.scars:
        solid = solid + _scar(scar, chest, frame) * hidden
    return Tissue(
        solid=solid + hilum_shadow(thorax, frame), vessels=vessels, air_cm=air_cm, lungs=lungs, heart=heart > 127
    )


def _body(chest: Chest, frame: Frame) -> Field:
    outline = fill(frame, chest.body)
    thick = bulge(outline, 62 * frame.scale)
    belly = step_up(frame.y - np.float32(chest.domes_mm[0] + 10), 60)
    return thick * (np.float32(chest.thorax.body_cm) + 2.2 * belly)


def _vessel_bulge(chest: Chest, frame: Frame) -> Field:
    return bulge(fill(frame, chest.vessels), 26 * frame.scale) * np.float32(0.8)


def _recess(chest: Chest, frame: Frame) -> Field:
    """The lung behind the diaphragm: below the domes it stays a little brighter than belly, so this is negative."""
    layer = np.zeros(frame.shape, dtype=np.float32)
    for side, dome in zip((-1, 1), chest.domes_mm, strict=True):
        back = fill(frame, oval(side * 74, dome - 6, 56, 44))
        layer -= bulge(back, 30 * frame.scale) * (1 - step_up(frame.y - np.float32(dome + 14), 50)) * np.float32(0.9)
    return layer


def _belly_gas(chest: Chest, frame: Frame) -> Field:
    """Air in the stomach, with its level, and in the bowel."""
    x, wide, high = chest.thorax.bubble
    top = chest.domes_mm[1] + 9
    stomach = blur(share(fill(frame, oval(x, top + high, wide, high))), 1.2 * frame.scale)
    stomach = stomach * (1 - step_up(frame.y - np.float32(top + 1.35 * high), 3))
    layer = stomach * np.float32(2.2)
    for across, broad, tall in chest.thorax.gut:
        loop = fill(frame, oval(across, chest.domes_mm[1] + 38 + tall, broad, tall))
        layer = layer + blur(share(loop), 2 * frame.scale) * np.float32(1.3)
    return layer


def _breasts(chest: Chest, frame: Frame) -> Field:
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


def _network(thorax: Thorax, frame: Frame, rng: np.random.Generator) -> Field:
    """Fine markings that no tree draws; they coarsen with age."""
    rows, columns = frame.shape
    side = max(8, int(max(rows, columns) / frame.scale / 5))
    fine, wide = stretch(smooth_noise(rng, side), rows, columns), stretch(smooth_noise(rng, 9), rows, columns)
    return np.abs(fine) * np.float32(0.10 + 0.10 * thorax.unrest) + wide * np.float32(0.12)


def _scar(scar: Scar, chest: Chest, frame: Frame) -> Field:
    x, y = chest.spot(scar.side, scar.u, scar.v)
    if not scar.plate:
        return blur(share(fill(frame, oval(x, y, scar.size_mm, scar.size_mm))), 0.4 * frame.scale) * np.float32(
            0.22 * scar.size_mm
        )
    layer = np.zeros(frame.shape, dtype=np.uint8)
    run = np.array([np.cos(np.radians(scar.slant_deg)), np.sin(np.radians(scar.slant_deg))]) * scar.size_mm / 2
    stroke(layer, frame, [moved(np.stack([-run, run]), x, y)], 3.0, 255)
    return blur(share(layer), 0.9 * frame.scale) * np.float32(0.8)
