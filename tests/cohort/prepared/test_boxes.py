"""Boxes are read by their form, never evaluated, and what cannot be one is refused."""

import math

import pytest

from fl_rsna.cohort.prepared.boxes import (
    check_label,
    parse_boxes,
    rasterize_boxes,
    read_boxes,
    union_inside,
    write_boxes,
)

ONE = "[{'x': 10, 'y': 20.5, 'width': 30, 'height': 40}]"
TWO = "[{'x': 1.0, 'y': 2.0, 'width': 3.0, 'height': 4.0}, {'x': 5.0, 'y': 6.0, 'width': 7.0, 'height': 8.0}]"


def test_a_list_of_dictionaries_in_any_quotes_and_order() -> None:
    assert parse_boxes(ONE) == [(10.0, 20.5, 30.0, 40.0)]
    assert parse_boxes(TWO) == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert parse_boxes(TWO.replace("'", '"').replace(" ", "")) == parse_boxes(TWO)
    assert parse_boxes("[{'height': 4, 'width': 3, 'y': 2, 'x': 1e0}]") == [(1, 2, 3, 4)]
    assert parse_boxes("") == parse_boxes(" ") == parse_boxes("[]") == []


@pytest.mark.parametrize(
    "text",
    [
        ONE[1:-1],  # no list
        ONE[:-1],  # cut off
        ONE + "]",
        "[None]",
        "[{}]",
        "[{'x': 1, 'y': 2, 'width': 3}]",
        ONE.replace("}", ", 'z': 1}"),
        ONE.replace("10", "nan"),
        ONE.replace("10", "inf"),
        ONE.replace("10", "'10'"),
        ONE.replace("10", "5+5"),
        ONE.replace("10", "__import__('os').getpid()"),
        "[" * 100_000,
        ONE.replace("10", "1" * 100_000 + "x"),
        TWO.replace("},", "}"),
        "[[1, 2, 3, 4]]",
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a list such as ") as caught:
        parse_boxes(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("30", "0", "a width and a height above 0"),
        ("40", "-40", "a width and a height above 0"),
        ("10", "1e999", "four finite numbers"),
        ("10", "-30", "reaches into the image"),
        ("20.5", "-40", "reaches into the image"),
        ("'y'", "'x'", "x, y, width and height once each"),
    ],
)
def test_a_box_that_cannot_be_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_boxes(ONE.replace(old, new))


def test_a_box_may_begin_before_the_edge_that_it_reaches_over() -> None:
    assert parse_boxes(ONE.replace("10", "-3.5")) == [(-3.5, 20.5, 30.0, 40.0)]


def test_the_label_states_the_same_boxes_by_their_corners() -> None:
    check_label(parse_boxes(ONE), "opacity 1 10 20.5 40 60.5")
    check_label(parse_boxes(ONE), "opacity 1 10.004 20.5 40 60.496")
    check_label(parse_boxes(TWO), "opacity 1 1 2 4 6 opacity 1 5 6 12 14")
    check_label([], "none 1 0 0 1 1")


@pytest.mark.parametrize(
    ("boxes", "label"),
    [
        (ONE, "opacity 1 10 20.5 40 60.4"),
        (ONE, "opacity 1 10 20.5 30 40"),  # its size, not its corner
        (ONE, "opacity 1 10 20.5 40"),
        (ONE, "opacity 1 10 20.5 40 x"),
        (ONE, "opacity 1 10 20.5 40 nan"),
        (ONE, "opacity 0.5 10 20.5 40 60.5"),
        (ONE, "none 1 0 0 1 1"),
        (ONE, ""),
        (TWO, "opacity 1 5 6 12 14 opacity 1 1 2 4 6"),
        (TWO, "opacity 1 1 2 4 6"),
        ("", "opacity 1 10 20.5 40 60.5"),
        ("", ""),
        ("", "none 1 0 0 1"),
    ],
)
def test_a_label_that_says_otherwise_is_refused(boxes: str, label: str) -> None:
    with pytest.raises(ValueError, match=r"^expected .*label.*, got "):
        check_label(parse_boxes(boxes), label)


def test_a_cell_comes_back_to_the_last_bit() -> None:
    boxes = [(0.1, 1 / 3, 789.28836, 1e-5), (-3.55558, 2.0, 1917.30292, 4.0)]
    assert read_boxes(write_boxes(boxes)) == boxes
    assert (write_boxes([]), read_boxes("[]")) == ("[]", [])
    assert write_boxes([(1.0, 2.0, 3.0, 4.0)]) == "[[1.0, 2.0, 3.0, 4.0]]"


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "x",
        "{}",
        "[1]",
        '["1234"]',
        '[["1", "2", "3", "4"]]',
        "[[1, 2, 3]]",
        "[[1, 2, 3, true]]",
        math.nan,
        None,
        "[[NaN, 2, 3, 4]]",
        "[[1, 2, 0, 4]]",
        "[" * 100_000,
        "[[1" + "0" * 5000 + ", 2, 3, 4]]",
    ],
)
def test_a_cell_that_nobody_wrote_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        read_boxes(cell)


def test_the_union_ends_at_the_edges_of_the_image() -> None:
    """Top, left, bottom, right of an image with 50 rows and 100 columns."""
    assert union_inside([(10, 20, 30, 5), (60, 5, 10, 5)], 50, 100) == (5, 10, 25, 70)
    assert union_inside([(-5, 20, 30, 40)], 50, 100) == (20, 0, 50, 25)
    assert all(map(math.isnan, union_inside([], 50, 100)))
    for outside in ((100.0, 0.0, 1.0, 1.0), (0.0, 50.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="reaches into the image of 100 x 50 pixels"):
            union_inside([(0, 0, 1, 1), outside], 50, 100)


def test_covered_pixels_are_cut_at_every_edge() -> None:
    """A published box begins four pixels left of its film: what lies on the film counts, and nothing on the other side."""
    found = rasterize_boxes([(-4, 1, 6, 2), (8, 3, 5, 9)], 5, 10)
    assert {tuple(map(int, place)) for place in zip(*found.nonzero(), strict=True)} == {
        *((row, column) for row in (1, 2) for column in (0, 1)),
        *((row, column) for row in (3, 4) for column in (8, 9)),
    }
    assert not rasterize_boxes([], 5, 10).any()
