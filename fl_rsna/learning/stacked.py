"""A stacking as one model: the slice models of all folds, and the second model on the mean of what they say."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.choices import ImageKind
from fl_rsna.config import ModelConfig
from fl_rsna.learning.dataset import Joined
from fl_rsna.learning.encoded import Encoded
from fl_rsna.learning.saved import SavedModel
from fl_rsna.learning.sequence import SeriesHead
from fl_rsna.learning.series_lesson import head_logits
from fl_rsna.learning.stack_features import clipped_logits, stack_features
from fl_rsna.learning.trees import Floats, Forest, margins
from fl_rsna.learning.two_stage import as_probabilities
from fl_rsna.task import LabelKind, Task

Second = Callable[[pd.DataFrame, Floats, torch.device], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedStack:
    """As read from a run's folder. `second` turns an index of whole series and the folds' mean [N, L] into probabilities [N, L]."""

    path: Path  # of the second model
    folds: tuple[SavedModel, ...]
    second: Second
    facts: dict[str, Any]  # what the run said of the second model
    sha256: str  # of all of them, comparable with the run's model_sha256

    @property
    def task(self) -> Task:
        return self.folds[0].task

    @property
    def image(self) -> ImageKind:
        return self.folds[0].image

    @property
    def config(self) -> ModelConfig:
        """Of the slice models, which have the same but for what each run counted."""
        return self.folds[0].config

    @property
    def stored_size(self) -> int:
        return self.folds[0].stored_size


AnyModel = SavedModel | SavedStack


HASHED = (
    "task",
    "features",
    "prior",
    "selected_rounds",
    "platt",
    "trees",
)  # what trees are; not whose images made them


def trees_sha256(content: Mapping[str, Any]) -> str:
    """The hash of a second model of trees, from what its file holds. Raises KeyError without a part of it."""
    return hashlib.sha256(json.dumps({name: content[name] for name in HASHED}).encode()).hexdigest()


def stack_sha256(folds: Iterable[str], second: str) -> str:
    """One hash of a stacking, from those of its slice models, in the order of the folds, and of its second model."""
    return hashlib.sha256("".join([*folds, second]).encode()).hexdigest()


def mean_of_folds(found: list[Floats]) -> Floats:
    """Probabilities [N, L] that a second model looks at, of the slice models' own."""
    return np.asarray(np.mean(found, axis=0), np.float32)


def by_trees(forests: Mapping[str, Forest], features: Floats, prior: Iterable[float], task: Task) -> Floats:
    """Probabilities [N, L] of every label's trees over features [N, F]; of exclusive classes they add up to 1."""
    logits = [margins(forests[label], features, of) for label, of in zip(task.labels, prior, strict=True)]
    found = 1 / (1 + np.exp(-np.stack(logits, axis=1).astype(np.float64)))
    if task.kind is LabelKind.multi_class:
        found /= found.sum(1, keepdims=True)
    return found.astype(np.float32)


def tree_second(forests: Mapping[str, Forest], prior: Iterable[float], task: Task) -> Second:
    """Trees as a second model."""
    priors = tuple(prior)
    return lambda index, mean, device: by_trees(forests, stack_features(index, mean), priors, task)


def network_second(head: SeriesHead, task: Task) -> Second:
    """A network along the series as a second model."""

    def second(index: pd.DataFrame, mean: Floats, device: torch.device) -> Floats:
        rows = np.arange(len(index))
        seen = logits_alone(np.asarray(clipped_logits(mean), np.float32), rows[:0])
        return as_probabilities(head_logits(head, index, seen, rows, device), task)

    return second


def logits_alone(logits: Floats, train: NDArray[np.intp]) -> Encoded:
    """Logits [N, L] without features, as a head takes them: of each slice one number that says nothing."""
    nothing = np.zeros((len(logits), 1), np.float16)
    return Encoded(features=(Joined((nothing,)),), logits=(logits,), train=train)
