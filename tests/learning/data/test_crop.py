"""The square around a series' head, a film's lungs or what readers marked: never a guess."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import SIZE, tiny_prepared

from fl_rsna.cohort.sites.own_site import write_own_site
from fl_rsna.imaging.png_store import fit_square, read_png
from fl_rsna.learning.data.crop import WHOLE, Square, cut, squares, uncut
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.settings.model import Crop
from fl_rsna.task import ICH


def boxed(boxes: list[tuple[float, float, float, float]], *, rows: int = 100, columns: int = 100, **more: object):  # type: ignore[no-untyped-def]
    """One series with these boxes (top, left, bottom, right) in slices full of brain."""
    table = pd.DataFrame(boxes, columns=["crop_top", "crop_left", "crop_bottom", "crop_right"])
    facts = {"patient_id": "p", "series_id": "s", "rows": rows, "columns": columns, "brain_share": 0.3, **more}
    return table.assign(**facts)


def test_the_union_of_the_boxes_made_square_with_a_margin() -> None:
    """Rows 20 to 60 and columns 30 to 50: 40 high, 41.6 with margins, around (40, 40)."""
    found = squares(boxed([(20, 30, 50, 50), (25, 35, 60, 45)]), Crop.head)
    assert len(set(found)) == 1
    assert (found[0].top, found[0].left, found[0].side) == pytest.approx((0.192, 0.192, 0.416))


def test_a_head_at_the_edge_keeps_its_square_inside_the_image() -> None:
    [found] = squares(boxed([(0, 60, 40, 100)]), Crop.head)
    assert (found.top, found.left, found.side) == pytest.approx((0, 0.584, 0.416))


def test_a_slice_that_was_padded_to_a_square() -> None:
    """50 rows of 100 columns lie 25 rows down in the stored image."""
    [found] = squares(boxed([(0, 30, 40, 70)], rows=50), Crop.head)
    assert (found.top, found.left, found.side) == pytest.approx((0.242, 0.292, 0.416))


def test_slices_above_the_head_do_not_undo_the_crop() -> None:
    """A box of the whole image says that no head was found, unless there is brain on the slice."""
    boxes = [(30.0, 30.0, 70.0, 70.0), (0.0, 0.0, 100.0, 100.0)]
    assert squares(boxed(boxes, brain_share=[0.3, 0.001]), Crop.head)[0].side == pytest.approx(0.416)
    assert squares(boxed(boxes, brain_share=[0.3, 0.3]), Crop.head) == [WHOLE] * 2


@pytest.mark.parametrize(
    "boxes",
    [
        [(0, 0, 100, 100)],
        [(50, 50, 50, 60)],
        [(60, 50, 50, 60)],
        [(-5, 0, 90, 90)],
        [(0, 0, 120, 90)],
        [(float("nan"),) * 4],
        [(40, 40, 50, 50)],  # no head is so small
        [(1, 1, 99, 99)],  # with its margin more than the image
    ],
)
def test_an_empty_or_impossible_box_keeps_the_whole_image(boxes: list[tuple[float, float, float, float]]) -> None:
    assert squares(boxed(boxes), Crop.head) == [WHOLE]


def test_each_series_has_its_own_and_no_crop_is_whole() -> None:
    table = pd.concat([boxed([(20, 20, 60, 60)]), boxed([(30, 30, 90, 90)], series_id="t")], ignore_index=True)
    assert [square.side for square in squares(table, Crop.head)] == pytest.approx([0.416, 0.624])
    assert squares(table, Crop.none) == [WHOLE, WHOLE]


def test_an_index_without_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.crop: expected the heads' boxes"):
        squares(pd.DataFrame({"patient_id": ["p"], "series_id": ["s"]}), Crop.head)
    with pytest.raises(ValueError, match=r"^model\.crop: expected the lungs' boxes in index\.csv, got no crop_top"):
        squares(pd.DataFrame({"rows": [8], "columns": [8]}), Crop.lungs)
    with pytest.raises(
        ValueError, match=r"^model\.crop: expected the ground-truth column boxes .*; say model\.crop=lungs"
    ):
        squares(boxed([(20, 20, 60, 60)]), Crop.boxes_leaky)


def test_lungs_are_cut_like_heads_but_each_film_has_its_own() -> None:
    """Two films of one series; no share of brain is needed, for there is none to see."""
    films = boxed([(20, 30, 60, 50), (30, 30, 90, 90)]).drop(columns="brain_share")
    first, second = squares(films, Crop.lungs)
    assert (first.top, first.left, first.side) == pytest.approx((0.192, 0.192, 0.416))
    assert second.side == pytest.approx(0.624)
    one, other = (boxed([box]) for box in ((20.0, 30.0, 60.0, 50.0), (30.0, 30.0, 90.0, 90.0)))
    assert [first, second] == squares(one, Crop.head) + squares(other, Crop.head)


def test_a_film_without_lungs_keeps_the_whole_image() -> None:
    boxes = [(0.0, 0.0, 100.0, 100.0), (40.0, 40.0, 50.0, 50.0), (float("nan"),) * 4, (20.0, 20.0, 60.0, 60.0)]
    found = squares(boxed(boxes, brain_share=[0.3] * 4), Crop.lungs)
    assert found[:3] == [WHOLE] * 3
    assert found[3].side == pytest.approx(0.416)


def marked(*cells: str, rows: int = 100, columns: int = 100) -> pd.DataFrame:
    """One film a cell of the column `boxes`; of an index that has no box of the lungs."""
    ids = [f"film-{number}" for number in range(len(cells))]
    return pd.DataFrame({"image_id": ids, "boxes": cells, "rows": rows, "columns": columns})


def test_ground_truth_boxes_decide_the_leaky_crop() -> None:
    """Boxes at x 30 to 50, y 20 to 40 and x 40 to 50, y 30 to 60: 40 high, 41.6 with margins, around (40, 40)."""
    found = squares(marked("[[30, 20, 20, 20], [40, 30, 10, 30]]", "[]", "[[10, 10, 5, 5]]"), Crop.boxes_leaky)
    assert (found[0].top, found[0].left, found[0].side) == pytest.approx((0.192, 0.192, 0.416))
    assert found[1] == WHOLE  # that there is nothing to cut out says what the label is
    assert (found[2].top, found[2].left, found[2].side) == pytest.approx((0.099, 0.099, 0.052))


def test_a_ground_truth_box_is_cut_at_the_edge_and_padded_like_the_image() -> None:
    """Of 50 rows, which lie 25 rows down in the stored image; 10 columns lie left of it, 20 rows below it."""
    [found] = squares(marked("[[-10, 10, 50, 60]]", rows=50), Crop.boxes_leaky)
    assert (found.top, found.left, found.side) == pytest.approx((0.342, 0, 0.416))


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("[[100, 10, 5, 5]]", "a box that reaches into the image of 100 x 100 pixels"),
        ("[[10, 10, 0, 5]]", "a width and a height above 0"),
        ("10 10 5 5", "a JSON list"),
        (float("nan"), "a JSON list"),
    ],
)
def test_a_ground_truth_box_that_cannot_be_is_refused_with_its_film(cell: str, why: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.crop: expected {why}.* for image film-1 in the column boxes"):
        squares(marked("[]", cell), Crop.boxes_leaky)


def test_only_one_crop_shows_the_truth() -> None:
    assert [crop for crop in Crop if crop.shows_truth] == [Crop.boxes_leaky]


def test_cut_and_laid_back() -> None:
    image, square = np.arange(100, dtype=np.uint16).reshape(10, 10), Square(0.2, 0.3, 0.5)
    assert (cut(image, square) == image[2:7, 3:8]).all()
    laid = uncut(np.ones((10, 10), np.float32), square)
    assert (laid[2:7, 3:8] == 1).all()
    assert laid.sum() == 25
    assert cut(image, WHOLE) is image


@pytest.mark.parametrize("size", [7, 31, 256])
def test_a_cut_holds_its_square_and_lies_inside(size: int) -> None:
    for share in np.linspace(0, 0.5, 11):
        top, left, side = Square(float(share), 0.5, 0.5).pixels(size)
        assert 0 <= top <= share * size + 1e-9
        assert 0 <= left <= size - side
        assert top + side <= size
        assert top + side >= (share + 0.5) * size - 1e-3
        assert side < size / 2 + 3


def test_a_site_without_ground_truth_is_refused_and_one_with_it_is_packed(tmp_path: Path) -> None:
    """index.csv keeps the column, and a box of [8, 24) in both ways is the same square for every crop."""
    prepared = tiny_prepared(tmp_path / "prepared", patients=8)
    write_own_site(tmp_path / "own", prepared, ICH, "unmarked", validation=0.25, seed=0)
    with pytest.raises(ValueError, match=r"^model\.crop: expected the ground-truth column boxes"):
        open_site(tmp_path / "own" / "unmarked", image_size=16, crop=Crop.boxes_leaky)
    box = {"crop_top": 8, "crop_left": 8, "crop_bottom": 24, "crop_right": 24, "rows": SIZE, "columns": SIZE}
    cells = ["[[8, 8, 16, 16]]", *["[]"] * (len(prepared.index) - 1)]
    index = prepared.index.assign(**box, boxes=cells)
    write_own_site(tmp_path / "own", replace(prepared, index=index), ICH, "here", validation=0.25, seed=0)
    folder = tmp_path / "own" / "here"
    plain, lungs, leaky = (
        open_site(folder, image_size=16, crop=crop) for crop in (Crop.none, Crop.lungs, Crop.boxes_leaky)
    )
    assert len(list((folder / "packed").iterdir())) == 3
    is_marked = leaky.index["image_id"] == prepared.index["image_id"][0]
    assert is_marked.sum() == 1
    assert (np.asarray(leaky.images)[is_marked] == np.asarray(lungs.images)[is_marked]).all()
    assert (np.asarray(leaky.images)[~is_marked] == np.asarray(plain.images)[~is_marked]).all()
    assert (np.asarray(lungs.images) != np.asarray(plain.images)).any(axis=(1, 2)).all()


def test_a_pack_of_heads_lies_beside_the_plain_one(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=8)
    facts = {"crop_top": 8, "crop_left": 8, "crop_bottom": 24, "crop_right": 24, "rows": SIZE, "columns": SIZE}
    prepared = replace(prepared, index=prepared.index.assign(**facts, brain_share=0.3))
    write_own_site(tmp_path / "own", prepared, ICH, "here", validation=0.25, seed=0)
    folder = tmp_path / "own" / "here"
    plain = open_site(folder, image_size=16)
    heads = open_site(folder, image_size=16, crop=Crop.head)
    assert len(list((folder / "packed").iterdir())) == 2
    square = Square((16 - 8.32) / 32, (16 - 8.32) / 32, 16.64 / 32)
    assert square.pixels(SIZE) == (7, 7, 18)
    for row in (0, 5):
        image = read_png(folder / "images" / f"{heads.index['image_id'][row]}.png")
        assert (heads.images[row] == fit_square(image[7:25, 7:25], 16)).all()
        assert (plain.images[row] == fit_square(image, 16)).all()
    stamps = [path.stat().st_mtime_ns for path in sorted((folder / "packed").iterdir())]
    open_site(folder, image_size=16, crop=Crop.head, neighbours=1)  # of the same pack
    open_site(folder, image_size=16)
    assert [path.stat().st_mtime_ns for path in sorted((folder / "packed").iterdir())] == stamps
