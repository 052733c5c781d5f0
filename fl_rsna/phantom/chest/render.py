"""Render one synthetic chest film: anatomy, findings, devices and exposure put together.

Devices are metal and plastic on and in the patient, in cm of water: sternal wires, pacemakers, ports, leads, tubes and
lines. Frame, beam, scatter, noise, processing and shutters turn cm of water into grey, and grey into stored values with
the tags that say how they are shown (DICOM PS3.3 C.7.6.3, C.8.11, C.11.1, C.11.2).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.anatomy import (
    CARINA_MM,
    Chest,
    Device,
    Pose,
    Thorax,
    View,
    draw_pose,
    draw_thorax,
    outline_chest,
)
from fl_rsna.phantom.chest.findings import Appearance, Box, draw_findings, lay_findings
from fl_rsna.phantom.chest.geometry import (
    Field,
    Frame,
    blur,
    fill,
    haze_of,
    make_frame,
    oval,
    share,
    smooth_line,
    stroke,
)
from fl_rsna.phantom.chest.tissue import draw_tree, lay_tissue
from fl_rsna.phantom.chest.vendors import DX, Curve, Vendor, draw_vendor
from fl_rsna.phantom.head.render import Purpose, generator

METAL_CM = 5.0  # of water where a layer is 255


def device_shadow(chest: Chest, frame: Frame, rng: np.random.Generator) -> Field:
    """Draw all devices of one film in cm of water [H, W]; `rng` draws where they lie this time."""
    layer = np.zeros(frame.shape, dtype=np.uint8)
    for device in sorted(chest.thorax.devices):
        match device:
            case Device.wires:
                x = 1.2 * chest.pose.twist_mm
                for number, y in enumerate(range(52, 190, 24)):
                    tilt = 2 * (-1) ** number
                    wire = smooth_line([(x - 7, y + tilt), (x, y - 4), (x + 7, y - tilt)])
                    stroke(layer, frame, [wire], 1.2, 200)
                    stroke(layer, frame, [oval(x, y + 2, 2.5, 2.5)], 1.2, 200)
            case Device.pacemaker:  # its box lies below the left clavicle, its leads end in the right heart
                layer[:] = np.maximum(layer, fill(frame, oval(108, 52, 23, 19, turn_deg=20)) // 10 * 8)
                for ends in ([(-18, 160), (-30, 176)], [(10, 200), (46, 216)]):
                    lead = smooth_line([(98, 40), (70, 8), (30, 16), (-14, 40), (-24, 100), *ends])
                    stroke(layer, frame, [lead], 1.2, 150)
                    stroke(layer, frame, [lead[-4:]], 2.0, 220)
            case Device.port:
                layer[:] = np.maximum(layer, fill(frame, oval(-96, 50, 12, 13)) // 10 * 6)
                stroke(layer, frame, [smooth_line([(-94, 40), (-60, 0), (-34, 6), (-23, 60), (-22, 122)])], 1.9, 120)
            case Device.tube:
                tip = CARINA_MM[1] - rng.uniform(20, 55)
                stroke(layer, frame, [smooth_line([(1, -130), (2, -40), (-2, tip)])], 9.0, 26)
                stroke(layer, frame, [smooth_line([(4, -130), (5, -40), (1, tip)])], 1.4, 110)
            case Device.line:
                end = rng.uniform(90, 135)
                path = [(-42, -110), (-36, -50), (-25, 10), (-22, 60), (-23, end)]
                stroke(layer, frame, [smooth_line(path)], 1.9, 110)
            case Device.leads:
                pass  # belong to a film, not to a patient
    if chest.pose.leads:  # three electrodes and the wires that leave the film
        for across, down, exit_mm in ((-118, 20, (-60, 420)), (118, 16, (70, 420)), (96, 236, (120, 420))):
            spot = np.array([across, down]) + rng.normal(0, 10, 2)
            stroke(layer, frame, [oval(spot[0], spot[1], 3.5, 3.5)], 3.0, 190)
            bend = spot + rng.normal((-0.2 * across, 70), (20, 20))
            stroke(layer, frame, [smooth_line([spot, bend, np.array(exit_mm) + rng.normal(0, 30, 2)])], 1.5, 130)
    return blur(share(layer), 0.3 * frame.scale) * np.float32(METAL_CM)


WATER_PER_CM = 0.19  # attenuation by water at chest energies, per cm
MIDDLE_MM = 130.0  # height in the template chest at which a well placed film is centred
Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]
SIGMOID_NARROW = 0.82  # factor of the width of a sigmoid window, whose ends are soft
TOE = 0.18  # how much the table's curve bends at either end


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """The way in which one film is taken and tuned.

    `scatter` is the share of stray beam. `dark` and `bright` say by how much of the range the automatic window misses
    at either end. `gamma` bends the grey. `shutters` says how many mm each side is closed (left, top, right, bottom).
    """

    scatter: float
    noise: float
    dark: float
    bright: float
    gamma: float
    shutters: tuple[float, float, float, float]
    marker: bool  # "R" on the patient's right, else "L" on the left
    marker_place: tuple[float, float]
    speed: tuple[float, float]  # factors of the begin and the width of the vendor's window


def draw_exposure(rng: np.random.Generator, vendor: Vendor, view: View) -> Exposure:
    """Draw how a film is exposed; AP films come from portable units, which have more scatter and noise."""
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
    """Lay the film's pixels over the chest: scaled, tilted and off centre as the pose says."""
    pixels = min(rows, columns) / pose.field_mm
    tilt = np.radians(pose.tilt_deg)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    linear = pixels * turn @ np.diag(thorax.scale)
    middle = np.array([columns - 1, rows - 1]) / 2 + np.array(pose.offset_mm) * pixels
    return make_frame(np.column_stack([linear, middle - linear @ (0.0, MIDDLE_MM)]), rows, columns)


def expose(water_cm: Field, exposure: Exposure, vendor: Vendor, frame: Frame, rng: np.random.Generator) -> Field:
    """Compute grey [H, W] before any window: 0 is as dark and 1 as bright as the vendor's automatic window would show."""
    beam = np.exp(np.maximum(water_cm, 0) * np.float32(-WATER_PER_CM))
    beam = beam + np.float32(exposure.scatter) * haze_of(beam, 40 * frame.scale)
    beam = blur(beam, vendor.blur_mm * frame.scale)
    grain = rng.standard_normal(beam.shape, dtype=np.float32) * np.sqrt(beam) * np.float32(0.2 * exposure.noise)
    dense = -np.log(np.maximum(beam + blur(grain, 0.4), 1e-3))
    dense = dense - np.float32(vendor.flattening) * haze_of(dense, 30 * frame.scale)
    fine = dense - blur(dense, 2.2 * frame.scale)
    dense = dense + np.float32(vendor.sharpening) * fine
    rows, columns = dense.shape  # a unit finds the window by its histogram, and misses it by a little
    inner = dense[rows // 8 : -(rows // 8) or None : 2, columns // 8 : -(columns // 8) or None : 2]
    low, high = np.percentile(inner, (4, 98))
    width = max(float(high - low), 0.1)
    low, high = low + (exposure.dark - 0.24) * width, high + (exposure.bright + 0.06) * width
    grey = (dense - np.float32(low)) / np.float32(high - low)
    inside = np.clip(grey, 0, 1)
    return grey - inside + inside ** np.float32(exposure.gamma)  # type: ignore[no-any-return]


def mask_shutters(exposure: Exposure, pose: Pose, rows: int, columns: int) -> NDArray[np.bool_]:
    """Find where the shutters are closed, bool [H, W]."""
    pixels = min(rows, columns) / pose.field_mm
    left, top, right, bottom = (round(mm * pixels) for mm in exposure.shutters)
    shut = np.ones((rows, columns), dtype=np.bool_)
    shut[top : rows - bottom, left : columns - right] = False
    return shut


def burn_marker(grey: Field, exposure: Exposure) -> None:
    """Burn the lead letter that tells the sides apart into `grey` in place, bright, in an upper corner of its own side."""
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
    """Compute the picture [H, W] as it is meant to be seen, 0 black to 1 white, from grey of the automatic window."""
    match vendor.curve:
        case Curve.sigmoid:
            return cast("Field", 1 / (1 + np.exp(np.clip((0.5 - grey) * np.float32(4 / SIGMOID_NARROW), -30, 30))))
        case Curve.table:
            return _bend(np.clip(grey, 0, 1))
        case Curve.unnamed | Curve.linear | Curve.exact | Curve.none:
            return np.clip(grey, 0, 1)


def hold(grey: Field, vendor: Vendor, speed: tuple[float, float], shut: NDArray[np.bool_]) -> Field:
    """Limit grey [H, W] to what the bit range can hold; closed shutters `shut` become its dark end.

    A vendor that pads has this end behind shutters only. `speed` multiplies the begin and the width of the vendor's
    window.
    """
    begin, width = _compute_grey_range(vendor, speed)
    if vendor.curve is Curve.none:
        return np.where(shut, np.float32(0), np.clip(grey, 0, 1))
    low, high = (vendor.lowest - begin) / width, (vendor.highest - begin) / width
    held = np.clip(grey, low + vendor.padding / width, high)
    return np.where(shut, np.float32(low), held).astype(np.float32)


def to_stored(grey: Field, vendor: Vendor, speed: tuple[float, float]) -> Stored:
    """Turn grey of the bit range into stored values [H, W] of the vendor's bit type; MONOCHROME1 values are inverted."""
    begin, width = _compute_grey_range(vendor, speed)
    values = np.rint(begin + grey * np.float32(width)).astype(np.int32)
    if vendor.inverted:
        values = vendor.lowest + vendor.highest - values
    if vendor.signed:
        return cast(Stored, values.astype(np.int16))
    return cast(Stored, values.astype(np.uint8 if vendor.bits == 8 else np.uint16))


def pixel_tags(vendor: Vendor, speed: tuple[float, float], shut: NDArray[np.bool_]) -> dict[str, object]:
    """Build the tags that turn stored values into the picture, by DICOM keyword."""
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
    return tags | _build_window_tags(vendor, speed)


def _compute_grey_range(vendor: Vendor, speed: tuple[float, float]) -> tuple[int, int]:
    """Compute the stored value at which grey is 0, and how many more it takes to 1, before any inversion."""
    steps = vendor.highest - vendor.lowest
    begin, width = vendor.base * speed[0], vendor.span * speed[1]
    if vendor.curve is Curve.none:
        begin, width = vendor.base, vendor.span
    return vendor.lowest + round(begin * steps), round(width * steps)


def _build_window_tags(vendor: Vendor, speed: tuple[float, float]) -> dict[str, object]:
    """Build the tags of the vendor's window or VOI table."""
    begin, width = _compute_grey_range(vendor, speed)
    if vendor.inverted:
        begin = vendor.lowest + vendor.highest - begin - width
    low, wide = begin * vendor.slope + vendor.intercept, width * vendor.slope
    match vendor.curve:
        case Curve.none:
            return {}
        case Curve.table:
            return {"VOILUTSequence": [_build_table(vendor, round(low), round(wide))]}
        case Curve.sigmoid:
            return _build_window(low + wide / 2, wide * SIGMOID_NARROW, vendor)
        case Curve.exact:
            return _build_window(low + wide / 2, wide, vendor)
        case Curve.unnamed | Curve.linear:
            # C.11.2.1.2.1: the first value shown black is centre - 0.5 - (width - 1) / 2
            return _build_window(low + wide / 2 + 0.5, wide + 1, vendor)


def _build_window(centre: float, width: float, vendor: Vendor) -> dict[str, object]:
    """Build the tags of one window, and of the vendor's second one."""
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


def _build_table(vendor: Vendor, first: int, width: int) -> dict[str, object]:
    """Build the item of a VOI table: a curve of `width` + 1 entries of 12 bits that begins at the value `first`."""
    grey = np.linspace(0, 1, width + 1, dtype=np.float32)
    bent = _bend(grey)
    if vendor.inverted:
        bent = 1 - bent[::-1]
    entries = np.rint(bent * 4095).astype("<u2")
    return {"LUTDescriptor": [width + 1, first, 12], "LUTExplanation": "NORMAL", "LUTData": entries.tobytes()}


def _bend(grey: Field) -> Field:
    """Bend grey 0..1 along an S with gentle ends."""
    smooth: Any = grey * grey * (3 - 2 * grey)
    return cast("Field", grey + np.float32(2.2 * TOE) * (smooth - grey))


AP_SHARE = 0.45
MIXTURE = (0.30, 0.35, 0.20, 0.15)  # of the appearances; SIIM's 6,054 studies: 0.277, 0.472, 0.173, 0.078
BLOCK = 20  # number of patients in a row that hold the mixture exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A rendered film.

    `picture` [H, W] is the film as it is meant to be seen, 0 black to 1 white (dense); `stored` [H, W] is what the file
    holds and `tags` say how to show it. `lungs` [2, H, W] are the patient's right and left lung, `heart` [H, W] is the
    heart, `opacity` [H, W] is where a lung is opaque; `boxes` enclose that in pixels.
    """

    picture: Field
    stored: Stored
    tags: dict[str, object]
    appearance: Appearance
    boxes: tuple[Box, ...]
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]
    opacity: NDArray[np.bool_]
    vendor: Vendor
    view: View
    female: bool


def appearance_of(seed: int, patient: int, study: int = 0) -> Appearance:
    """Draw the class of a study.

    Every BLOCK patients in a row hold MIXTURE in random order with their first studies; later studies are drawn freely.
    """
    if study:
        return Appearance(int(generator(seed, Purpose.findings, patient, study).choice(len(MIXTURE), p=MIXTURE)))
    counts = [round(share * BLOCK) for share in MIXTURE]
    order = generator(seed, Purpose.classes, patient // BLOCK).permutation(np.repeat(np.arange(len(MIXTURE)), counts))
    return Appearance(int(order[patient % BLOCK]))


def render_film(
    seed: int,
    patient: int,
    *,
    size: int = 256,
    study: int = 0,
    image: int = 0,
    vendor: Vendor | None = None,
    healthy: bool = False,
) -> Film:
    """Render film number `image` of a study of patient number `patient` in the cohort `seed`; `size` is its longer side in pixels.

    Another image shows the same findings in another pose; another study is of the same chest with findings of its own.
    `healthy` gives the very film as it would be without any finding. `vendor` replaces the one that is drawn.
    """
    patients = generator(seed, Purpose.anatomy, patient)
    thorax = draw_thorax(patients)
    trees = (draw_tree(patients, -1), draw_tree(patients, 1))
    studies = generator(seed, Purpose.scan, patient, study)
    drawn = draw_vendor(studies)
    used, view = vendor or drawn, View.ap if studies.random() < AP_SHARE else View.pa
    films = generator(seed, Purpose.film, patient, study << 4 | image)
    pose, exposure = draw_pose(films, view), draw_exposure(films, used, view)
    aspect = used.aspect[int(films.integers(len(used.aspect)))]
    rows, columns = (size, round(size * aspect)) if aspect <= 1 else (round(size / aspect), size)
    frame, chest = lay_frame(thorax, pose, rows, columns), outline_chest(thorax, pose)
    appearance = Appearance.negative if healthy else appearance_of(seed, patient, study)
    noise = generator(seed, Purpose.noise, patient, study << 4 | image)
    tissue = lay_tissue(chest, trees, frame, noise)
    findings = draw_findings(generator(seed, Purpose.findings, patient, study + 1), appearance)
    disease = lay_findings(findings, chest, tissue, trees, frame)
    water = tissue.solid + tissue.vessels * disease.kept + disease.water_cm + device_shadow(chest, frame, noise)
    grey = expose(water, exposure, used, frame, noise)
    burn_marker(grey, exposure)
    shut = mask_shutters(exposure, pose, rows, columns)
    grey = hold(grey, used, exposure.speed, shut)
    spacing = f"{pose.field_mm / min(rows, columns):.6f}"
    return Film(
        picture=show(grey, used),
        stored=to_stored(grey, used, exposure.speed),
        tags=pixel_tags(used, exposure.speed, shut) | {"ImagerPixelSpacing": [spacing] * 2},
        appearance=appearance,
        boxes=disease.boxes,
        lungs=tissue.lungs > 0.5,
        heart=tissue.heart,
        opacity=disease.opacity,
        vendor=used,
        view=view,
        female=thorax.female,
    )
