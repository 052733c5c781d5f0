"""The contact sheets of the pages: by label, by height, by window, with the head's box, and by site and label."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.choices import ImageKind
from fl_rsna.learning.noisy import Scan, unchanged
from fl_rsna.reporting.contact import NO_LABEL, VIEWS_HU, Row, Tile, View, described, draw, evenly, spread, views
from fl_rsna.reporting.task_words import counted

TILES_A_ROW = 8
BOX_COLUMNS = ("crop_top", "crop_left", "crop_bottom", "crop_right", "rows", "columns")
BOXED = {ImageKind.hu: View.soft_tissue, ImageKind.windows: View.soft_tissue, ImageKind.grey: View.grey}
FIFTHS = ("lowest fifth", "second fifth", "middle fifth", "fourth fifth", "highest fifth")


def label_sheet(
    index: pd.DataFrame,
    images: Path,
    kind: ImageKind,
    labels: Sequence[str],
    specific: Sequence[str],
    picture: str = "slice",
) -> list[Row]:
    """A row each label and one of pictures with none, if there are; captions name the other `specific` labels of one."""
    rows = []
    for label, where in _with_each(index, labels):
        if label == NO_LABEL and not where.any():
            continue
        others = [other for other in specific if other != label]
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, label), images, views(kind)[0], others)
        rows.append(Row(name=label, note=counted(int(where.sum()), picture), tiles=tiles))
    return rows


def height_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """A row each fifth of the height of a series, the highest first: what there is to see without labels."""
    fifth = np.clip((index["relative_position"].to_numpy() * 5).astype(int), 0, 4)
    rows = []
    for number, name in reversed(list(enumerate(FIFTHS))):
        where = fifth == number
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, name), images, views(kind)[0], ())
        rows.append(Row(name=name, note=counted(int(where.sum()), "slice"), tiles=tiles))
    return rows


def view_sheet(index: pd.DataFrame, images: Path, kind: ImageKind, picture: str) -> list[Row]:
    """The same of films, which have no height: a row each view that their headers state, the commonest first."""
    named = index["view"].replace("", "not stated")
    rows = []
    for name in named.value_counts().index:
        where = (named == name).to_numpy()
        tiles = _tiles(index, spread(index, where, TILES_A_ROW, name), images, views(kind)[0], ())
        rows.append(Row(name=name, note=counted(int(where.sum()), picture), tiles=tiles))
    return rows


def window_sheet(index: pd.DataFrame, images: Path, kind: ImageKind, labels: Sequence[str]) -> list[Row]:
    """A row a window: the same few slices in each of them, with findings where there are any, named in the first row."""
    found = (index[list(labels)].max(axis=1) == 1).to_numpy() if labels else np.ones(len(index), bool)
    chosen = spread(index, found if found.any() else ~found, TILES_A_ROW, "windows")
    rows: list[Row] = []
    for view in views(kind):
        tiles = _tiles(index, chosen, images, view, labels if not rows else (), captioned=not rows)
        rows.append(Row(name=view.value, note=_range(view), tiles=tiles))
    return rows


def noise_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """Slices that training leaves out because they show no brain; no row without any."""
    noise = index["noise"].to_numpy(bool) if "noise" in index else np.zeros(len(index), bool)
    tiles = _tiles(index, spread(index, noise, TILES_A_ROW, "noise"), images, views(kind)[0], ())
    return [Row(name="noise", note=counted(int(noise.sum()), "slice"), tiles=tiles)] if tiles else []


def box_sheet(index: pd.DataFrame, images: Path, kind: ImageKind) -> list[Row]:
    """The head's box on slices from the smallest box to the largest; no row when the index has none."""
    if not set(BOX_COLUMNS) <= set(index.columns):
        return []
    top, left, bottom, right, rows, columns = (index[name].to_numpy(np.float64) for name in BOX_COLUMNS)
    share = (bottom - top) * (right - left) / (rows * columns)
    tiles = []
    for place in evenly(index, share, TILES_A_ROW):
        row = _row(index, place)
        uri = draw(images, row, BOXED[kind], boxed=True)
        tiles.append(Tile(image_id=row["image_id"], uri=uri, caption=f"{share[place]:.0%} of it"))
    return [Row(name="box", note="smallest to largest", tiles=tuple(tiles))]


def site_row(
    name: str, index: pd.DataFrame, images: Path, kind: ImageKind, labels: Sequence[str], scan: Scan = unchanged
) -> dict[str, Any]:
    """One slice of a site, as its scanner shows it, for each label and for none, with how many it has: a row of a matrix."""
    cells = []
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
    scan: Scan = unchanged,
) -> tuple[Tile, ...]:
    tiles = []
    for row in (_row(index, place) for place in places):
        found = tuple(label for label in labels if row[label] == 1)
        uri = draw(images, row, view, scan=scan)
        tiles.append(Tile(image_id=row["image_id"], uri=uri, caption=described(row) if captioned else "", labels=found))
    return tuple(tiles)


def _row(index: pd.DataFrame, place: int) -> Mapping[str, Any]:
    return {str(name): value for name, value in index.iloc[place].items()}


def _range(view: View) -> str:
    match view:
        case View.stored | View.grey:
            return "as training reads it"
        case _:
            centre, width = VIEWS_HU[view]
            return f"{centre - width / 2:g} to {centre + width / 2:g} HU".replace("-", "−")
