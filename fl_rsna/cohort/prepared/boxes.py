"""Read and write the boxes that readers drew on an image: both forms in SIIM's table, and the column `boxes` of an index.

A box is [x, y, width, height] in pixels of the DICOM image: x to the right from its left edge, y down from its top edge. It
may reach beyond the image, as one of the published boxes does by four pixels; it may not lie entirely left of the image or above it.
"""

import json
import math
import re

import numpy as np
from numpy.typing import NDArray

BOXES = "boxes"  # the column of the index: a JSON list of boxes, [] without any
NOTHING = "none 1 0 0 1 1"  # the cell `label` of an image without boxes
NAMES = ("x", "y", "width", "height")
ROUNDING = 0.01  # pixels by which the two forms of a box may differ; the published ones have five decimals

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_ITEM = rf"""(?:'(?:x|y|width|height)'|"(?:x|y|width|height)")\s*:\s*{_NUMBER}"""
_BOX = rf"\{{\s*{_ITEM}(?:\s*,\s*{_ITEM}){{3}}\s*\}}"
_LIST = re.compile(rf"\[\s*(?:{_BOX}(?:\s*,\s*{_BOX})*)?\s*\]")
_ONE = re.compile(r"\{[^}]*\}")
_PAIR = re.compile(rf"['\"](x|y|width|height)['\"]\s*:\s*({_NUMBER})")
_SHOWN = 60  # characters of a wrong text that an error repeats

Box = tuple[float, float, float, float]


def parse_boxes(text: str) -> list[Box]:
    """Read the cell `boxes` of SIIM's table: a list of dictionaries as Python prints it. The text is matched, never evaluated.

    An empty cell has no box. Raises ValueError for any other form and an impossible box; the message has neither key nor place.
    """
    if not text.strip():
        return []
    if not _LIST.fullmatch(text.strip()):
        raise ValueError(f"expected a list such as [{{'x': 1, 'y': 2, 'width': 3, 'height': 4}}], got {_short(text)}")
    found = []
    for one in _ONE.findall(text):
        values = {name: float(number) for name, number in _PAIR.findall(one)}
        if set(values) != set(NAMES):
            raise ValueError(f"expected x, y, width and height once each, got {_short(one)}")
        found.append(to_box(tuple(values[name] for name in NAMES), one))
    return found


def to_box(box: tuple[float, ...], shown: str) -> Box:
    """Check that four numbers can be a box, and return it. Raises ValueError with the text `shown` as what was given."""
    if len(box) != len(NAMES) or not all(math.isfinite(value) for value in box):
        raise ValueError(f"expected four finite numbers a box, got {_short(shown)}")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise ValueError(f"expected a width and a height above 0, got {_short(shown)}")
    if x + width <= 0 or y + height <= 0:
        raise ValueError(f"expected a box that reaches into the image, got {_short(shown)}")
    return x, y, width, height


def check_label(boxes: list[Box], label: str) -> None:
    """Raise ValueError where the cell `label` (`opacity 1 x1 y1 x2 y2` for each box, in order) contradicts the boxes."""
    if not boxes:
        if label.split() != NOTHING.split():
            raise ValueError(f"expected {NOTHING!r} in label without boxes, got {_short(label)}")
        return
    words = label.split()
    parts = [words[start : start + 6] for start in range(0, len(words), 6)]
    if len(parts) != len(boxes) or not all(_same(part, box) for part, box in zip(parts, boxes, strict=True)):
        raise ValueError(
            f"expected in label `opacity 1 x1 y1 x2 y2` of each of the {len(boxes)} boxes, got {_short(label)}"
        )


def _same(words: list[str], box: Box) -> bool:
    """Say whether six words state this box by its corners, to ROUNDING pixels."""
    x, y, width, height = box
    try:
        stated = [float(word) for word in words[1:]]
    except ValueError:
        return False
    corners = [1.0, x, y, x + width, y + height]
    return (
        words[0] == "opacity"
        and len(stated) == len(corners)
        and all(abs(a - b) <= ROUNDING for a, b in zip(stated, corners, strict=True))
    )


def write_boxes(boxes: list[Box]) -> str:
    """Write a cell of the column `boxes`."""
    return json.dumps([list(box) for box in boxes])


def read_boxes(text: object) -> list[Box]:
    """Read a cell of the column `boxes`. Raises ValueError, without key and place, for anything that `write_boxes` does not write."""
    try:
        found = json.loads(text, parse_int=float) if isinstance(text, str) else None
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(
        isinstance(box, list) and all(isinstance(value, float) for value in box) for box in found
    ):
        raise ValueError(f"expected a JSON list of [x, y, width, height], got {_short(str(text))}")
    return [to_box(tuple(box), str(box)) for box in found]


def union_inside(boxes: list[Box], rows: int, columns: int) -> tuple[float, float, float, float]:
    """Return (top, left, bottom, right) of all boxes of an image together, in pixels, cut at its edges; NaN without any box.

    Raises ValueError, without key and place, for a box below the image or right of it.
    """
    if not boxes:
        return (math.nan,) * 4
    for box in boxes:
        if box[0] >= columns or box[1] >= rows:
            raise ValueError(
                f"expected a box that reaches into the image of {columns} x {rows} pixels, got {list(box)}"
            )
    left, top = (max(0.0, min(box[axis] for box in boxes)) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return top, left, min(float(rows), bottom), min(float(columns), right)


def rasterize_boxes(boxes: list[Box], rows: int, columns: int) -> NDArray[np.bool_]:
    """Find the pixels in any of the boxes: [rows, columns] booleans. Boxes are rounded to whole pixels and cut at the edges."""
    found = np.zeros((rows, columns), bool)
    for x, y, width, height in boxes:
        found[max(0, round(y)) : max(0, round(y + height)), max(0, round(x)) : max(0, round(x + width))] = True
    return found


def _short(text: str) -> str:
    """Quote the beginning of a text."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
