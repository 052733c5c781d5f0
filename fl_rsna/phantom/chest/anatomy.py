"""Draw the anatomy of one synthetic chest and its pose before the detector, and outline it.

Healthy people differ in the drawn numbers. Outlines are of lungs, heart, great vessels and body, in template mm.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fl_rsna.phantom.chest.geometry import Points, move_points, oval, smooth_line

Pair = tuple[float, float]  # the patient's right, left
HILUM_MM = ((-38.0, 122.0), (40.0, 112.0))  # the left one is higher
CARINA_MM = (4.0, 92.0)
REFERENCE_DOME_MM = 224.0  # height of the dome on which the template's heart lies
_LEVELS = np.array([0, 0.035, 0.14, 0.3, 0.48, 0.66, 0.83, 1.0])  # shares of the way from tip to costophrenic angle
_LATERAL = np.array([50, 77, 102, 121, 132.5, 137.5, 138.5, 135])  # outer edge of a lung from the midline, mm
_MEDIAL = np.array([30, 24, 18, 16, 16, 17, 19, 24])  # inner edge, mm


class View(StrEnum):
    """The direction of the beam through the chest; the values are ViewPosition's (DICOM PS3.3 C.8.11.1)."""

    pa = "PA"
    ap = "AP"


class Device(StrEnum):
    """A thing of metal or plastic that a patient wears inside or outside."""

    wires = "wires"  # sternal
    pacemaker = "pacemaker"
    port = "port"
    leads = "leads"  # of an electrocardiogram
    tube = "tube"  # in the trachea
    line = "line"  # in a central vein


@dataclass(frozen=True, slots=True, kw_only=True)
class Scar:
    """A harmless trace, never a class: `u` is 0..1 from hilum to chest wall and `v` 0..1 from tip to diaphragm."""

    side: int
    u: float
    v: float
    size_mm: float
    plate: bool  # a thin band of unaired lung, else a calcified nodule
    slant_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thorax:
    """The numbers that make one chest differ from the next; lengths in mm of a template adult, thicknesses in cm of water.

    `scale` stretches the template across and along; `dome_mm` is how far the diaphragm's tops lie below the lungs'
    tips.
    """

    female: bool
    age: float  # 0 young, 1 old
    scale: Pair
    barrel: float  # 0 plain, 1 a smoker's wide chest with flat diaphragms
    dome_mm: Pair
    heart: float
    knob_mm: float
    body_cm: float
    fat_mm: float
    air_cm: float
    breast: tuple[float, float, float]  # half width, half height, cm
    breast_y_mm: float
    nipples: bool
    bone: float
    rib_slope: float
    spine_bend_mm: float
    vessels: float
    unrest: float  # how strong the fine network is that comes with age
    bubble: tuple[float, float, float]  # x, half width, half height of the stomach's air
    gut: tuple[tuple[float, float, float], ...]
    scars: tuple[Scar, ...]
    devices: frozenset[Device]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """The patient's position in one film.

    `breath_mm` moves the diaphragm down, `twist_mm` moves what lies in front to the patient's left; `field_mm` is the
    film's shorter side, `offset_mm` is where its middle lies from the chest's.
    """

    view: View
    breath_mm: float
    twist_mm: float
    tilt_deg: float
    field_mm: float
    offset_mm: Pair
    arms: float
    leads: bool


def draw_thorax(rng: np.random.Generator) -> Thorax:
    """Draw a random adult chest."""
    female, age, barrel = bool(rng.random() < 0.46), float(rng.beta(2.2, 1.8)), float(max(0, rng.normal(-0.2, 0.45)))
    stout = float(rng.normal(0, 1))
    size = rng.normal(0.95 if female else 1.02, 0.035)
    right = float(rng.normal(222 + 14 * barrel - 3 * max(0, stout), 8))
    return Thorax(
        female=female,
        age=age,
        scale=(float(size * rng.normal(1 + 0.02 * stout, 0.03)), float(size * rng.normal(1, 0.035))),
        barrel=barrel,
        dome_mm=(right, right + float(np.clip(rng.normal(11, 4), 4, 22))),
        heart=float(np.clip(rng.normal(0.98 + 0.1 * age, 0.07) + 0.22 * (rng.random() < 0.12), 0.82, 1.4)),
        knob_mm=float(rng.normal(14 + 5 * age, 1.5)),
        body_cm=float(np.clip(rng.normal(20.5 + 1.6 * stout, 1), 16, 28)),
        fat_mm=float(np.clip(rng.normal(22 + 8 * stout, 5), 8, 50)),
        air_cm=float(rng.normal(11.6 + 0.8 * barrel, 0.5)),
        breast=_draw_breast(rng, stout) if female else (0.0, 0.0, 0.0),
        breast_y_mm=float(rng.normal(172 + 20 * age, 10)),
        nipples=bool(rng.random() < 0.12),
        bone=float(rng.normal(1.1 - 0.25 * age, 0.1)),
        rib_slope=float(rng.normal(0.52 - 0.08 * barrel, 0.05)),
        spine_bend_mm=float(rng.normal(0, 3.5) * (1 + 2.5 * (rng.random() < 0.1))),
        vessels=float(rng.lognormal(0, 0.16)),
        unrest=float(age * rng.uniform(0.2, 1)),
        bubble=(float(rng.normal(62, 10)), float(rng.uniform(12, 32)), float(rng.uniform(6, 20))),
        gut=tuple(
            (float(rng.normal(85, 24)), float(rng.uniform(8, 18)), float(rng.uniform(6, 11)))
            for _ in range(rng.poisson(1.4))
        ),
        scars=tuple(_draw_scar(rng) for _ in range(rng.poisson(0.3 + 0.5 * age))),
        devices=frozenset(device for device, chance in _CHANCES.items() if rng.random() < chance),
    )


_CHANCES = {Device.wires: 0.05, Device.pacemaker: 0.05, Device.port: 0.04, Device.tube: 0.05, Device.line: 0.08}


def draw_pose(rng: np.random.Generator, view: View) -> Pose:
    """Draw a random position: standing for PA, sitting or lying for AP."""
    lying = view is View.ap
    return Pose(
        view=view,
        breath_mm=float(rng.normal(-12, 10) if lying else rng.normal(2, 7)),
        twist_mm=float(rng.normal(0, 5 if lying else 2.5)),
        tilt_deg=float(rng.normal(0, 3 if lying else 1.2)),
        field_mm=float(rng.uniform(330, 380)),
        offset_mm=(float(rng.normal(0, 9)), float(rng.normal(0, 9))),
        arms=float(rng.uniform(0, 0.4) if lying else rng.uniform(0.6, 1)),
        leads=bool(rng.random() < (0.5 if lying else 0.06)),
    )


def _draw_breast(rng: np.random.Generator, stout: float) -> tuple[float, float, float]:
    """Draw half width, half height (mm) and thickness (cm of water) of the breasts."""
    full = float(np.clip(rng.normal(1 + 0.2 * stout, 0.25), 0.4, 1.7))
    return 58 + 10 * full, 44 + 16 * full, 1.1 * full


def _draw_scar(rng: np.random.Generator) -> Scar:
    plate = bool(rng.random() < 0.45)
    return Scar(
        side=int(rng.choice([-1, 1])),
        u=float(rng.uniform(0.15, 0.8)),
        v=float(rng.uniform(0.78, 0.93) if plate else rng.uniform(0.15, 0.85)),
        size_mm=float(rng.uniform(22, 48) if plate else rng.uniform(2.2, 5)),
        plate=plate,
        slant_deg=float(rng.normal(0, 12)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """The closed outlines [N, 2] of one film in template mm.

    `domes_mm` and `angles_mm` are the heights of the diaphragms and of the costophrenic angles.
    """

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
        """Return a place in a lung in mm: `u` is 0..1 from the mediastinum to the chest wall, `v` 0..1 from the tip to the dome."""
        index = int(side > 0)
        y = v * self.domes_mm[index]
        outer = self.wall(y, side)
        inner = 24 + 16 * v
        return side * (inner + (outer - inner) * u), y

    def wall(self, y: float, side: int) -> float:
        """Compute how far from the midline the lung's outer edge lies at height `y`, in mm."""
        return float(np.interp(y / self.angles_mm[int(side > 0)], _LEVELS, _LATERAL)) * _compute_width(self.thorax)


def outline_chest(thorax: Thorax, pose: Pose) -> Chest:
    """Outline the chest of one film, in the pose and breath of that film."""
    domes = (thorax.dome_mm[0] + pose.breath_mm, thorax.dome_mm[1] + pose.breath_mm)
    drop = 40 - 14 * thorax.barrel
    angles = (domes[0] + drop, domes[1] + drop - 4)
    return Chest(
        thorax=thorax,
        pose=pose,
        lungs=(_outline_lung(thorax, domes[0], angles[0], -1), _outline_lung(thorax, domes[1], angles[1], 1)),
        heart=_outline_heart(thorax, pose, domes[1]),
        vessels=_outline_great_vessels(pose.twist_mm),
        knob=oval(24 + 0.5 * pose.twist_mm, 74, thorax.knob_mm * 1.05, thorax.knob_mm * 1.15),
        body=_outline_body(thorax, pose),
        domes_mm=domes,
        angles_mm=angles,
    )


def _compute_width(thorax: Thorax) -> float:
    """Compute the factor by which a barrel chest is wider."""
    return 1 + 0.04 * min(thorax.barrel, 1)


def _outline_lung(thorax: Thorax, dome: float, angle: float, side: int) -> Points:
    flat = thorax.barrel
    lateral = np.stack([_LATERAL * _compute_width(thorax), _LEVELS * angle], axis=1)
    lateral[0] = 48, -1
    base = [(119, dome + 17 - 4 * flat), (97, dome + 4), (70, dome), (46, dome + 3), (24, dome + 12)]
    medial = np.stack([_MEDIAL[1:-1], _LEVELS[1:-1] * dome * 0.98], axis=1)[::-1]
    tip = [(31, 3)]
    return smooth_line(np.concatenate([lateral, base, medial, tip]), closed=True, steps=6) * (side, 1)


def _outline_heart(thorax: Thorax, pose: Pose, dome: float) -> Points:
    """Outline right atrium, left ventricle, the left atrium's ear and pulmonary trunk; the heart lies on the diaphragm and leans left."""
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
    return move_points((shape - middle) * (wide, high) + middle, 0.8 * pose.twist_mm, 0)


def _outline_great_vessels(twist: float) -> Points:
    shape = smooth_line(
        [
            *((-34, -70), (-36, -20), (-30, 8), (-28, 50), (-29, 92), (-30, 130), (0, 170), (36, 140)),
            *((38, 112), (34, 96), (35, 80), (32, 60), (29, 34), (29, 8), (36, -20), (34, -70)),
        ],
        closed=True,
        steps=5,
    )
    return move_points(shape, 0.4 * twist, 0)


def _outline_body(thorax: Thorax, pose: Pose) -> Points:
    """Outline neck, shoulders and flanks; arms hang beside the chest or are turned away."""
    wall, away = 141 * _compute_width(thorax) + thorax.fat_mm, pose.arms
    neck = [(60, -190), (62, -110), (70, -82), (100, -62), (140, -50), (184, -34), (226, -6)]
    arm = [(262 + 60 * away, 100), (270 + 160 * away, 330), (186 + 160 * away, 330), (wall + 26 + 50 * away, 150)]
    flank = [(wall + 11, 92), (wall + 4, 150), (wall + 6, 230), (wall + 14, 300), (wall + 20, 460)]
    side = np.array([*neck, *arm, *flank], dtype=np.float64)
    other = side[::-1] * (-1, 1)
    return smooth_line(np.concatenate([side, other]), closed=True, steps=5)
