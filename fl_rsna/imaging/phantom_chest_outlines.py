"""The outlines of one chest in one pose: lungs, heart, great vessels and body, in template mm."""

from dataclasses import dataclass

import numpy as np

from fl_rsna.imaging.phantom_chest_anatomy import Pose, Thorax, View
from fl_rsna.imaging.phantom_chest_shapes import Points, moved, oval, smooth_line

HILUM_MM = ((-38.0, 122.0), (40.0, 112.0))  # the left one is higher
CARINA_MM = (4.0, 92.0)
REFERENCE_DOME_MM = 224.0  # at which the template's heart lies

_LEVELS = np.array([0, 0.035, 0.14, 0.3, 0.48, 0.66, 0.83, 1.0])  # of the way from tip to costophrenic angle
_LATERAL = np.array([50, 77, 102, 121, 132.5, 137.5, 138.5, 135])  # mm
_MEDIAL = np.array([30, 24, 18, 16, 16, 17, 19, 24])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """Closed outlines [N, 2] of one film; `domes_mm` and `angles_mm` are the heights of diaphragms and costophrenic angles."""

    thorax: Thorax
    pose: Pose
    lungs: tuple[Points, Points]  # the patient's right, left
    heart: Points
    vessels: Points  # the upper mediastinum
    knob: Points
    body: Points
    domes_mm: tuple[float, float]
    angles_mm: tuple[float, float]

    def spot(self, side: int, u: float, v: float) -> tuple[float, float]:
        """Where in a lung: `u` 0..1 from the mediastinum to the chest wall, `v` 0..1 from the tip to the dome."""
        index = int(side > 0)
        y = v * self.domes_mm[index]
        outer = self.wall(y, side)
        inner = 24 + 16 * v
        return side * (inner + (outer - inner) * u), y

    def wall(self, y: float, side: int) -> float:
        """How far from the midline the lung's outer edge lies at height `y`."""
        return float(np.interp(y / self.angles_mm[int(side > 0)], _LEVELS, _LATERAL)) * _width(self.thorax)


def outline_chest(thorax: Thorax, pose: Pose) -> Chest:
    domes = (thorax.dome_mm[0] + pose.breath_mm, thorax.dome_mm[1] + pose.breath_mm)
    drop = 40 - 14 * thorax.barrel
    angles = (domes[0] + drop, domes[1] + drop - 4)
    return Chest(
        thorax=thorax,
        pose=pose,
        lungs=(_lung(thorax, domes[0], angles[0], -1), _lung(thorax, domes[1], angles[1], 1)),
        heart=_heart(thorax, pose, domes[1]),
        vessels=_great_vessels(pose.twist_mm),
        knob=oval(24 + 0.5 * pose.twist_mm, 74, thorax.knob_mm * 1.05, thorax.knob_mm * 1.15),
        body=_body(thorax, pose),
        domes_mm=domes,
        angles_mm=angles,
    )


def _width(thorax: Thorax) -> float:
    return 1 + 0.04 * min(thorax.barrel, 1)


def _lung(thorax: Thorax, dome: float, angle: float, side: int) -> Points:
    flat = thorax.barrel
    lateral = np.stack([_LATERAL * _width(thorax), _LEVELS * angle], axis=1)
    lateral[0] = 48, -1
    base = [(119, dome + 17 - 4 * flat), (97, dome + 4), (70, dome), (46, dome + 3), (24, dome + 12)]
    medial = np.stack([_MEDIAL[1:-1], _LEVELS[1:-1] * dome * 0.98], axis=1)[::-1]
    tip = [(31, 3)]
    return smooth_line(np.concatenate([lateral, base, medial, tip]), closed=True, steps=6) * (side, 1)


def _heart(thorax: Thorax, pose: Pose, dome: float) -> Points:
    """Right atrium, left ventricle, left atrium's ear and pulmonary trunk; it lies on the diaphragm and leans left."""
    shape = smooth_line(
        [
            *((-24, 92), (-29, 125), (-40, 150), (-46, 176), (-42, 204), (-30, 224)),
            *(
                (0, 240),
                (40, 244),
                (76, 240),
                (92, 224),
                (91, 203),
                (80, 176),
                (63, 147),
                (50, 127),
                (43, 108),
                (36, 94),
            ),
        ],
        closed=True,
        steps=6,
    )
    sitting = dome - REFERENCE_DOME_MM - 8
    wide = thorax.heart * (1.1 if pose.view is View.ap else 1.0) * (1 - 0.0035 * sitting)
    middle = np.array([12.0, 92.0])
    high = 0.5 + 0.5 * thorax.heart + sitting / 150
    return moved((shape - middle) * (wide, high) + middle, 0.8 * pose.twist_mm, 0)


def _great_vessels(twist: float) -> Points:
    shape = smooth_line(
        [
            *((-34, -70), (-36, -20), (-30, 8), (-28, 50), (-29, 92), (-30, 130), (0, 170), (36, 140)),
            *((38, 112), (34, 96), (35, 80), (32, 60), (29, 34), (29, 8), (36, -20), (34, -70)),
        ],
        closed=True,
        steps=5,
    )
    return moved(shape, 0.4 * twist, 0)


def _body(thorax: Thorax, pose: Pose) -> Points:
    """Neck, shoulders and flanks; arms hang beside the chest or are turned away."""
    wall, away = 141 * _width(thorax) + thorax.fat_mm, pose.arms
    neck = [(60, -190), (62, -110), (70, -82), (100, -62), (140, -50), (184, -34), (226, -6)]
    arm = [(262 + 60 * away, 100), (270 + 160 * away, 330), (186 + 160 * away, 330), (wall + 26 + 50 * away, 150)]
    flank = [(wall + 11, 92), (wall + 4, 150), (wall + 6, 230), (wall + 14, 300), (wall + 20, 460)]
    side = np.array([*neck, *arm, *flank], dtype=np.float64)
    other = side[::-1] * (-1, 1)
    return smooth_line(np.concatenate([side, other]), closed=True, steps=5)
