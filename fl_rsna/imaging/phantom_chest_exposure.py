"""The film: the frame, the beam, scatter, noise, processing and shutters; cm of water become grey."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_chest_anatomy import Pose, Thorax, View
from fl_rsna.imaging.phantom_chest_shapes import Field, Frame, blur, haze_of, make_frame
from fl_rsna.imaging.phantom_chest_vendors import Vendor

WATER_PER_CM = 0.19  # attenuation at chest energies
MIDDLE_MM = 130.0  # of the template chest, where a well placed film is centred


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How one film is taken and tuned.

    `scatter` is the share of stray beam, `dark` and `bright` by how much of the range the automatic window misses at either
    end, `gamma` how grey is bent, `shutters` how many mm each side is closed (left, top, right, bottom).
    """

    scatter: float
    noise: float
    dark: float
    bright: float
    gamma: float
    shutters: tuple[float, float, float, float]
    marker: bool  # "R" on the patient's right, else "L" on the left
    marker_place: tuple[float, float]
    speed: tuple[float, float]  # what the stored range's begin and width are multiplied with


def draw_exposure(rng: np.random.Generator, vendor: Vendor, view: View) -> Exposure:
    portable = view is View.ap
    closed = rng.random(4) < (0.75 if vendor.padding else 0.25)
    return Exposure(
        scatter=float(rng.uniform(0.10, 0.2) if portable else rng.uniform(0.04, 0.12)),
        noise=float(rng.uniform(*vendor.noise) * (1.4 if portable else 1.0)),
        dark=float(rng.normal(0, 0.06)),
        bright=float(rng.normal(0, 0.07)),
        gamma=float(np.exp(rng.normal(0, 0.16))),
        shutters=tuple((closed * rng.uniform(3, 22, 4)).tolist()),
        marker=bool(rng.random() < 0.5),
        marker_place=(float(rng.uniform(0.07, 0.12)), float(rng.uniform(0.06, 0.2))),
        speed=(float(rng.uniform(0.85, 1.15)), float(rng.uniform(0.9, 1.1))),
    )


def lay_frame(thorax: Thorax, pose: Pose, rows: int, columns: int) -> Frame:
    """The film's pixels over the chest: scaled, tilted and off centre as the pose says."""
    pixels = min(rows, columns) / pose.field_mm
    tilt = np.radians(pose.tilt_deg)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    linear = pixels * turn @ np.diag(thorax.scale)
    middle = np.array([columns - 1, rows - 1]) / 2 + np.array(pose.offset_mm) * pixels
    return make_frame(np.column_stack([linear, middle - linear @ (0.0, MIDDLE_MM)]), rows, columns)


def expose(water_cm: Field, exposure: Exposure, vendor: Vendor, frame: Frame, rng: np.random.Generator) -> Field:
    """Grey [H, W] before any window: 0 is as dark and 1 as bright as the vendor's automatic window would show."""
    beam = np.exp(np.maximum(water_cm, 0) * np.float32(-WATER_PER_CM))
    beam = beam + np.float32(exposure.scatter) * haze_of(beam, 40 * frame.scale)
    beam = blur(beam, vendor.blur_mm * frame.scale)
    grain = rng.standard_normal(beam.shape, dtype=np.float32) * np.sqrt(beam) * np.float32(0.2 * exposure.noise)
    dense = -np.log(np.maximum(beam + blur(grain, 0.4), 1e-3))
    dense = dense - np.float32(vendor.flattening) * haze_of(dense, 30 * frame.scale)
    fine = dense - blur(dense, 2.2 * frame.scale)
    return _automatic(dense + np.float32(vendor.sharpening) * fine, exposure)


def _automatic(dense: Field, exposure: Exposure) -> Field:
    """The window that a unit's histogram analysis finds, and misses by a little."""
    rows, columns = dense.shape
    inner = dense[rows // 8 : -(rows // 8) or None : 2, columns // 8 : -(columns // 8) or None : 2]
    low, high = np.percentile(inner, (4, 98))
    width = max(float(high - low), 0.1)
    low, high = low + (exposure.dark - 0.24) * width, high + (exposure.bright + 0.06) * width
    grey = (dense - np.float32(low)) / np.float32(high - low)
    inside = np.clip(grey, 0, 1)
    return grey - inside + inside ** np.float32(exposure.gamma)  # type: ignore[no-any-return]


def hidden(exposure: Exposure, pose: Pose, rows: int, columns: int) -> NDArray[np.bool_]:
    """Where the shutters are closed [H, W]."""
    pixels = min(rows, columns) / pose.field_mm
    left, top, right, bottom = (round(mm * pixels) for mm in exposure.shutters)
    shut = np.ones((rows, columns), dtype=np.bool_)
    shut[top : rows - bottom, left : columns - right] = False
    return shut


def burn_marker(grey: Field, exposure: Exposure) -> None:
    """The lead letter that tells the sides apart, bright, in an upper corner of its own side; in place."""
    rows, columns = grey.shape
    across, down = exposure.marker_place
    size = max(rows, columns) / 256
    letter, x = ("R", across * columns) if exposure.marker else ("L", columns - across * columns - 10 * size)
    layer = np.zeros(grey.shape, dtype=np.uint8)
    place = (int(x), int(down * rows + 10 * size))
    cv2.putText(layer, letter, place, cv2.FONT_HERSHEY_DUPLEX, 0.5 * size, (255,), max(1, round(size)), cv2.LINE_AA)
    bright = layer.astype(np.float32) / 255
    grey += (1.05 - grey) * bright
