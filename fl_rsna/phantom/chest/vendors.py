"""Define the makes of X-ray unit: the kind of file each writes, how it stores and windows grey, and how its films look.

The names are invented. Every case of the standard's tables that a reader must know has a vendor: both photometrics,
four kinds of window and none at all, 8 to 16 bits, signed, rescaled and padded pixels (DICOM PS3.3 C.7.6.3, C.11.1,
C.11.2).
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"  # storage classes; DX is for presentation


class Curve(StrEnum):
    """The way in which values of interest become grey (C.11.2)."""

    unnamed = "unnamed"  # LINEAR by default, without VOILUTFunction
    linear = "LINEAR"
    exact = "LINEAR_EXACT"
    sigmoid = "SIGMOID"
    table = "table"  # VOILUTSequence
    none = "none"  # no window in the header: the viewer must find one


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One make of unit: how it stores and processes films; ranges are (low, high).

    `inverted` films are MONOCHROME1. `slope` and `intercept` are the Modality LUT's. The window begins at about `base`
    and is about `span` wide, as shares of the bit range. `padding` fills what the shutters hide. `aspect` is columns by
    rows.
    """

    name: str
    storage: str
    bits: int
    signed: bool = False
    inverted: bool
    curve: Curve
    slope: float = 1.0
    intercept: float = 0.0
    base: float
    span: float
    padding: bool = False
    second_window: bool = False
    aspect: tuple[float, ...]
    blur_mm: float
    noise: tuple[float, float]
    sharpening: float
    flattening: float

    @property
    def lowest(self) -> int:
        """The smallest stored value."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest stored value."""
        return self.lowest + (1 << self.bits) - 1

    @property
    def modality(self) -> str:
        """The value of Modality: CR or DX."""
        return "CR" if self.storage == CR else "DX"


VENDORS = (
    Vendor(
        name="alder",
        storage=DX,
        bits=12,
        inverted=False,
        curve=Curve.unnamed,
        second_window=True,
        base=0.16,
        span=0.56,
        aspect=(0.83, 1.0),
        blur_mm=0.35,
        noise=(0.010, 0.018),
        sharpening=0.35,
        flattening=0.24,
    ),
    Vendor(
        name="birch",
        storage=CR,
        bits=10,
        inverted=True,
        curve=Curve.linear,
        base=0.12,
        span=0.66,
        aspect=(0.81, 1.23),
        blur_mm=0.8,
        noise=(0.016, 0.030),
        sharpening=0.14,
        flattening=0.10,
    ),
    Vendor(
        name="cedar",
        storage=DX,
        bits=14,
        inverted=False,
        curve=Curve.sigmoid,
        base=0.2,
        span=0.5,
        aspect=(1.0,),
        blur_mm=0.3,
        noise=(0.009, 0.016),
        sharpening=0.24,
        flattening=0.16,
    ),
    Vendor(
        name="dogwood",
        storage=CR,
        bits=12,
        inverted=True,
        curve=Curve.table,
        base=0.18,
        span=0.6,
        aspect=(0.83, 1.2),
        blur_mm=0.7,
        noise=(0.014, 0.026),
        sharpening=0.21,
        flattening=0.16,
    ),
    Vendor(
        name="elm",
        storage=CR,
        bits=16,
        signed=True,
        inverted=False,
        curve=Curve.exact,
        slope=0.25,
        intercept=8192.0,
        base=0.25,
        span=0.4,
        aspect=(0.83, 1.0),
        blur_mm=0.55,
        noise=(0.012, 0.022),
        sharpening=0.32,
        flattening=0.28,
    ),
    Vendor(
        name="fir",
        storage=CR,
        bits=8,
        inverted=False,
        curve=Curve.none,
        base=0.04,
        span=0.92,
        aspect=(0.86, 1.0),
        blur_mm=0.7,
        noise=(0.014, 0.026),
        sharpening=0.14,
        flattening=0.20,
    ),
    Vendor(
        name="gorse",
        storage=DX,
        bits=14,
        inverted=True,
        curve=Curve.linear,
        base=0.14,
        span=0.6,
        padding=True,
        aspect=(1.0, 1.2),
        blur_mm=0.4,
        noise=(0.010, 0.020),
        sharpening=0.28,
        flattening=0.22,
    ),
)
VENDOR_SHARES = (0.20, 0.15, 0.16, 0.13, 0.12, 0.10, 0.14)


def draw_vendor(rng: np.random.Generator) -> Vendor:
    """Draw a vendor by its share of the market."""
    return VENDORS[int(rng.choice(len(VENDORS), p=VENDOR_SHARES))]
