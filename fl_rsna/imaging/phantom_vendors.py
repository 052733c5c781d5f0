"""Makes of scanner: how they store pixels, what their headers say, and how their pictures differ.

Bit types, intercepts, padding and window tags are the common ones of RSNA's 2019 files; the names are invented.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Rest(StrEnum):
    """What the head lies in."""

    cradle = "cradle"
    trough = "trough"
    plates = "plates"
    flat = "flat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How one make of scanner stores and sharpens; ranges are (low, high)."""

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
        """Whether negative HU are stored modulo 4096: 12 unsigned bits without an intercept to lift them."""
        return self.bits == 12 and not self.signed and self.intercept == 0


_TWICE = ("00040", "00040"), ("00080", "00080")
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
VENDOR_SHARES = (0.26, 0.30, 0.16, 0.14, 0.08, 0.06)
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
    """A vendor by its share of the market."""
    return VENDORS[int(rng.choice(len(VENDORS), p=VENDOR_SHARES))]
