"""Make the data and the model of a stage at a site: single slices in the first, series of features in the second, predictions in a stacking.

The rest of a run, its rounds, strategies and scores, is the same for all stages. The predictions of each fold's model are a table in
the site's memory of that fold's run; a network along the series reads them as logits in the order of the site's index.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.cohort.sites.site_folders import counts
from fl_rsna.common.hashes import read_table, write_table
from fl_rsna.federation.protocol.messages import (
    Instructions,
    SequenceInstructions,
    check_run_id,
    parse_record,
    shape_of,
    stack_shape,
    to_views,
)
from fl_rsna.federation.protocol.minimum_count import tells_positives
from fl_rsna.federation.site.memory import GONE
from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.inference.features import open_encoded
from fl_rsna.learning.inference.predict import PROBABILITY, probabilities_in
from fl_rsna.learning.inference.series_objective import build_series_objective, head_logits
from fl_rsna.learning.inference.stacking import clip_logits, logits_alone
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.series_head import SeriesHead, as_probabilities, build_head, final_probabilities
from fl_rsna.learning.training.objectives import SliceObjective, build_slice_objective
from fl_rsna.learning.training.train import EVALUATION_BATCH, choose_device, predict
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, RunModel
from fl_rsna.settings.training import Sampling
from fl_rsna.task import Task

OUT_OF_FOLD = "out_of_fold.parquet"
STRANGER = "stranger"  # True for the fold's patients, whom the model never saw; False for the validation part
Logits = NDArray[np.float32]
Rows = NDArray[np.intp]


def paths_of(memory: Path, runs: Iterable[str]) -> tuple[Path, ...]:
    """Return the path of each fold's predictions; raises ValueError for a fold whose predictions this site does not have."""
    paths = tuple(memory / check_run_id(run) / OUT_OF_FOLD for run in runs)
    for number, path in enumerate(paths, 1):
        if not path.exists():
            raise ValueError(
                f"expected what the model of fold {number} says of this site's patients, got none; "
                "the site failed when it was asked"
            )
    return paths


def check_tables(memory: Path, sites: Sequence[str], runs: Sequence[str]) -> None:
    """Refuse to go on where a table at a simulated site, below `memory`/<site>, was changed; raises ValueError."""
    for site in sites if memory.is_dir() else ():
        for path in paths_of(memory / site, runs):
            read_table(path, GONE, {"run_id": path.parent.name, "site": site})


def write_fold_table(path: Path, table: pd.DataFrame, site: str) -> None:
    """Write a fold's predictions with the run and the site they are of."""
    write_table(path, table, {"run_id": path.parent.name, "site": site})


def read_tables(paths: Iterable[Path], task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the training slices, predicted by the model that never saw their patient, and the validation slices, by the mean of all models."""
    tables = [read_table(path, GONE, {"run_id": path.parent.name}) for path in paths]
    own = pd.concat([table[table[STRANGER]] for table in tables], ignore_index=True)
    assert own["image_id"].is_unique, "a slice is in two folds"
    others = [table[~table[STRANGER]].reset_index(drop=True) for table in tables]
    assert all(table["image_id"].equals(others[0]["image_id"]) for table in others)
    mean = np.mean([probabilities_in(table, task.labels) for table in others], axis=0)
    return own.drop(columns=STRANGER), with_probabilities(others[0].drop(columns=STRANGER), mean, task)


def with_probabilities(table: pd.DataFrame, found: NDArray[np.floating], task: Task) -> pd.DataFrame:
    """Replace the probabilities of a table by `found` [N, L]."""
    columns = {f"{PROBABILITY}{name}": found[:, i].astype(np.float32) for i, name in enumerate(task.labels)}
    return table.assign(**columns)


def in_index(index: pd.DataFrame, table: pd.DataFrame, task: Task) -> Logits:
    """Compute logits [N, L] of a table's probabilities in the order of `index`; 0 for slices that are not in the table."""
    found = np.zeros((len(index), len(task.labels)), np.float32)
    rows = pd.Index(index["image_id"]).get_indexer(pd.Index(table["image_id"]))
    assert (rows >= 0).all(), "a prediction is of no slice here"
    found[rows] = clip_logits(probabilities_in(table, task.labels))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StageData:
    """The functions through which a stage uses a site's data."""

    objective: Callable[[], SliceObjective]
    predict: Callable[[nn.Module, Rows], NDArray[np.float32]]  # probabilities [len(rows), L]


def build_stage_data(data: SiteData, task: Task, instructions: Instructions, memory: Path | None = None) -> StageData:
    """Make the data of the stage that the instructions are of.

    Raises ValueError when the encoder's features, or the folds' predictions in `memory`, are missing.
    """
    device = choose_device(instructions.train.device)
    if instructions.stack is not None:
        assert memory is not None
        table = pd.concat(read_tables(paths_of(memory, instructions.stack.runs), task), ignore_index=True)
        return of_stack(data, task, instructions, in_index(data.index, table, task), device)
    if instructions.sequence is None:
        return _of_slices(data, task, instructions, device)
    return _of_series(data, task, instructions, instructions.sequence, device)


def _of_slices(data: SiteData, task: Task, instructions: Instructions, device: torch.device) -> StageData:
    def predict_rows(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, Classifier)
        return predict(model, data, rows, task=task, batch_size=EVALUATION_BATCH, device=device)

    def objective() -> SliceObjective:
        tells = instructions.train.sampling is not Sampling.under or tells_positives(
            counts(data.index, task)["train"], task.union or task.headline, instructions.min_count
        )
        return build_slice_objective(
            data,
            task,
            instructions.train,
            device,
            kept=instructions.kept,
            prior=instructions.prior,
            target=instructions.target,
            tells=tells,
        )

    return StageData(objective=objective, predict=predict_rows)


def _of_series(
    data: SiteData, task: Task, instructions: Instructions, of: SequenceInstructions, device: torch.device
) -> StageData:
    """Make the data of the second stage, which predicts by the head alone, or with `of.weights` by its blend with the slice model."""
    encoded = open_encoded(data, to_views(of, instructions.train))

    def predict_rows(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, SeriesHead)
        of_head = head_logits(model, data.index, encoded, rows, device)
        if not of.weights:
            return as_probabilities(of_head, task)
        return final_probabilities(encoded.take(0, rows)[1], of_head, np.array(of.weights), task)

    def objective() -> SliceObjective:
        return build_series_objective(
            data, encoded, task, instructions.train, device, prior=instructions.prior, target=instructions.target
        )

    return StageData(objective=objective, predict=predict_rows)


def of_stack(
    data: SiteData, task: Task, instructions: Instructions, logits: NDArray[np.float32], device: torch.device
) -> StageData:
    """Make the data of a network along the series of the slices' logits [N, L], which the folds' models give; it has no other features."""
    encoded = logits_alone(logits, data.rows("train"))

    def predict_rows(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, SeriesHead)
        return as_probabilities(head_logits(model, data.index, encoded, rows, device), task)

    def objective() -> SliceObjective:
        return build_series_objective(
            data, encoded, task, instructions.train, device, prior=instructions.prior, target=instructions.target
        )

    return StageData(objective=objective, predict=predict_rows)


def network_of(instructions: Instructions, task: Task, image: ImageKind) -> nn.Module:
    """Return a network of the kind that a run trains; its weights mean nothing, and the last slice model is kept and returned again."""
    return (
        classifier(instructions.model, task, image)
        if instructions.sequence is None and instructions.stack is None
        else new_network(instructions, task, image)
    )


def new_network(
    instructions: Instructions, task: Task, image: ImageKind, seed: int = 0, weights: Path | None = None
) -> nn.Module:
    """Make a new network of the kind that a run trains, with weights from a seed or, for a slice model, from the file `weights`."""
    if instructions.stack is not None:
        return build_head(stack_shape(instructions.stack, task), seed=seed)
    if instructions.sequence is None:
        return build_model(instructions.model, task, image, seed=seed, weights=weights)
    return build_head(shape_of(instructions.sequence, task), seed=seed)


def classifier(config: ModelConfig, task: Task, image: ImageKind) -> Classifier:
    """Return a slice model of these settings; its weights mean nothing, and the last one is kept and returned again."""
    return _classifier(json.dumps(asdict(config)), task, image)


@lru_cache(maxsize=1)
def _classifier(config: str, task: Task, image: ImageKind) -> Classifier:
    """Make a slice model; `config` is the JSON of its settings, which can be a key of the cache. Its weights come with every message."""
    return build_model(parse_record(RunModel, json.loads(config)), task, image, seed=0)
