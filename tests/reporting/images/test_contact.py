"""Tiles show the right slice, in the right window, and are chosen from many patients."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pictures import pixels_of

from fl_rsna.imaging.png_store import write_png
from fl_rsna.reporting.images.contact_sheets import (
    BOX_RGB,
    CHANNELS,
    TILE,
    View,
    as_uri,
    draw,
    evenly,
    format_caption,
    render_view,
    spread,
    views,
    with_box,
)
from fl_rsna.settings.data import ImageKind


def hu_image(hu: float, size: int = 32) -> NDArray[np.uint16]:
    return np.full((size, size), hu + 1024, np.uint16)


@pytest.mark.parametrize(
    ("view", "grey_of_40_hu"),
    [(View.brain, 127), (View.subdural, 76), (View.soft_tissue, 127), (View.bone, 76)],  # (40 - low) * 255 / width
)
def test_hu_are_seen_through_their_window(view: View, grey_of_40_hu: int) -> None:
    assert np.all(render_view(hu_image(40), view) == grey_of_40_hu)
    assert np.all(render_view(hu_image(-1024), view) == 0)
    assert np.all(render_view(hu_image(3071), view) == 255)


def test_each_channel_of_a_windows_image_is_seen_alone() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (10, 20, 30)
    assert [int(render_view(image, view)[0, 0]) for view in CHANNELS] == [10, 20, 30]
    assert np.array_equal(render_view(image, View.stored), np.broadcast_to((10, 20, 30), (TILE, TILE, 3)))


def test_every_kind_of_image_has_views_that_draw() -> None:
    assert all(render_view(hu_image(0), view).shape == (TILE, TILE) for view in views(ImageKind.hu))
    rgb = np.zeros((8, 8, 3), np.uint8)
    assert [render_view(rgb, view).ndim for view in views(ImageKind.windows)] == [3, 2, 2, 2]


def test_colours_survive_the_jpeg() -> None:
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[:] = (200, 60, 20)
    assert np.abs(pixels_of(as_uri(tile)).astype(int) - (200, 60, 20)).max() <= 4
    assert as_uri(tile) == as_uri(tile.copy())


def test_the_tile_is_the_rows_own_slice(tmp_path: Path) -> None:
    for name, hu in (("dark", 0.0), ("bright", 80.0)):
        write_png(tmp_path / f"{name}.png", hu_image(hu))
    assert pixels_of(draw(tmp_path, {"image_id": "dark"}, View.brain)).max() <= 2
    assert pixels_of(draw(tmp_path, {"image_id": "bright"}, View.brain)).min() >= 253


def test_the_box_lies_where_the_unpadded_slice_had_it() -> None:
    """A slice of TILE x TILE/2 pixels is padded by TILE/4 left and right and not resized."""
    quarter = TILE // 4
    row = {"rows": TILE, "columns": TILE // 2, "crop_top": 20, "crop_left": 10, "crop_bottom": 60, "crop_right": 40}
    tile = np.zeros((TILE, TILE), np.uint8)
    boxed = with_box(tile, row)
    orange = (boxed == BOX_RGB).all(axis=2)
    assert orange[20, quarter + 10 : quarter + 40].all()
    assert orange[59, quarter + 10 : quarter + 40].all()
    assert orange[20:60, quarter + 10].all()
    assert orange[20:60, quarter + 39].all()
    assert not orange[25:55, quarter + 15 : quarter + 35].any()
    assert not orange[:15].any()
    assert not orange[65:].any()
    assert not tile.any()


def test_the_box_is_scaled_with_the_slice() -> None:
    row = {"rows": 512, "columns": 512, "crop_top": 0, "crop_left": 256, "crop_bottom": 512, "crop_right": 512}
    orange = (with_box(np.zeros((TILE, TILE), np.uint8), row) == BOX_RGB).all(axis=2)
    assert orange[:, TILE // 2].all()
    assert orange[:, TILE - 1].all()
    assert not orange[:, : TILE // 2 - 2].any()


def many(patients: int = 5, slices: int = 40) -> pd.DataFrame:
    rows = [
        {"image_id": f"p{patient}s{rank:02d}", "patient_id": f"p{patient}", "relative_position": rank / (slices - 1)}
        for patient in range(patients)
        for rank in range(slices)
    ]
    return pd.DataFrame(rows)


def test_one_slice_of_every_patient_comes_before_a_second_of_any() -> None:
    index = many()
    everywhere = np.ones(len(index), bool)
    assert sorted(index["patient_id"].iloc[spread(index, everywhere, 5, "x")]) == ["p0", "p1", "p2", "p3", "p4"]
    eight = index.iloc[spread(index, everywhere, 8, "x")]
    assert eight["patient_id"].nunique() == 5
    assert eight["image_id"].is_unique
    assert eight["relative_position"].is_monotonic_increasing


def test_only_what_is_asked_for_is_chosen_and_always_the_same() -> None:
    index = many()
    low = (index["relative_position"] < 0.2).to_numpy()
    chosen = spread(index, low, 6, "low")
    assert low[chosen].all()
    assert chosen == spread(index, low, 6, "low")
    assert chosen != spread(index, low, 6, "another row")
    assert spread(index, np.zeros(len(index), bool), 6, "nothing") == []
    assert sorted(spread(index, np.arange(len(index)) < 3, 6, "few")) == [0, 1, 2]


def test_evenly_goes_from_the_least_to_the_greatest() -> None:
    values = np.array([5.0, 3, 8, 1, 9, 2, 7, 4, 6])
    assert list(values[evenly(values, 3)]) == [1, 5, 9]
    assert len(evenly(values, 20)) == 9
    assert evenly(values[:0], 3) == []


def test_a_caption_says_what_is_known() -> None:
    assert format_caption({"relative_position": 0.516, "brain_hu_mean": 33.6}) == "0.52 · 34 HU"
    assert format_caption({"relative_position": 0.5, "brain_hu_mean": float("nan")}) == "0.50"
    assert format_caption({}) == ""
