"""Draw the contact sheets of the pages: rows of small pictures by label, height, view, window, box, or site and label.

A sheet shows a few of many slices, each as a small picture with a caption.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.common.seeds import derive_seed
from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET, WINDOWS_HU, window
from fl_rsna.imaging.png_store import Image, fit_square, read_png
from fl_rsna.learning.data.site_noise import Scan, keep_image
from fl_rsna.reporting.record.wording import format_count
from fl_rsna.settings.data import ImageKind

TILE = 160  # pixels a side
QUALITY = 82  # of the JPEGs, out of 100
BOX_RGB = (230, 159, 0)  # orange of Okabe and Ito
NO_LABEL = "none"
TILES_A_ROW = 8
BOX_COLUMNS = ("crop_top", "crop_left", "crop_bottom", "crop_right", "rows", "columns")
FIFTHS = ("lowest fifth", "second fifth", "middle fifth", "fourth fifth", "highest fifth")


class View(StrEnum):
    """A rendering of a stored image: one window of it, its stored colours, or the whole film."""

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
    """A slice as a small picture; `uri` holds the whole JPEG."""

    image_id: str
    uri: str
    caption: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a contact sheet: its name, a note on what it shows, and its tiles."""

    name: str
    note: str
    tiles: tuple[Tile, ...]


class SiteCell(TypedDict):
    """A cell of the matrix of sites and labels: one slice as a JPEG data URI, and how many such slices the site has."""

    uri: str | None
    label: str
    slices: int


class SiteRow(TypedDict):
    """A site's row of the matrix of sites and labels: its slices, a cell for each label, and one for slices without labels."""

    site: str
    slices: int
    cells: list[SiteCell]


def views(kind: ImageKind) -> tuple[View, ...]:
    """List the views of a kind of image; a sheet that shows one view shows the first."""
    match kind:
        case ImageKind.hu:
            return tuple(VIEWS_HU)
        case ImageKind.windows:
            return (View.stored, *CHANNELS)
        case ImageKind.grey:
            return (View.grey,)


def spread(index: pd.DataFrame, where: NDArray[np.bool_], count: int, purpose: str) -> list[int]:
    """Choose at random up to `count` positions of rows of `index` where `where` [N] holds, of as many patients as possible.

    They are ordered by height, the lowest slice first. The choice depends on `purpose` and the table alone.
    """
    places = np.random.default_rng(derive_seed(0, "contact sheet", purpose)).permutation(np.flatnonzero(where))
    seen = pd.Series(index["patient_id"].array[places]).duplicated().to_numpy()
    picked = np.concatenate([places[~seen], places[seen]])[:count]
    rows = index.iloc[picked].assign(place=picked)
    order = [name for name in ("relative_position", "image_id") if name in rows]
    return [int(place) for place in rows.sort_values(order)["place"]]


def evenly(values: NDArray[np.float64], count: int) -> list[int]:
    """Select up to `count` positions in `values` [N], from the least value to the greatest, at equal steps of rank."""
    order = np.argsort(values, kind="stable")
    return list(order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))])


def draw(images: Path, row: Mapping[str, Any], view: View, *, boxed: bool = False, scan: Scan = keep_image) -> str:
    """Draw the slice of an index row, as `scan` shows it, as a JPEG data URI of TILE pixels a side; `boxed` adds the head's box."""
    image = scan(read_png(images / f"{row['image_id']}.png"), row)
    tile = render_view(image, view)
    return as_uri(with_box(tile, row) if boxed else tile)


def render_view(image: Image, view: View, side: int = TILE) -> NDArray[np.uint8]:
    """Render a stored image, uint16 [H, W] or uint8 [H, W, 3], as uint8 [side, side], or [side, side, 3] for the stored view."""
    small = fit_square(image, side)
    if view is View.grey:
        return (small >> 8).astype(np.uint8)
    if small.ndim == 2:
        return window(small.astype(np.float64) - HU_OFFSET, *VIEWS_HU[view])
    chosen = small if view is View.stored else small[..., CHANNELS.index(view)]
    return np.ascontiguousarray(chosen, dtype=np.uint8)


def with_box(tile: NDArray[np.uint8], row: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Draw the box of an index row on its tile, uint8 [S, S] or [S, S, 3], and return the tile in colour, [S, S, 3].

    The columns crop_top, crop_left, crop_bottom and crop_right are in pixels of the slice before it was padded and resized.
    """
    side, scale = max(row["rows"], row["columns"]), len(tile) / max(row["rows"], row["columns"])
    down, right = (side - row["rows"]) // 2, (side - row["columns"]) // 2
    first = (round((row["crop_left"] + right) * scale), round((row["crop_top"] + down) * scale))
    last = (round((row["crop_right"] + right) * scale) - 1, round((row["crop_bottom"] + down) * scale) - 1)
    coloured = np.ascontiguousarray(np.stack([tile] * 3, axis=2) if tile.ndim == 2 else tile)
    cv2.rectangle(coloured, first, last, BOX_RGB, 2)
    return coloured


def as_uri(tile: NDArray[np.uint8]) -> str:
    """Encode uint8 [H, W] or RGB [H, W, 3] as a JPEG data URI; the same tile gives the same bytes."""
    pixels = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR) if tile.ndim == 3 else tile
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV encodes every 8-bit array"
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def format_caption(row: Mapping[str, Any]) -> str:
    """Format the place of an index row in its series, 0 to 1, and its mean brain HU, as far as the index has them."""
    place, brain = row.get("relative_position"), row.get("brain_hu_mean")
    facts = [f"{place:.2f}"] if place is not None and place == place else []
    return " · ".join(facts + ([f"{brain:.0f} HU"] if brain is not None and brain == brain else []))


BOXED = {ImageKind.hu: View.soft_tissue, ImageKind.windows: View.soft_tissue, ImageKind.grey: View.grey}


def label_sheet(
    index: pd.DataFrame,
    images: Path,
    kind: ImageKind,
    labels: Sequence[str],
    specific: Sequence[str],
    picture: str = "slice",
) -> list[Row]:
    """Draw a row for each label and, where there are any, one for pictures without labels.

    A tile names those of the `specific` labels that its picture has beside the row's label.
    """
    rows = []
    for label, where in _with_each(index, labels):
        if label == NO_LABEL and not where.any():
            continue
        others = [other for other in specific if other != label]
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, label), images, views(kind)[0], others)
        rows.append(Row(name=label, note=format_count(int(where.sum()), picture), tiles=tiles))
    return rows


def height_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """Draw a row for each fifth of the height of a series, the highest first, for slices without labels."""
    fifth = np.clip((index["relative_position"].to_numpy() * 5).astype(int), 0, 4)
    rows = []
    for number, name in reversed(list(enumerate(FIFTHS))):
        where = fifth == number
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, name), images, views(kind)[0], ())
        rows.append(Row(name=name, note=format_count(int(where.sum()), "slice"), tiles=tiles))
    return rows


def view_sheet(index: pd.DataFrame, images: Path, kind: ImageKind, picture: str) -> list[Row]:
    """Draw a row for each view that the headers of films state, the commonest first, for films without labels."""
    named = index["view"].replace("", "not stated")
    rows = []
    for name in named.value_counts().index:
        where = (named == name).to_numpy()
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, name), images, views(kind)[0], ())
        rows.append(Row(name=name, note=format_count(int(where.sum()), picture), tiles=tiles))
    return rows


def window_sheet(index: pd.DataFrame, images: Path, kind: ImageKind, labels: Sequence[str]) -> list[Row]:
    """Draw a row for each window, with the same few slices in each.

    The slices have findings where any slice has; the first row names the findings.
    """
    found = (index[list(labels)].max(axis=1) == 1).to_numpy() if labels else np.ones(len(index), bool)
    chosen = spread(index, found if found.any() else ~found, TILES_A_ROW, "windows")
    rows: list[Row] = []
    for view in views(kind):
        tiles = _tiles(index, chosen, images, view, labels if not rows else (), captioned=not rows)
        note = "as training reads it"
        if view in VIEWS_HU:
            centre, width = VIEWS_HU[view]
            note = f"{centre - width / 2:g} to {centre + width / 2:g} HU".replace("-", "−")
        rows.append(Row(name=view.value, note=note, tiles=tiles))
    return rows


def noise_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """Draw a row of slices that training leaves out because they show no brain; no row where there are none."""
    noise = index["noise"].to_numpy(bool) if "noise" in index else np.zeros(len(index), bool)
    tiles = _tiles(index, spread(index, noise, TILES_A_ROW, "noise"), images, views(kind)[0], ())
    return [Row(name="noise", note=format_count(int(noise.sum()), "slice"), tiles=tiles)] if tiles else []


def box_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """Draw the head's box on slices, from the smallest box to the largest; no row where the index has no boxes."""
    if not set(BOX_COLUMNS) <= set(index.columns):
        return []
    top, left, bottom, right, rows, columns = (index[name].to_numpy(np.float64) for name in BOX_COLUMNS)
    share = (bottom - top) * (right - left) / (rows * columns)
    tiles = []
    for place in evenly(share, TILES_A_ROW):
        row = _row(index, place)
        uri = draw(images, row, BOXED[kind], boxed=True)
        tiles.append(Tile(image_id=row["image_id"], uri=uri, caption=f"{share[place]:.0%}"))
    return [Row(name="box", note="smallest to largest", tiles=tuple(tiles))]


def site_row(
    name: str, index: pd.DataFrame, images: Path, kind: ImageKind, labels: Sequence[str], scan: Scan = keep_image
) -> SiteRow:
    """Draw one slice of a site for each label and one without labels, as `scan` shows them, and count the slices of each."""
    cells: list[SiteCell] = []
    for label, where in _with_each(index, labels):
        tiles = _tiles(index, spread(index, where, 1, f"{name} {label}"), images, views(kind)[0], (), scan=scan)
        cells.append({"uri": tiles[0].uri if tiles else None, "label": label, "slices": int(where.sum())})
    return {"site": name, "slices": len(index), "cells": cells}


def _with_each(index: pd.DataFrame, labels: Sequence[str]) -> Iterable[tuple[str, NDArray[np.bool_]]]:
    yield from ((label, (index[label] == 1).to_numpy()) for label in labels)
    yield NO_LABEL, (index[list(labels)].max(axis=1) == 0).to_numpy()


def _tiles(
    index: pd.DataFrame,
    places: Iterable[int],
    images: Path,
    view: View,
    labels: Sequence[str],
    *,
    captioned: bool = True,
    scan: Scan = keep_image,
) -> tuple[Tile, ...]:
    tiles = []
    for row in (_row(index, place) for place in places):
        found = tuple(label for label in labels if row[label] == 1)
        uri = draw(images, row, view, scan=scan)
        tiles.append(
            Tile(image_id=row["image_id"], uri=uri, caption=format_caption(row) if captioned else "", labels=found)
        )
    return tuple(tiles)


def _row(index: pd.DataFrame, place: int) -> Mapping[str, Any]:
    return {str(name): value for name, value in index.iloc[place].items()}
