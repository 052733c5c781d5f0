"""The film: frame, beam, scatter, noise, processing and shutters turn cm of water into grey, and grey into stored values with their tags.

The tags say how stored values are shown (DICOM PS3.3 C.7.6.3, C.8.11, C.11.1, C.11.2).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.anatomy import Pose, Thorax, View
from fl_rsna.phantom.chest.geometry import Field, Frame, blur, haze_of, make_frame
from fl_rsna.phantom.chest.vendors import DX, Curve, Vendor

WATER_PER_CM = 0.19  # attenuation at chest energies
MIDDLE_MM = 130.0  # of the template chest, where a well placed film is centred
Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]
SIGMOID_NARROW = 0.82  # its window is set tighter, as its ends are soft
TOE = 0.18  # how far the table's curve bends at either end


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


def mask_shutters(exposure: Exposure, pose: Pose, rows: int, columns: int) -> NDArray[np.bool_]:
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


def show(grey: Field, vendor: Vendor) -> Field:
    """The picture [H, W] as it is meant to be seen, 0 black to 1 white, of grey as the automatic window finds it."""
    match vendor.curve:
        case Curve.sigmoid:
            return cast("Field", 1 / (1 + np.exp(np.clip((0.5 - grey) * np.float32(4 / SIGMOID_NARROW), -30, 30))))
        case Curve.table:
            return _bend(np.clip(grey, 0, 1))
        case Curve.unnamed | Curve.linear | Curve.exact | Curve.none:
            return np.clip(grey, 0, 1)


def hold(grey: Field, vendor: Vendor, speed: tuple[float, float], shut: NDArray[np.bool_]) -> Field:
    """What of the grey [H, W] the bit range can hold; behind `shut` shutters is its dark end, and only there if it pads.

    `speed` is what the vendor's begin and width of the window are multiplied with.
    """
    begin, width = _compute_grey_range(vendor, speed)
    if vendor.curve is Curve.none:
        return np.where(shut, np.float32(0), np.clip(grey, 0, 1))
    low, high = (vendor.lowest - begin) / width, (vendor.highest - begin) / width
    held = np.clip(grey, low + vendor.padding / width, high)
    return np.where(shut, np.float32(low), held).astype(np.float32)


def to_stored(grey: Field, vendor: Vendor, speed: tuple[float, float]) -> Stored:
    """Held grey as stored values [H, W] in the vendor's bit type; a MONOCHROME1 film is its twin turned over."""
    begin, width = _compute_grey_range(vendor, speed)
    values = np.rint(begin + grey * np.float32(width)).astype(np.int32)
    if vendor.inverted:
        values = vendor.lowest + vendor.highest - values
    if vendor.signed:
        return cast(Stored, values.astype(np.int16))
    return cast(Stored, values.astype(np.uint8 if vendor.bits == 8 else np.uint16))


def pixel_tags(vendor: Vendor, speed: tuple[float, float], shut: NDArray[np.bool_]) -> dict[str, object]:
    """What a reader needs to turn stored values into the picture, by DICOM keyword."""
    tags: dict[str, object] = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if vendor.inverted else "MONOCHROME2",
        "BitsAllocated": 8 if vendor.bits == 8 else 16,
        "BitsStored": vendor.bits,
        "HighBit": vendor.bits - 1,
        "PixelRepresentation": int(vendor.signed),
    }
    if vendor.padding and shut.any():
        tags["PixelPaddingValue"] = vendor.highest if vendor.inverted else vendor.lowest
    if vendor.storage == DX:
        tags |= {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1 if vendor.inverted else -1}
        tags |= {"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}
        tags |= {"PresentationLUTShape": "INVERSE" if vendor.inverted else "IDENTITY"}
    elif (vendor.slope, vendor.intercept) != (1.0, 0.0):
        tags |= {"RescaleIntercept": f"{vendor.intercept:g}", "RescaleSlope": f"{vendor.slope:g}", "RescaleType": "US"}
    return tags | _window_tags(vendor, speed)


def _compute_grey_range(vendor: Vendor, speed: tuple[float, float]) -> tuple[int, int]:
    """The stored values at which grey is 0, and how many more it takes to 1, before any turning over."""
    steps = vendor.highest - vendor.lowest
    begin, width = vendor.base * speed[0], vendor.span * speed[1]
    if vendor.curve is Curve.none:
        begin, width = vendor.base, vendor.span
    return vendor.lowest + round(begin * steps), round(width * steps)


def _window_tags(vendor: Vendor, speed: tuple[float, float]) -> dict[str, object]:
    begin, width = _compute_grey_range(vendor, speed)
    if vendor.inverted:
        begin = vendor.lowest + vendor.highest - begin - width
    low, wide = begin * vendor.slope + vendor.intercept, width * vendor.slope
    match vendor.curve:
        case Curve.none:
            return {}
        case Curve.table:
            return {"VOILUTSequence": [_table(vendor, round(low), round(wide))]}
        case Curve.sigmoid:
            return _window(low + wide / 2, wide * SIGMOID_NARROW, vendor)
        case Curve.exact:
            return _window(low + wide / 2, wide, vendor)
        case (
            Curve.unnamed | Curve.linear
        ):  # C.11.2.1.2.1: the first value shown black is centre - 0.5 - (width - 1) / 2
            return _window(low + wide / 2 + 0.5, wide + 1, vendor)


def _window(centre: float, width: float, vendor: Vendor) -> dict[str, object]:
    tags: dict[str, object] = {"WindowCenter": f"{centre:.10g}", "WindowWidth": f"{width:.10g}"}
    if vendor.second_window:  # the first is the one to show
        tags = {
            "WindowCenter": [f"{centre:.10g}", f"{centre * 1.1:.10g}"],
            "WindowWidth": [f"{width:.10g}", f"{width * 0.7:.10g}"],
        }
        tags["WindowCenterWidthExplanation"] = ["NORMAL", "HARDER"]
    if vendor.curve is not Curve.unnamed:
        tags["VOILUTFunction"] = vendor.curve.value
    return tags


def _table(vendor: Vendor, first: int, width: int) -> dict[str, object]:
    """A curve of `width` + 1 entries of 12 bits that begins at the value `first`."""
    grey = np.linspace(0, 1, width + 1, dtype=np.float32)
    bent = _bend(grey)
    if vendor.inverted:
        bent = 1 - bent[::-1]
    entries = np.rint(bent * 4095).astype("<u2")
    return {"LUTDescriptor": [width + 1, first, 12], "LUTExplanation": "NORMAL", "LUTData": entries.tobytes()}


def _bend(grey: Field) -> Field:
    """An S of gentle ends."""
    smooth: Any = grey * grey * (3 - 2 * grey)
    return cast("Field", grey + np.float32(2.2 * TOE) * (smooth - grey))
