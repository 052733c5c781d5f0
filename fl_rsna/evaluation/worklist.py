"""Draw the images of evaluation.html: a strip of each exam that the model finds most suspicious, with the heat of a few slices.

This is done while the images are at hand: an evaluation forgets what it prepared, unless data.name keeps it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.evaluation.inputs import Progress, Scored
from fl_rsna.evaluation.settings import PageConfig
from fl_rsna.learning.data.crop import squares, uncut
from fl_rsna.learning.inference.gradcam import heat
from fl_rsna.learning.inference.predict import exam_table, read_batches
from fl_rsna.learning.inference.stacking import AnyModel, SavedStack
from fl_rsna.learning.metrics.exams import group_exams
from fl_rsna.learning.metrics.operating_points import OperatingPoints
from fl_rsna.learning.models.saved import SavedModel
from fl_rsna.learning.training.train import ignore_progress
from fl_rsna.reporting.images.contact_sheets import render_view
from fl_rsna.reporting.images.exam_strips import SIDE, ExamStrip, build_strip, choose_slices
from fl_rsna.reporting.images.explanations import choose_view, heat_uri
from fl_rsna.reporting.pages.evaluation_page import choose_point, order_exams, write_evaluation_page
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Task

BATCH = 16  # slices whose gradient is taken at once


def write_worklist(
    folder: Path,
    scored: Scored,
    models: Sequence[AnyModel],
    settings: OperatingPoints | None,
    page: PageConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    """Write evaluation.html into the folder of an evaluation, beside its tables; no page where page.exams is 0."""
    if not page.exams:
        return
    task = models[0].task
    exams = exam_table(scored.index, scored.found, scored.labels, task)
    places = order_exams(exams, task)[: page.exams]
    strips = list[ExamStrip]()
    progress("drawing exams", 0, len(places))
    for number, rows in enumerate(_rows_of(scored, task, places), 1):
        strips.append(_draw_exam(scored, models, settings, page, device, rows, number))
        progress("drawing exams", number, len(places))
    write_evaluation_page(folder, strips)


def _rows_of(scored: Scored, task: Task, places: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Find the rows of the exams at `places` of the table of exams, each from the lowest slice to the highest."""
    index = scored.index
    unknown = np.full(scored.found.shape, np.nan, np.float32)
    patients, names = index["patient_id"].to_numpy(str), index[task.exam_key].to_numpy(str)
    member = group_exams(unknown, patients, names, task.kind).member
    order = [name for name in ("series_id", "rank", "image_id") if name in index]
    found = []
    for place in places:
        rows = np.flatnonzero(member == place)
        found.append(rows[np.lexsort([_as_keys(index[name].iloc[rows]) for name in reversed(order)])])
    return found


def _as_keys(column: pd.Series) -> NDArray[np.intp]:
    """Number the values of a column by their order, so that texts and numbers sort alike; missing ones come first."""
    return pd.factorize(column, sort=True)[0]


def _draw_exam(
    scored: Scored,
    models: Sequence[AnyModel],
    settings: OperatingPoints | None,
    page: PageConfig,
    device: torch.device,
    rows: NDArray[np.intp],
    number: int,
) -> ExamStrip:
    """Draw one exam, whose slices are at `rows` from the lowest to the highest; `number` is its place in the worklist."""
    task = models[0].task
    label = task.headline
    column = task.labels.index(label)
    probabilities = scored.found[rows, column]
    shown = choose_slices(probabilities, page.slices)
    hottest = sorted(sorted(shown, key=lambda place: -probabilities[place])[: page.heats])
    heats = list(mean_heat(scored, models, rows[hottest], label, device)) if hottest else []
    view = choose_view(ImageKind(scored.source["image"]), label)
    known = None if scored.labels is None else scored.labels[rows, column]
    facts = scored.index.iloc[rows[0]]
    return build_strip(
        key=f"exam-{number}",
        title=f"{number}. {task.exam} {facts[task.exam_key]}",
        label=label,
        picture=task.picture,
        image_ids=[str(name) for name in scored.index["image_id"].iloc[rows]],
        probabilities=probabilities,
        truth=[None if known is None or np.isnan(known[i]) else bool(known[i]) for i in range(len(rows))],
        threshold=choose_point(settings.slice, label)[1] if settings else None,
        pictures={place: render_view(scored.read(int(rows[place])), view, SIDE) for place in shown},
        heats={place: heat_uri(found) for place, found in zip(hottest, heats, strict=True)},
    )


def mean_heat(
    scored: Scored, models: Sequence[AnyModel], rows: NDArray[np.intp], label: str, device: torch.device
) -> NDArray[np.float32]:
    """Compute the Grad-CAM heat of a label on whole slices, float32 [N, SIDE, SIDE], as the mean over all slice models.

    A stacking has a slice model a fold. A model that saw a crop has no heat outside it.
    """
    slice_models = [one for model in models for one in (model.folds if isinstance(model, SavedStack) else (model,))]
    parts = [_heat_of(scored, model, rows, label, device) for model in slice_models]
    mean: NDArray[np.float32] = (np.sum(parts, axis=0) / len(parts)).astype(np.float32)
    return mean


def _heat_of(
    scored: Scored, model: SavedModel, rows: NDArray[np.intp], label: str, device: torch.device
) -> NDArray[np.float32]:
    number, shown = model.task.labels.index(label), squares(scored.index, model.config.crop)
    network = model.network.to(device)
    batches = read_batches(model, scored.read, scored.index, rows, device, ignore_progress, BATCH)
    found = torch.cat([heat(network, planes, number, size=SIDE) for planes in batches]).cpu().numpy()
    return np.stack([uncut(of_slice, shown[row]) for of_slice, row in zip(found, rows, strict=True)])
