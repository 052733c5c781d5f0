"""Grey becomes stored values and the tags that say how to show them (DICOM PS3.3 C.7.6.3, C.8.11, C.11.1, C.11.2)."""

from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.phantom_chest_shapes import Field
from fl_rsna.imaging.phantom_chest_vendors import DX, Curve, Vendor

Stored: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]

TABLE_LENGTH = 1024
SIGMOID_NARROW = 0.82  # its window is set tighter, as its ends are soft
TOE = 0.18  # how far the table's curve bends at either end


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
    begin, width = _stored_window(vendor, speed)
    if vendor.curve is Curve.none:
        return np.where(shut, np.float32(0), np.clip(grey, 0, 1))
    low, high = (vendor.lowest - begin) / width, (vendor.highest - begin) / width
    held = np.clip(grey, low + vendor.padding / width, high)
    return np.where(shut, np.float32(low), held).astype(np.float32)


def to_stored(grey: Field, vendor: Vendor, speed: tuple[float, float]) -> Stored:
    """Held grey as stored values [H, W] in the vendor's bit type; a MONOCHROME1 film is its twin turned over."""
    begin, width = _stored_window(vendor, speed)
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


def _stored_window(vendor: Vendor, speed: tuple[float, float]) -> tuple[int, int]:
    """The stored values at which grey is 0, and how many more it takes to 1, before any turning over."""
    steps = vendor.highest - vendor.lowest
    begin, width = vendor.base * speed[0], vendor.span * speed[1]
    if vendor.curve is Curve.none:
        begin, width = vendor.base, vendor.span
    return vendor.lowest + round(begin * steps), round(width * steps)


def _window_tags(vendor: Vendor, speed: tuple[float, float]) -> dict[str, object]:
    begin, width = _stored_window(vendor, speed)
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
