"""explanations.json: the slices a model is surest and most wrong about, with the heat of what it looked at.

The pictures are of the test site, which the server holds. Nothing of any other site is opened, so nothing leaves one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from fl_rsna.choices import ImageKind
from fl_rsna.cohort.boxes import BOXES, covered, read_boxes
from fl_rsna.cohort.whole import write_whole
from fl_rsna.imaging.phantom_lesions import Drawn, draw_again
from fl_rsna.imaging.store import fit_square
from fl_rsna.learning.gradcam import CELLS
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.reading import hashed_json
from fl_rsna.reporting.console import console
from fl_rsna.reporting.contact import View, as_uri, seen_as
from fl_rsna.reporting.finished import Finished, read_finished
from fl_rsna.reporting.in_lesion import body_of, lesion_of, shares, summed_up
from fl_rsna.reporting.overlay import heat_uri, lesion_uri
from fl_rsna.reporting.picked import Kind, extreme, pick
from fl_rsna.runs import EXPLANATIONS

SIDE = 256  # pixels of a picture
MEASURED = 20  # patients whose heat is measured at most: drawing one again takes a quarter of a second
EXTRA_AXIAL = ("epidural", "subdural")  # read in the subdural window, which tells blood from the skull

Lesions = dict[str, Drawn]  # by image


def write_explanations(folder: Path) -> Path:
    """Write `explanations.json` of a finished run; raises ValueError without its model, predictions or cohort."""
    settle_process()
    run = read_finished(folder)
    picked = pick(run.table, run.task, run.thresholds, run.brain_share())
    measured = to_measure(run, run.task.headline, MEASURED)
    lesions = lesions_on(run, [*measured, *(row for label, _, row in picked if run.table[f"label_{label}"].iloc[row])])
    content = {
        "finding": run.task.finding,
        "body": run.task.body,
        "threshold_from": run.threshold_from,
        "thresholds": run.thresholds,
        "method": f"Grad-CAM on the last feature map of at least {CELLS} cells a side, scaled to each slice's highest heat: "
        "it says where, and not how much",
        "entries": entries(run, picked, lesions or {}),
        "heat_in_lesion": None if lesions is None else heat_in_lesion(run, run.task.headline, measured, lesions),
    }
    path = folder / EXPLANATIONS
    write_whole(path, hashed_json(content, indent=None))
    return path


def explain(folder: Path) -> None:
    """Write them, or say in a line why not: a report is made without them, too."""
    try:
        write_explanations(folder)
    except ValueError as why:
        console.print(escape(f"no explanations: {why}"), soft_wrap=True)


def entries(run: Finished, picked: list[tuple[str, Kind, int]], lesions: Lesions) -> list[dict[str, Any]]:
    """One entry a picked slice, in their order; `lesion` is the outline of the label's blood where it is known."""
    heat: dict[tuple[str, int], NDArray[np.float32]] = {}
    for label in dict.fromkeys(label for label, _, _ in picked):
        rows = [row for of, _, row in picked if of == label]
        heat |= {(label, row): found for row, found in zip(rows, run.heat(rows, label, SIDE), strict=True)}
    return [_entry(run, label, kind, row, heat[label, row], lesions) for label, kind, row in picked]


def _entry(
    run: Finished, label: str, kind: Kind, row: int, heat: NDArray[np.float32], lesions: Lesions
) -> dict[str, Any]:
    facts, view = run.table.iloc[row], _view(run.data.image, label)
    image_id = str(facts["image_id"])
    blood = _outlined(lesion_of(lesions[image_id].lesions, label)) if image_id in lesions else None
    return {
        "picture": as_uri(seen_as(run.image(image_id), view, SIDE)),
        "heat": heat_uri(heat),
        "lesion": blood,
        "window": view.value,
        "kind": kind.value,
        "label": label,
        "image_id": image_id,
        "labels": {name: int(facts[f"label_{name}"]) for name in run.task.labels},
        "probabilities": {name: round(float(facts[f"probability_{name}"]), 4) for name in run.task.labels},
    }


def _view(kind: ImageKind, label: str) -> View:
    """What a label is best seen in."""
    if kind is ImageKind.grey:
        return View.grey
    return View.subdural if label in EXTRA_AXIAL else View.brain


def _outlined(lesion: NDArray[np.bool_]) -> str | None:
    return lesion_uri(fit_square(lesion.astype(np.uint8) * 255, SIDE) > 127) if lesion.any() else None


def to_measure(run: Finished, label: str, at_most: int | None) -> list[int]:
    """Rows of the true positives of the first patients by their hashed ids."""
    rows = extreme(run.table, label, Kind.true_positive, run.thresholds[label])
    patients = run.table[run.task.group_key].iloc[rows]
    return [int(row) for row in rows[patients.isin(sorted(patients.unique())[:at_most]).to_numpy()]]


def lesions_on(run: Finished, rows: Iterable[int]) -> Lesions | None:
    """Where the findings are: in boxes that people drew, or on slices the phantom drew again; None where nobody knows.

    A slice drawn again must equal the stored one in every pixel; it does not where the run states other settings.
    """
    ids = set(run.table["image_id"].iloc[list(rows)])
    if BOXES in run.data.index:
        return {row["image_id"]: _boxed(run, row) for row in _rows_of(run, ids)}
    if run.demo is None:
        return None
    drawn = {slice_.image_id: slice_ for slice_ in draw_again(ids, **run.demo, kind=run.data.image, side=run.side)}
    same = drawn.keys() == ids and all(np.array_equal(slice_.image, run.image(id_)) for id_, slice_ in drawn.items())
    return drawn if same else None


def _rows_of(run: Finished, ids: set[str]) -> list[dict[str, Any]]:
    index = run.data.index
    return index[index["image_id"].isin(ids)].to_dict("records")  # type: ignore[return-value]


def _boxed(run: Finished, row: Mapping[str, Any]) -> Drawn:
    """An image with what its boxes hold, as prepare made it square."""
    inside = covered(read_boxes(row[BOXES]), int(row["rows"]), int(row["columns"])).astype(np.uint8) * 255
    image_id = str(row["image_id"])
    lesions = {run.task.finding: fit_square(inside, run.side) > 127}
    return Drawn(image_id=image_id, image=run.image(image_id), lesions=lesions)


def heat_in_lesion(
    run: Finished, label: str, rows: list[int], lesions: Lesions, cells: int = CELLS
) -> dict[str, Any] | None:
    """How much heat of these true positives lies in the label's blood (`in_lesion.summed_up`); None without any."""
    rows = [row for row in rows if lesion_of(lesions[run.table["image_id"].iloc[row]].lesions, label).any()]
    if not rows:
        return None
    facts = run.table.iloc[rows]
    ids, patients = list(facts["image_id"]), [str(name) for name in facts[run.task.group_key]]
    blood = np.stack([lesion_of(lesions[id_].lesions, label) for id_ in ids])
    heads = np.stack([body_of(lesions[id_].image, run.data.image) for id_ in ids])
    found = shares(run.heat(rows, label, run.side, cells), blood, heads, patients)
    return {"label": label, **summed_up(found, patients, seed=derive_seed(0, "heat in lesion", label))}
