"""A strip keeps an exam's order and its highest slice, and its HTML names every slice and loads nothing."""

import json
import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.reporting.images.exam_strips import ExamStrip, build_strip, choose_slices

BLACK = np.zeros((8, 8), np.uint8)
HEAT = "data:image/png;base64,aGVhdA=="


def make_strip(**changes: Any) -> ExamStrip:
    given: dict[str, Any] = {
        "key": "e1", "title": "exam e1", "label": "any", "picture": "slice", "image_ids": ["a", "b", "c"],
        "probabilities": np.array([0.125, 0.75, 0.5]), "truth": [False, True, None], "threshold": 0.5,
        "pictures": {0: BLACK, 1: BLACK, 2: BLACK}, "heats": {1: HEAT},
    }  # fmt: skip
    return build_strip(**{**given, **changes})


def draw(strip: object) -> str:
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = '{% import "strips.html.j2" as strips %}{{ strips.strip(one) }}{{ strips.script() }}'
    return environment.from_string(text).render(one=strip)


def test_a_strip_counts_what_is_at_or_above_its_threshold() -> None:
    strip = make_strip()
    assert [one.is_above for one in strip.slices] == [False, True, True]
    assert strip.chosen == 1
    assert strip.summary == (
        "highest probability of any 0.75, at slice 2; 2 slices at or above the threshold 0.5; 1 slice labelled any"
    )


def test_without_threshold_or_labels_nothing_is_said_of_them() -> None:
    strip = make_strip(threshold=None, truth=[None] * 3)
    assert strip.summary == "highest probability of any 0.75, at slice 2"
    assert "<u " not in draw(strip)
    assert "labelled" not in draw(strip)


def test_slices_that_are_not_shown_keep_their_numbers() -> None:
    strip = make_strip(pictures={0: BLACK, 2: BLACK}, heats={})
    assert [one.number for one in strip.slices] == [1, 3]
    assert strip.summary.endswith("2 of 3 slices shown")


@pytest.mark.parametrize("slices", [1, 7, 8, 9, 300])
@pytest.mark.parametrize("highest", [0.0, 0.4, 1.0])
def test_the_slices_of_a_long_exam_are_spread_and_hold_the_highest(slices: int, highest: float) -> None:
    probabilities = np.zeros(slices)
    probabilities[round(highest * (slices - 1))] = 1
    chosen = choose_slices(probabilities, 8)
    assert len(chosen) == min(slices, 8)
    assert chosen == sorted(set(chosen))
    assert int(np.argmax(probabilities)) in chosen
    assert max(np.diff(chosen), default=0) <= 2 * max(1, slices / 7)


def test_a_strip_is_drawn_the_same_from_json() -> None:
    strip = make_strip()
    assert draw(strip) == draw(json.loads(json.dumps(asdict(strip))))


def test_every_image_has_an_alt_text_and_every_slice_a_control() -> None:
    html = draw(make_strip(title="<b>&"))
    images = re.findall(r"<img[^>]*>", html)
    assert all(" alt=" in image for image in images)
    assert html.count('type="radio"') == 3
    assert html.count(" checked") == 1
    assert html.count("data-heat=") == 1
    assert "<b><b>" not in html


def test_a_strip_loads_nothing() -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', draw(make_strip()))
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
