"""Every row of a sheet shows slices that belong there, and says how many there are."""

from pathlib import Path

import numpy as np
import pytest
from pictures import pixels_of
from tiny import tiny_prepared

from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.reporting.images.contact_sheets import (
    TILES_A_ROW,
    Row,
    Tile,
    box_sheet,
    height_sheet,
    label_sheet,
    noise_sheet,
    site_row,
    window_sheet,
)
from fl_rsna.reporting.record.wording import format_count
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

LABELS = list(ICH.labels)
SPECIFIC = list(ICH.specific_labels)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """18 patients of 4 slices; those with a label have a bright square."""
    return tiny_prepared(tmp_path_factory.mktemp("sheets") / "tiny")


def brightest(tile: Tile) -> int:
    """Grey in the middle of the square that blood is, in the brain window."""
    return int(pixels_of(tile.uri)[60:80, 60:80].mean())


def sheet_of(prepared: Prepared) -> list[Row]:
    return label_sheet(prepared.index, prepared.folder / "images", prepared.image, LABELS, SPECIFIC)


def test_a_row_each_label_and_one_of_none(prepared: Prepared) -> None:
    rows = sheet_of(prepared)
    assert [row.name for row in rows] == [*LABELS, "none"]
    by_id = prepared.index.set_index("image_id")
    for row in rows:
        ids = [tile.image_id for tile in row.tiles]
        has = by_id.loc[ids, row.name] == 1 if row.name != "none" else by_id.loc[ids, LABELS].max(axis=1) == 0
        assert has.all()
        assert row.note == format_count(int(by_id[row.name].sum() if row.name != "none" else 72 - 30), "slice")
        assert len(ids) == min(TILES_A_ROW, 30 if row.name == "any" else 42 if row.name == "none" else 6)


def test_tiles_show_what_their_row_says(prepared: Prepared) -> None:
    for row in sheet_of(prepared):
        for tile in row.tiles:
            assert (brightest(tile) > 180) == (row.name != "none")


def test_captions_name_the_other_labels(prepared: Prepared) -> None:
    rows = {row.name: row for row in sheet_of(prepared)}
    assert all(tile.labels == () for tile in rows["epidural"].tiles)
    assert all(len(tile.labels) == 1 and tile.labels[0] in SPECIFIC for tile in rows["any"].tiles)


def test_a_label_nobody_has_keeps_its_row(prepared: Prepared) -> None:
    index = prepared.index.assign(epidural=0)
    rows = label_sheet(index, prepared.folder / "images", prepared.image, LABELS, SPECIFIC)
    empty = next(row for row in rows if row.name == "epidural")
    assert (empty.tiles, empty.note) == ((), "0 slices")


def test_without_labels_rows_are_heights(prepared: Prepared) -> None:
    rows = height_sheet(prepared.index.drop(columns=LABELS), prepared.folder / "images", prepared.image)
    assert [row.note for row in rows] == ["18 slices", "18 slices", "0 slices", "18 slices", "18 slices"]
    assert all(tile.image_id.endswith("s3") for tile in rows[0].tiles)  # the highest of four
    assert all(tile.image_id.endswith("s0") for tile in rows[-1].tiles)


def test_windows_show_the_same_slices(prepared: Prepared, tmp_path: Path) -> None:
    rows = window_sheet(prepared.index, prepared.folder / "images", prepared.image, SPECIFIC)
    assert [row.name for row in rows] == ["brain", "subdural", "soft tissue", "bone"]
    assert [row.note for row in rows][:2] == ["0 to 80 HU", "−20 to 180 HU"]
    assert len({tuple(tile.image_id for tile in row.tiles) for row in rows}) == 1
    assert all(tile.labels for tile in rows[0].tiles)  # with findings, as there are some
    colours = tiny_prepared(tmp_path / "rgb", image=ImageKind.windows, patients=6)
    names = [row.name for row in window_sheet(colours.index, colours.folder / "images", colours.image, ())]
    assert names == ["stored RGB", "brain", "subdural", "soft tissue"]


def test_noise_and_boxes_only_where_the_index_has_them(prepared: Prepared) -> None:
    images, kind = prepared.folder / "images", prepared.image
    assert noise_sheet(prepared.index, images, kind) == []
    assert box_sheet(prepared.index, images, kind) == []
    noisy = prepared.index.assign(noise=prepared.index["image_id"] == "p03s1")
    [row] = noise_sheet(noisy, images, kind)
    assert [tile.image_id for tile in row.tiles] == ["p03s1"]
    right = np.linspace(8, 32, len(noisy)).astype(int)  # from a quarter of the slice to all of it
    boxed = noisy.assign(crop_top=0, crop_left=0, crop_bottom=32, crop_right=right, rows=32, columns=32)
    [row] = box_sheet(boxed, images, kind)
    assert (row.tiles[0].caption, row.tiles[-1].caption) == ("25%", "100%")
    assert row.tiles[0].image_id == "p00s0"


def test_a_sites_row_has_a_cell_each_label(prepared: Prepared) -> None:
    index = prepared.index[prepared.index["patient_id"].isin(["p00", "p05"])]  # one epidural, one without findings
    row = site_row("site-1", index, prepared.folder / "images", prepared.image, LABELS)
    counts = {cell["label"]: cell["slices"] for cell in row["cells"]}
    assert counts == {**dict.fromkeys(LABELS, 0), "any": 2, "epidural": 2, "none": 6}
    assert {cell["label"] for cell in row["cells"] if cell["uri"]} == {"any", "epidural", "none"}


def test_a_site_of_positives_alone_keeps_the_cell_of_none(prepared: Prepared) -> None:
    index = prepared.index[prepared.index["any"] == 1]
    row = site_row("site-1", index, prepared.folder / "images", prepared.image, LABELS)
    assert (row["cells"][-1]["label"], row["cells"][-1]["slices"], row["cells"][-1]["uri"]) == ("none", 0, None)


def test_counts_are_spoken() -> None:
    assert [format_count(1, "slice"), format_count(1200, "slice"), format_count(2, "series")] == [
        "1 slice",
        "1,200 slices",
        "2 series",
    ]
