"""Metal and plastic on and in the patient, in cm of water: sternal wires, pacemakers, ports, leads, tubes and lines."""

import numpy as np

from fl_rsna.phantom.chest.anatomy import CARINA_MM, Chest, Device
from fl_rsna.phantom.chest.geometry import Field, Frame, Mask, blur, fill, oval, share, smooth_line, stroke

METAL_CM = 5.0  # of water where a layer says 255


def device_shadow(chest: Chest, frame: Frame, rng: np.random.Generator) -> Field:
    """All devices of one film; `rng` draws where they lie this time."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for device in sorted(chest.thorax.devices):
        match device:
            case Device.wires:
                _sternal_wires(layer, frame, chest.pose.twist_mm)
            case Device.pacemaker:
                _pacemaker(layer, frame)
            case Device.port:
                _port(layer, frame)
            case Device.tube:
                tip = CARINA_MM[1] - rng.uniform(20, 55)
                stroke(layer, frame, [smooth_line([(1, -130), (2, -40), (-2, tip)])], 9.0, 26)
                stroke(layer, frame, [smooth_line([(4, -130), (5, -40), (1, tip)])], 1.4, 110)
            case Device.line:
                end = rng.uniform(90, 135)
                path = [(-42, -110), (-36, -50), (-25, 10), (-22, 60), (-23, end)]
                stroke(layer, frame, [smooth_line(path)], 1.9, 110)
            case Device.leads:
                pass  # of a film, not of a patient
    if chest.pose.leads:
        _leads(layer, frame, rng)
    return blur(share(layer), 0.3 * frame.scale) * np.float32(METAL_CM)


def _sternal_wires(layer: Mask, frame: Frame, twist: float) -> None:
    for number, y in enumerate(range(52, 190, 24)):
        tilt = 2 * (-1) ** number
        stroke(
            layer,
            frame,
            [smooth_line([(1.2 * twist - 7, y + tilt), (1.2 * twist, y - 4), (1.2 * twist + 7, y - tilt)])],
            1.2,
            200,
        )
        stroke(layer, frame, [oval(1.2 * twist, y + 2, 2.5, 2.5)], 1.2, 200)


def _pacemaker(layer: Mask, frame: Frame) -> None:
    """The box lies below the left clavicle, its leads end in the right heart."""
    layer[:] = np.maximum(layer, fill(frame, oval(108, 52, 23, 19, turn_deg=20)) // 10 * 8)
    for end in ([(-18, 160), (-30, 176)], [(10, 200), (46, 216)]):
        path = smooth_line([(98, 40), (70, 8), (30, 16), (-14, 40), (-24, 100), *end])
        stroke(layer, frame, [path], 1.2, 150)
        stroke(layer, frame, [path[-4:]], 2.0, 220)


def _port(layer: Mask, frame: Frame) -> None:
    layer[:] = np.maximum(layer, fill(frame, oval(-96, 50, 12, 13)) // 10 * 6)
    stroke(layer, frame, [smooth_line([(-94, 40), (-60, 0), (-34, 6), (-23, 60), (-22, 122)])], 1.9, 120)


def _leads(layer: Mask, frame: Frame, rng: np.random.Generator) -> None:
    """Three electrodes and the wires that leave the film."""
    for x, y, end in ((-118, 20, (-60, 420)), (118, 16, (70, 420)), (96, 236, (120, 420))):
        spot = np.array([x, y]) + rng.normal(0, 10, 2)
        stroke(layer, frame, [oval(spot[0], spot[1], 3.5, 3.5)], 3.0, 190)
        bend = spot + rng.normal((-0.2 * x, 70), (20, 20))
        stroke(layer, frame, [smooth_line([spot, bend, np.array(end) + rng.normal(0, 30, 2)])], 1.5, 130)
