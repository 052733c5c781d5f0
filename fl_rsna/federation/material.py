"""What the model of a stage is, learns from and says: single slices in the first, series of features in the second.

Everything else in a run, rounds, strategies and scores, is the same for both.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.choices import ImageKind, Sampling
from fl_rsna.cohort.sites import counts
from fl_rsna.config import ModelConfig
from fl_rsna.federation.disclosure import tells_positives
from fl_rsna.federation.messages import Instructions, typed
from fl_rsna.federation.out_of_fold import paths_of
from fl_rsna.federation.sequence_told import SequenceTold, shape_of, views_told
from fl_rsna.federation.stack_logits import kept_logits
from fl_rsna.federation.stack_told import stack_shape
from fl_rsna.learning.dataset import SiteData
from fl_rsna.learning.encoded import open_encoded
from fl_rsna.learning.lesson import Lesson, slice_lesson
from fl_rsna.learning.model import Classifier, build_model
from fl_rsna.learning.sequence import SeriesHead, build_head
from fl_rsna.learning.series_lesson import head_logits, series_lesson
from fl_rsna.learning.stacked import logits_alone
from fl_rsna.learning.train import EVALUATION_BATCH, choose_device, predict
from fl_rsna.learning.two_stage import as_probabilities, final_probabilities
from fl_rsna.task import Task

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A site's data as a stage takes it."""

    lesson: Callable[[], Lesson]
    predict: Callable[[nn.Module, Rows], NDArray[np.float32]]  # probabilities [len(rows), L] of these slices


def material_of(data: SiteData, task: Task, told: Instructions, memory: Path | None = None) -> Material:
    """Raises ValueError in a second stage when the encoder's features, or the folds' predictions in `memory`, are not there."""
    device = choose_device(told.train.device)
    if told.stack is not None:
        assert memory is not None
        return of_stack(data, task, told, kept_logits(data, task, paths_of(memory, told.stack.runs)), device)
    if told.sequence is None:
        return _of_slices(data, task, told, device)
    return _of_series(data, task, told, told.sequence, device)


def _of_slices(data: SiteData, task: Task, told: Instructions, device: torch.device) -> Material:
    def found(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, Classifier)
        return predict(model, data, rows, task=task, batch_size=EVALUATION_BATCH, device=device)

    def lesson() -> Lesson:
        tells = told.train.sampling is not Sampling.under or tells_positives(
            counts(data.index, task)["train"], task.union or task.headline, told.min_count
        )
        return slice_lesson(
            data, task, told.train, device, kept=told.kept, prior=told.prior, target=told.target, tells=tells
        )

    return Material(lesson=lesson, predict=found)


def _of_series(data: SiteData, task: Task, told: Instructions, of: SequenceTold, device: torch.device) -> Material:
    """The head alone, or with `of.weights` its blend with the slice model."""
    encoded = open_encoded(data, views_told(of, told.train))

    def found(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, SeriesHead)
        of_head = head_logits(model, data.index, encoded, rows, device)
        if not of.weights:
            return as_probabilities(of_head, task)
        return final_probabilities(encoded.take(0, rows)[1], of_head, np.array(of.weights), task)

    def lesson() -> Lesson:
        return series_lesson(data, encoded, task, told.train, device, prior=told.prior, target=told.target)

    return Material(lesson=lesson, predict=found)


def of_stack(
    data: SiteData, task: Task, told: Instructions, logits: NDArray[np.float32], device: torch.device
) -> Material:
    """A network along the series of the slices' logits [N, L]: a head whose slice model are the folds' models, without features."""
    encoded = logits_alone(logits, data.rows("train"))

    def found(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
        assert isinstance(model, SeriesHead)
        return as_probabilities(head_logits(model, data.index, encoded, rows, device), task)

    def lesson() -> Lesson:
        return series_lesson(data, encoded, task, told.train, device, prior=told.prior, target=told.target)

    return Material(lesson=lesson, predict=found)


def network_of(told: Instructions, task: Task, image: ImageKind) -> nn.Module:
    """The network whose weights travel in a run's rounds; its own mean nothing, and the last slice model made is kept."""
    return (
        classifier(told.model, task, image)
        if told.sequence is None and told.stack is None
        else new_network(told, task, image)
    )


def new_network(
    told: Instructions, task: Task, image: ImageKind, seed: int = 0, weights: Path | None = None
) -> nn.Module:
    """The same, made anew, with the weights of a seed, and those of a file where a slice model starts from one."""
    if told.stack is not None:
        return build_head(stack_shape(told.stack, task), seed=seed)
    if told.sequence is None:
        return build_model(told.model, task, image, seed=seed, weights=weights)
    return build_head(shape_of(told.sequence, task), seed=seed)


def classifier(config: ModelConfig, task: Task, image: ImageKind) -> Classifier:
    return _classifier(json.dumps(asdict(config)), task, image)


@lru_cache(maxsize=1)
def _classifier(config: str, task: Task, image: ImageKind) -> Classifier:
    """Keyed by the configuration's JSON; seed 0, because its weights come with every message."""
    return build_model(typed(ModelConfig, json.loads(config)), task, image, seed=0)
