"""The two tables of a synthetic chest cohort, as SIIM-FISABIO-RSNA COVID-19 published them."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fl_rsna.imaging.phantom_chest_disease import Box
from fl_rsna.imaging.phantom_chest_opacities import Appearance
from fl_rsna.task import COVID_CXR

STUDY_TABLE, IMAGE_TABLE = "train_study_level.csv", "train_image_level.csv"
NO_OPACITY = "none 1 0 0 1 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image of the cohort; `boxes` are what its readers marked."""

    image_id: str
    study_id: str
    appearance: Appearance
    boxes: tuple[Box, ...]


def write_tables(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write both tables, sorted by id."""
    images = sorted(rows, key=lambda row: row.image_id)
    studies = sorted({row.study_id: row.appearance for row in images}.items())
    with (folder / STUDY_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *COVID_CXR.published])
        writer.writerows(
            [f"{name}_study", *(int(place == appearance) for place in Appearance)] for name, appearance in studies
        )
    with (folder / IMAGE_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "boxes", "label", "StudyInstanceUID"])
        writer.writerows(
            [f"{row.image_id}_image", boxes_text(row.boxes), label_text(row.boxes), row.study_id] for row in images
        )


def boxes_text(boxes: tuple[Box, ...]) -> str:
    """A list of dictionaries as Python prints it; nothing for no box."""
    listed = [{"x": box.x, "y": box.y, "width": box.width, "height": box.height} for box in boxes]
    return str(listed) if listed else ""


def label_text(boxes: tuple[Box, ...]) -> str:
    """`opacity 1`, left, top, right and bottom of each box, or a box of one pixel that says none."""
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    return " ".join(f"opacity 1 {' '.join(f'{edge:g}' for edge in edges)}" for edges in corners) or NO_OPACITY
