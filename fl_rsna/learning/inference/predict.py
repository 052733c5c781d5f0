"""Predict slices from PNGs or from a site's pack, and make tables of slices and of whole exams.

A table of slices has ids, labels as `label_<name>` and probabilities as `probability_<name>`.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.imaging.png_store import Image, fit_square, read_png
from fl_rsna.learning.data.crop import cut, squares
from fl_rsna.learning.data.dataset import SiteData, gather
from fl_rsna.learning.data.series import Stacked, neighbour_table
from fl_rsna.learning.inference.features import Encoded, encode_batches, encode_site, open_encoded, views_of
from fl_rsna.learning.inference.series_objective import head_logits
from fl_rsna.learning.inference.stacking import AnyModel, SavedStack, mean_of_folds
from fl_rsna.learning.metrics.exams import aggregates, exam_probabilities, group_exams
from fl_rsna.learning.models.saved import SavedModel
from fl_rsna.learning.models.series_head import TwoStage, final_probabilities
from fl_rsna.learning.models.tta import mean_probabilities
from fl_rsna.learning.training.train import EVALUATION_BATCH, ignore_progress, predict
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

IDS = ["image_id", "patient_id", "study_id", "series_id", "rank"]
LABEL, PROBABILITY = "label_", "probability_"
EXAM_IDS = ["patient_id", "study_id", "series_id"]  # each id is of a part of the one before


def prediction_table(
    data: SiteData, rows: NDArray[np.intp], probabilities: NDArray[np.float32], task: Task
) -> pd.DataFrame:
    """Make a table with one row for each slice of `rows`, in their order; `probabilities` [N, L] are in the task's order."""
    table = data.index.iloc[rows][IDS].reset_index(drop=True)
    labels: dict[str, NDArray[np.generic]] = {}
    for i, name in enumerate(task.labels):
        known = data.labels[rows, i]
        labels[f"{LABEL}{name}"] = known if np.isnan(known).any() else known.astype(np.int8)  # NaN is unknown
    return table.assign(**labels, **{f"{PROBABILITY}{name}": probabilities[:, i] for i, name in enumerate(task.labels)})


def labels_in(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.float32]:
    """Read the columns of these labels from a table of slices, float32 [N, L]; NaN is unknown."""
    return _columns(table, LABEL, names)


def probabilities_in(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.float32]:
    """Read the columns of these labels' probabilities from a table of slices, float32 [N, L]."""
    return _columns(table, PROBABILITY, names)


def _columns(table: pd.DataFrame, prefix: str, names: Iterable[str]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", table[[f"{prefix}{name}" for name in names]].to_numpy(np.float32))


@torch.inference_mode()
def score_images(
    model: AnyModel,
    images: Path,
    index: pd.DataFrame,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> NDArray[np.float32]:
    """Predict probabilities [N, L] of the slices of an index, in its order, with the model's size, crop, neighbours and views.

    A two-stage model and a stacking use whole series; a stacking runs the slice models of all folds. The prepared PNGs are in
    the folder `images`. `on_progress` is called with the slices done and the slices in all. Raises ValueError for an
    unreadable PNG, and FloatingPointError when a probability is not finite.
    """
    if isinstance(model, SavedStack):
        steps = [_part_of(on_progress, number, len(model.folds)) for number in range(len(model.folds))]
        parts = [score_images(fold, images, index, device, step) for fold, step in zip(model.folds, steps, strict=True)]
        return model.second(index, mean_of_folds(parts), device)
    names, read = index["image_id"].to_numpy(), lambda row: read_png(images / f"{names[row]}.png")
    batches = read_batches(model, read, index, np.arange(len(index)), device, on_progress)
    network = model.network.to(device).eval()
    if model.two_stage is not None:
        encoded = encode_batches(network, batches, model.task)
        return score_encoded(model.two_stage, encoded, index, np.arange(len(index)), model.task, device)
    parts = [np.zeros((0, len(model.task.labels)), np.float32)]
    parts += [mean_probabilities(network, planes, model.task).cpu().numpy() for planes in batches]
    found = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise FloatingPointError(f"the predictions of {model.path} are not finite: the model diverged in training")
    return found


def _part_of(on_progress: Callable[[int, int], None], number: int, parts: int) -> Callable[[int, int], None]:
    """Return the progress function of pass `number` of several passes over the same slices."""
    return lambda done, slices: on_progress(number * slices + done, parts * slices)


def read_batches(
    model: SavedModel,
    read: Callable[[int], Image],
    index: pd.DataFrame,
    rows: NDArray[np.intp],
    device: torch.device,
    on_progress: Callable[[int, int], None],
    batch_size: int = EVALUATION_BATCH,
) -> Iterator[torch.Tensor]:
    """Yield batches of stored values [B, C, S, S] of the slices at `rows` of an index, cut and resized as the model sees them.

    `read` returns the stored image of a row of the index; the model's neighbours are read as well.
    """
    config, shown = model.config, squares(index, model.config.crop)
    table = neighbour_table(index, config.neighbours) if config.neighbours else np.arange(len(index))[:, None]
    on_progress(0, len(rows))
    for start in range(0, len(rows), batch_size):
        needed, places = np.unique(table[rows[start : start + batch_size]], return_inverse=True)
        pixels = np.stack([fit_square(cut(read(int(row)), shown[row]), config.image_size) for row in needed])
        batch = Stacked(pixels, places) if config.neighbours else pixels[places.ravel()]
        yield gather(batch, np.arange(len(places)), device)
        on_progress(start + len(places), len(rows))


def score_encoded(
    model: TwoStage, encoded: Encoded, index: pd.DataFrame, rows: NDArray[np.intp], task: Task, device: torch.device
) -> NDArray[np.float32]:
    """Predict probabilities [len(rows), L] by a two-stage model, from its encoder's features of the slices of an index."""
    of_head = head_logits(model.head, index, encoded, rows, device)
    return final_probabilities(encoded.take(0, rows)[1], of_head, model.weights.cpu().numpy(), task)


def score_rows(model: AnyModel, data: SiteData, rows: NDArray[np.intp], device: torch.device) -> NDArray[np.float32]:
    """Predict probabilities [len(rows), L] of whole series of a site by any model; a two-stage model stores features beside the pack."""
    if isinstance(model, SavedStack):
        mean = mean_of_folds([score_rows(fold, data, rows, device) for fold in model.folds])
        return model.second(data.index.iloc[rows].reset_index(drop=True), mean, device)
    if model.two_stage is None:
        return predict(model.network, data, rows, task=model.task, batch_size=EVALUATION_BATCH, device=device)
    plain = TrainConfig()  # nothing is augmented
    views = views_of(model.sha256, 1, plain)
    encode_site(model.network, data, views, model.task, plain, device, ignore_progress)
    return score_encoded(model.two_stage, open_encoded(data, views), data.index, rows, model.task, device)


def exam_table(
    index: pd.DataFrame, found: NDArray[np.floating], known: NDArray[np.float32] | None, task: Task
) -> pd.DataFrame:
    """Make a table with one row for each exam (a series or a study): slices, labels if known, and every aggregate's probabilities.

    A label that is unknown for an exam (learning/metrics/exams.py) is missing.
    """
    unknown = np.full(found.shape, np.nan, np.float32) if known is None else known
    patients, names = index["patient_id"].to_numpy(str), index[task.exam_key].to_numpy(str)
    exams = group_exams(unknown, patients, names, task.kind)
    first = np.unique(exams.member, return_index=True)[1]
    columns: dict[str, Any] = {"slices": np.bincount(exams.member)}
    columns |= {} if known is None else {f"label_{label}": exams.labels[:, i] for i, label in enumerate(task.labels)}
    for aggregate in aggregates(task.kind):
        of_exams = exam_probabilities(found, exams, aggregate)
        columns |= {f"{aggregate}_{label}": of_exams[:, i] for i, label in enumerate(task.labels)}
    return index[EXAM_IDS[: EXAM_IDS.index(task.exam_key) + 1]].iloc[first].reset_index(drop=True).assign(**columns)
