"""Simulate the scanner: where the slices lie, blur, noise, streaks, headrest and stored values, and the makes of
scanner that differ in these.

Bit types, intercepts, padding and window tags are the common ones of RSNA's 2019 files; the names are invented.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN
from fl_rsna.phantom.head.anatomy import Anatomy
from fl_rsna.phantom.head.geometry import Field, sheet

_TWICE = ("00040", "00040"), ("00080", "00080")
VENDOR_SHARES = (0.26, 0.30, 0.16, 0.14, 0.08, 0.06)
Stored = NDArray[np.int16] | NDArray[np.uint16]
AIR_HU = -1000.0
WRAP_ABOVE = 3000  # a value from here on cannot be told from a negative one that is wrapped
BEAM_SIDE, BEAM_ANGLES = 52, 36  # pixels a side of the coarse grid, and directions, on which streaks are made


class Rest(StrEnum):
    """The shape of the headrest."""

    cradle = "cradle"
    trough = "trough"
    plates = "plates"
    flat = "flat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One make of scanner: how it stores, sharpens and places slices; ranges are (low, high)."""

    name: str
    bits: int
    signed: bool
    intercept: int
    padding: int | None  # stored value outside the reconstructed circle
    windows: tuple[tuple[str, ...], tuple[str, ...]]  # WindowCenter, WindowWidth as written in the header
    field_mm: tuple[float, float]
    tilt_deg: tuple[float, float]
    noise_hu: tuple[float, float]  # at 256 pixels a side
    blur_mm: float
    sharpening: float
    rest: Rest

    @property
    def wraps(self) -> bool:
        """Tell whether negative HU are stored modulo 4096: 12 unsigned bits, and no intercept that makes them positive."""
        return self.bits == 12 and not self.signed and self.intercept == 0


VENDORS = (
    Vendor(
        name="north",
        bits=16,
        signed=True,
        intercept=-1024,
        padding=-2000,
        windows=(("30",), ("80",)),
        field_mm=(250, 250),
        tilt_deg=(6, 20),
        noise_hu=(2.2, 3.6),
        blur_mm=0.65,
        sharpening=0.0,
        rest=Rest.plates,
    ),
    Vendor(
        name="east",
        bits=12,
        signed=False,
        intercept=-1024,
        padding=None,
        windows=(("00036", "00036"), _TWICE[1]),
        field_mm=(212, 250),
        tilt_deg=(0, 0),
        noise_hu=(1.8, 3.0),
        blur_mm=0.85,
        sharpening=0.0,
        rest=Rest.cradle,
    ),
    Vendor(
        name="south",
        bits=16,
        signed=True,
        intercept=-1024,
        padding=None,
        windows=(("40",), ("150",)),
        field_mm=(250, 250),
        tilt_deg=(4, 14),
        noise_hu=(3.6, 5.2),
        blur_mm=0.5,
        sharpening=0.25,
        rest=Rest.plates,
    ),
    Vendor(
        name="west",
        bits=12,
        signed=False,
        intercept=-1024,
        padding=None,
        windows=_TWICE,
        field_mm=(218, 245),
        tilt_deg=(0, 16),
        noise_hu=(2.4, 3.8),
        blur_mm=0.6,
        sharpening=0.12,
        rest=Rest.flat,
    ),
    Vendor(
        name="island",
        bits=12,
        signed=False,
        intercept=-1000,
        padding=None,
        windows=(("35",), ("100",)),
        field_mm=(220, 240),
        tilt_deg=(0, 8),
        noise_hu=(2.6, 4.2),
        blur_mm=0.75,
        sharpening=0.0,
        rest=Rest.trough,
    ),
    Vendor(
        name="coast",
        bits=16,
        signed=True,
        intercept=0,
        padding=-2000,
        windows=(("35",), ("135",)),
        field_mm=(226, 253),
        tilt_deg=(0, 0),
        noise_hu=(2.4, 4.0),
        blur_mm=0.6,
        sharpening=0.18,
        rest=Rest.cradle,
    ),
)
WRAPPED = Vendor(
    name="wrapped",
    bits=12,
    signed=False,
    intercept=0,
    padding=None,
    windows=_TWICE,
    field_mm=(230, 250),
    tilt_deg=(0, 0),
    noise_hu=(2.4, 4.0),
    blur_mm=0.7,
    sharpening=0.0,
    rest=Rest.cradle,
)


def draw_vendor(rng: np.random.Generator) -> Vendor:
    """Draw a vendor by its share of the market."""
    return VENDORS[int(rng.choice(len(VENDORS), p=VENDOR_SHARES))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One series: its vendor, geometry and settings.

    `positions_mm` [Z, 3] and `orientation` [6] are ImagePositionPatient and ImageOrientationPatient, base first.
    `to_head` [3, 3] and `head_mm` [3] turn scanner mm into head coordinates: to_head @ (point - head_mm).
    """

    vendor: Vendor
    size: int
    spacing_mm: float
    positions_mm: NDArray[np.float64]
    orientation: NDArray[np.float64]
    to_head: NDArray[np.float64]
    head_mm: NDArray[np.float64]
    noise_hu: float
    offset_hu: float
    gain: float
    streaks: float
    moved: NDArray[np.float64]  # [Z] mm the head moved during the slice


def draw_scan(rng: np.random.Generator, anatomy: Anatomy, *, size: int, slices: int, vendor: Vendor) -> Scan:
    """Draw a random series of about `slices` slices over one head."""
    count = max(1, slices + int(rng.integers(-(slices // 8), slices // 8 + 1)))
    tilt, nod, turn, lean = np.radians(
        [rng.uniform(*vendor.tilt_deg), rng.normal(0, 4.5), rng.normal(0, 3.5), rng.normal(0, 2.5)]
    )
    orientation = np.array([1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)])
    turned = _make_rotation(-tilt + nod, 0) @ _make_rotation(lean, 1) @ _make_rotation(turn, 2)
    to_head = np.diag(1 / np.array(anatomy.scale)) @ turned.T
    field_mm = max(rng.uniform(*vendor.field_mm), min(vendor.field_mm[1], 214 * anatomy.scale[1]))
    spacing_mm = round(field_mm / size, 6)
    table_mm = rng.uniform(-250, 400)
    bottom, top = rng.uniform(-45, -14), rng.uniform(96, 114)
    centers = np.zeros((count, 3))
    centers[:, 2] = table_mm + np.linspace(bottom, top, count) * anatomy.scale[2]
    corner = 0.5 * (size - 1) * spacing_mm * (orientation[:3] + orientation[3:])
    middle = np.array([rng.normal(0, 4), rng.normal(3, 5), table_mm]) + np.sin(tilt) * np.array([0, 0, 1.0])
    moves = rng.normal(0, 1.6, count) * (rng.random(count) < 0.2) * (rng.random() < 0.12)
    return Scan(
        vendor=vendor,
        size=size,
        spacing_mm=spacing_mm,
        positions_mm=np.round(centers - corner, 6),
        orientation=orientation,
        to_head=to_head,
        head_mm=middle,
        noise_hu=float(rng.uniform(*vendor.noise_hu)),
        offset_hu=float(rng.normal(0, 2)),
        gain=float(rng.normal(1, 0.015)),
        streaks=float(rng.lognormal(0, 0.4)),
        moved=moves,
    )


def lay_headrest(scan: Scan, height: float) -> Field:
    """Compute the HU [size, size] of air and headrest at `height` 0..1 of the series, before the head is laid in."""
    half = (scan.size - 1) / 2
    mm = (np.arange(scan.size, dtype=np.float32) - np.float32(half)) * np.float32(scan.spacing_mm)
    x, y = mm[None, :], mm[:, None]
    hu = np.full((scan.size, scan.size), AIR_HU, dtype=np.float32)
    blur = max(0.7, 0.8 * scan.spacing_mm)
    match scan.vendor.rest:
        case Rest.cradle:
            arc = np.hypot(x, y + 40) - 158
            hu += sheet(arc, 2.6, blur) * (np.abs(x) < 112) * (y > 20) * 1080
        case Rest.trough:
            arc = np.where(y > 16, np.hypot(x, (y - 16) * 1.05) - 97, np.abs(x) - 97)
            hu += sheet(arc.astype(np.float32), 1.0, blur) * (y > -28) * 1150
        case Rest.plates:
            bow = np.abs(x) - 101 + 0.0018 * (y - 50) ** 2
            hu += sheet(bow, 0.9, blur) * (np.abs(y - 38) < 26 - 60 * (0.5 - abs(height - 0.5)) + 22) * 1250
        case Rest.flat:
            hu += sheet(y - 101 - 0.0004 * x * x, 2.0, blur) * (np.abs(x) < 72) * 850
    return hu


def expose(hu: Field, scan: Scan, rng: np.random.Generator, index: int) -> Field:
    """Compute what the scanner makes of the true densities [H, W]: motion, streaks, blur, noise and calibration.

    The texture of the noise is that of the vendor's kernel.
    """
    if moved := float(scan.moved[index]) / scan.spacing_mm:
        shift = np.array([[1, 0, moved], [0, 1, 0.6 * moved]], dtype=np.float32)
        hu = 0.55 * hu + 0.45 * cv2.warpAffine(hu, shift, hu.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    hu = hu + streaks_hu(hu, scan, rng)
    sigma = scan.vendor.blur_mm / scan.spacing_mm
    soft = cv2.GaussianBlur(hu, (0, 0), sigma)
    if scan.vendor.sharpening:
        soft = soft + scan.vendor.sharpening * (soft - cv2.GaussianBlur(soft, (0, 0), 1.5 * sigma))
    white = rng.standard_normal((scan.size, scan.size), dtype=np.float32)
    grain = np.asarray(cv2.GaussianBlur(white, (0, 0), 0.45 if scan.vendor.sharpening else 0.8), dtype=np.float32)
    grain *= scan.noise_hu * min(1.5, (scan.size / 256) ** 0.7) / float(grain.std())
    return np.asarray((soft + grain) * scan.gain + scan.offset_hu, dtype=np.float32)


def streaks_hu(hu: Field, scan: Scan, rng: np.random.Generator) -> Field:
    """Compute streaks in HU [H, W] by a coarse filtered back projection: beam hardening between bones, and noise of
    rays that much bone weakens.
    """
    coarse = cv2.resize(hu, (BEAM_SIDE, BEAM_SIDE), interpolation=cv2.INTER_AREA)
    bone = np.maximum(coarse - 120, 0).ravel() / 1000
    bins, count = _list_rays()
    rays = np.bincount(bins, weights=np.tile(bone, BEAM_ANGLES), minlength=BEAM_ANGLES * count)
    paths = rays.reshape(BEAM_ANGLES, count) * (scan.spacing_mm * scan.size / BEAM_SIDE / 10)
    error = -0.30 * paths**2 + rng.standard_normal(paths.shape) * 0.07 * paths**1.5
    filtered = 0.5 * error - 0.25 * (np.roll(error, 1, axis=1) + np.roll(error, -1, axis=1))
    image = filtered.ravel()[bins].reshape(BEAM_ANGLES, -1).sum(axis=0) * (scan.streaks * 9 / BEAM_ANGLES)
    image = image.reshape(BEAM_SIDE, BEAM_SIDE).astype(np.float32)
    return np.asarray(cv2.resize(image, (scan.size, scan.size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def to_stored(hu: Field, vendor: Vendor) -> Stored:
    """Turn HU into stored values [H, W] of the vendor's bit type; a vendor that wraps keeps them modulo 4096."""
    highest = WRAP_ABOVE - 1 if vendor.wraps else HU_MAX
    values = np.rint(np.clip(hu, HU_MIN, highest)).astype(np.int32) - vendor.intercept
    if vendor.wraps:
        return (values & 4095).astype(np.uint16)
    if vendor.padding is not None:
        across = np.arange(len(hu)) - (len(hu) - 1) / 2
        values[across[None, :] ** 2 + across[:, None] ** 2 > (len(hu) / 2) ** 2] = vendor.padding
    return values.astype(np.int16) if vendor.signed else np.maximum(values, 0).astype(np.uint16)


@lru_cache(maxsize=1)
def _list_rays() -> tuple[NDArray[np.int64], int]:
    """List the ray on which each coarse pixel lies, for every direction, and return it with the number of rays per direction."""
    across = np.arange(BEAM_SIDE) - (BEAM_SIDE - 1) / 2
    x, y = np.meshgrid(across, across)
    angles = np.arange(BEAM_ANGLES) * np.pi / BEAM_ANGLES
    count = int(np.ceil(BEAM_SIDE * 1.45))
    offsets = np.outer(np.cos(angles), x.ravel()) + np.outer(np.sin(angles), y.ravel())
    rays = np.rint(offsets + count / 2).astype(np.int64) + np.arange(BEAM_ANGLES)[:, None] * count
    return rays.ravel(), count


def _make_rotation(angle: float, axis: int) -> NDArray[np.float64]:
    """Return the 3 x 3 matrix of a rotation by `angle` (radians) around axis 0, 1 or 2."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix
