"""Contact sheets: which slices stand for many, and how each becomes a small picture with a caption."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.choices import ImageKind
from fl_rsna.imaging.store import Image, fit_square, read_png
from fl_rsna.imaging.windows import HU_OFFSET, WINDOWS_HU, window
from fl_rsna.learning.noisy import Scan, unchanged
from fl_rsna.learning.seeds import derive_seed

TILE = 160  # pixels a side
QUALITY = 82  # of the JPEGs
BOX_RGB = (230, 159, 0)  # orange of Okabe and Ito
NO_LABEL = "none"


class View(StrEnum):
    """What a tile shows of a stored image."""

    brain = "brain"
    subdural = "subdural"
    soft_tissue = "soft tissue"
    bone = "bone"  # HU images only: the stored windows end below it
    stored = "stored RGB"  # the three windows as red, green and blue
    grey = "grey"  # of a radiograph


CHANNELS = (View.brain, View.subdural, View.soft_tissue)  # in the order of WINDOWS_HU and of a windows image
VIEWS_HU = {**dict(zip(CHANNELS, WINDOWS_HU, strict=True)), View.bone: (600.0, 2800.0)}  # (centre, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One slice drawn small; `uri` holds the whole JPEG."""

    image_id: str
    uri: str
    caption: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Tiles that belong together."""

    name: str
    note: str
    tiles: tuple[Tile, ...]


def views(kind: ImageKind) -> tuple[View, ...]:
    """Every view of such an image; the first is the one a sheet of labels shows."""
    match kind:
        case ImageKind.hu:
            return tuple(VIEWS_HU)
        case ImageKind.windows:
            return (View.stored, *CHANNELS)
        case ImageKind.grey:
            return (View.grey,)


def spread(index: pd.DataFrame, where: NDArray[np.bool_], count: int, purpose: str) -> list[int]:
    """Up to `count` places in `index` where `where` holds, of as many patients as there are, lowest slice first.

    Drawn by `purpose` alone: the same table gives the same places.
    """
    places = np.random.default_rng(derive_seed(0, "contact sheet", purpose)).permutation(np.flatnonzero(where))
    seen = pd.Series(index["patient_id"].array[places]).duplicated().to_numpy()
    picked = np.concatenate([places[~seen], places[seen]])[:count]
    return _by_position(index, picked)


def evenly(index: pd.DataFrame, values: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` places in `index` from the least to the greatest of `values`, at equal steps of rank."""
    order = np.argsort(values, kind="stable")
    return list(order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))])


def draw(images: Path, row: Mapping[str, Any], view: View, *, boxed: bool = False, scan: Scan = unchanged) -> str:
    """The slice of an index row, as `scan` shows it, as a JPEG data URI, TILE pixels a side; `boxed` draws the head's box on it."""
    image = scan(read_png(images / f"{row['image_id']}.png"), row)
    tile = seen_as(image, view)
    return as_uri(with_box(tile, row) if boxed else tile)


def seen_as(image: Image, view: View, side: int = TILE) -> NDArray[np.uint8]:
    """Stored uint16 [H, W] or uint8 [H, W, 3] -> uint8 [side, side], or [side, side, 3] for the stored view."""
    small = fit_square(image, side)
    if view is View.grey:
        return (small >> 8).astype(np.uint8)
    if small.ndim == 2:
        return window(small.astype(np.float64) - HU_OFFSET, *VIEWS_HU[view])
    chosen = small if view is View.stored else small[..., CHANNELS.index(view)]
    return np.ascontiguousarray(chosen, dtype=np.uint8)


def with_box(tile: NDArray[np.uint8], row: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The tile in colour with the box crop_top.. of the slice before it was padded to a square and resized."""
    side, scale = max(row["rows"], row["columns"]), len(tile) / max(row["rows"], row["columns"])
    down, right = (side - row["rows"]) // 2, (side - row["columns"]) // 2
    first = (round((row["crop_left"] + right) * scale), round((row["crop_top"] + down) * scale))
    last = (round((row["crop_right"] + right) * scale) - 1, round((row["crop_bottom"] + down) * scale) - 1)
    coloured = np.ascontiguousarray(np.stack([tile] * 3, axis=2) if tile.ndim == 2 else tile)
    cv2.rectangle(coloured, first, last, BOX_RGB, 2)
    return coloured


def as_uri(tile: NDArray[np.uint8]) -> str:
    """uint8 [H, W] or RGB [H, W, 3] as a JPEG data URI; the same bytes for the same tile."""
    pixels = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR) if tile.ndim == 3 else tile
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV encodes every 8-bit array"
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def described(row: Mapping[str, Any]) -> str:
    """A caption: place in the series and mean brain HU, as far as the index has them."""
    place, brain = row.get("relative_position"), row.get("brain_hu_mean")
    facts = [f"{place:.2f}"] if place is not None and place == place else []
    return " · ".join(facts + ([f"{brain:.0f} HU"] if brain is not None and brain == brain else []))


def _by_position(index: pd.DataFrame, places: NDArray[np.integer]) -> list[int]:
    rows = index.iloc[places].assign(place=places)
    order = [name for name in ("relative_position", "image_id") if name in rows]
    return [int(place) for place in rows.sort_values(order)["place"]]
