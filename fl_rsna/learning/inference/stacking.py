"""A stacking as one model: the slice models of all folds, and a second model on the mean of their probabilities.

For each slice, the second model is given the probabilities of the slice, of its neighbours and of its whole series, and the place in the
series. It is given no id, no header and nothing of another series. Values are rounded to a public grid, so that a tree's threshold, which
leaves a site, is never the exact value of one slice.
"""

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

from fl_rsna.cohort.prepared.series import find_placed_rows
from fl_rsna.learning.data.dataset import Joined
from fl_rsna.learning.inference.features import Encoded
from fl_rsna.learning.inference.series_objective import head_logits
from fl_rsna.learning.metrics.saturation import finite_logits
from fl_rsna.learning.models.saved import SavedModel
from fl_rsna.learning.models.series_head import SeriesHead, as_probabilities
from fl_rsna.learning.models.trees import Floats, Forest, margins
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import RunModel
from fl_rsna.task import LabelKind, Task

NEIGHBOURS = (-3, -2, -1, 1, 2, 3)  # distances in slices, in anatomical order
WINDOWS = (3, 5, 7, 9)  # widths in slices of windows around a slice
ROLLING = ("mean", "min", "max", "std")
SERIES = ("mean", "max", "std", "quantile_75")
LOGIT = 10.0  # greatest absolute logit
GRID = 64  # steps of the grid in a unit
Second = Callable[[pd.DataFrame, Floats, torch.device], Floats]
HASHED = ("task", "features", "prior", "selected_rounds", "platt", "trees")  # hashed parts of a tree model's file


def stack_features(index: pd.DataFrame, probabilities: NDArray[np.floating]) -> Floats:
    """Compute features, float32 [N, F], of the slices of `index` from their probabilities [N, L].

    The columns are those of `feature_names`. `index` needs series_id and rank, and patient_id where series of two patients can have one
    name. Beyond the ends of a series its last slice is repeated, also inside the windows. A slice of unknown order is its own neighbour
    and has the place in the middle.
    """
    logits = clip_logits(probabilities)
    found = np.empty((len(index), len(feature_names([""] * logits.shape[1]))), np.float32)
    known = find_placed_rows(index)
    keys = [name for name in ("patient_id", "series_id") if name in index]
    for _, series in index.reset_index(drop=True).sort_values("rank", kind="stable").groupby(keys):
        rows = np.asarray(series.index.to_numpy(), np.intp)  # from one end of the head to the other
        found[rows] = _of_series(logits[rows], known[rows])
    return np.asarray(np.rint(found * GRID) / GRID, np.float32)


def clip_logits(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert probabilities [N, L] to logits, clipped to -LOGIT and LOGIT."""
    return np.clip(finite_logits(probabilities), -LOGIT, LOGIT)


def feature_names(labels: list[str] | tuple[str, ...]) -> list[str]:
    """Return the names of the columns of `stack_features`, in their order."""
    return [
        *(f"logit/{label}" for label in labels),
        *(f"neighbour{step:+d}/{label}" for step in NEIGHBOURS for label in labels),
        *(f"rolling{width}_{how}/{label}" for width in WINDOWS for how in ROLLING for label in labels),
        *(f"series_{how}/{label}" for how in SERIES for label in labels),
        "relative_position",
    ]


def _of_series(logits: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute features [n, F] of one series' logits [n, L] in order; `known` [n] is true for slices with a place, which come first."""
    n, placed, place = len(logits), int(known.sum()), np.arange(len(logits))
    steps = np.clip(place[:, None] + np.arange(-4, 5), 0, placed - 1)
    around = logits[np.where(known[:, None], steps, place[:, None])]  # [n, 9, L]
    windows = [around[:, 4 - width // 2 : 5 + width // 2] for width in WINDOWS]
    rolled = [
        how for part in windows for how in (part.mean(1), part.min(1), part.max(1), part.std(1))
    ]  # in the order of ROLLING
    whole = [logits.mean(0), logits.max(0), logits.std(0), np.quantile(logits, 0.75, axis=0)]
    position = np.where(known, place / max(1, placed - 1), 0.5) if placed > 1 else np.full(n, 0.5)
    return np.concatenate(
        [
            logits,
            *(around[:, 4 + step] for step in NEIGHBOURS),
            *rolled,
            *(np.broadcast_to(row, logits.shape) for row in whole),
            position[:, None],
        ],
        axis=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedStack:
    """A stacking as read from a run's folder."""

    path: Path  # file of the second model
    folds: tuple[SavedModel, ...]
    second: Second  # (index of whole series, mean of the folds [N, L], device) -> probabilities [N, L]
    facts: dict[str, Any]  # facts that the run recorded about the second model
    sha256: str  # hash of all models together, comparable with the run's model_sha256

    @property
    def task(self) -> Task:
        """The task of the slice models."""
        return self.folds[0].task

    @property
    def image(self) -> ImageKind:
        """The kind of images of the slice models."""
        return self.folds[0].image

    @property
    def config(self) -> RunModel:
        """The settings of the first slice model; the others differ only in numbers that their runs counted."""
        return self.folds[0].config

    @property
    def png_size(self) -> int:
        """The side in pixels of the PNGs on which the slice models were trained."""
        return self.folds[0].png_size


AnyModel = SavedModel | SavedStack


def trees_sha256(content: Mapping[str, Any]) -> str:
    """Hash a second model of trees, from the content of its file; raises KeyError when a part is missing."""
    return hashlib.sha256(json.dumps({name: content[name] for name in HASHED}).encode()).hexdigest()


def stack_sha256(folds: Iterable[str], second: str) -> str:
    """Hash a stacking, from the hashes of its slice models, in the order of the folds, and of its second model."""
    return hashlib.sha256("".join([*folds, second]).encode()).hexdigest()


def mean_of_folds(found: list[Floats]) -> Floats:
    """Return the mean of the slice models' probabilities [N, L], the input of a second model."""
    return np.asarray(np.mean(found, axis=0), np.float32)


def by_trees(forests: Mapping[str, Forest], features: Floats, prior: Iterable[float], task: Task) -> Floats:
    """Compute probabilities [N, L] from every label's trees over features [N, F]; those of exclusive classes add up to 1."""
    logits = [margins(forests[label], features, of) for label, of in zip(task.labels, prior, strict=True)]
    found = 1 / (1 + np.exp(-np.stack(logits, axis=1).astype(np.float64)))
    if task.kind is LabelKind.multi_class:
        found /= found.sum(1, keepdims=True)
    return found.astype(np.float32)


def tree_second(forests: Mapping[str, Forest], prior: Iterable[float], task: Task) -> Second:
    """Return the function of a second model of trees."""
    priors = tuple(prior)
    return lambda index, mean, device: by_trees(forests, stack_features(index, mean), priors, task)


def network_second(head: SeriesHead, task: Task) -> Second:
    """Return the function of a second model that is a network along the series."""

    def second(index: pd.DataFrame, mean: Floats, device: torch.device) -> Floats:
        rows = np.arange(len(index))
        seen = logits_alone(np.asarray(clip_logits(mean), np.float32), rows[:0])
        return as_probabilities(head_logits(head, index, seen, rows, device), task)

    return second


def logits_alone(logits: Floats, train: NDArray[np.intp]) -> Encoded:
    """Wrap logits [N, L] as the input of a head, with one feature of 0 for each slice."""
    nothing = np.zeros((len(logits), 1), np.float16)
    return Encoded(features=(Joined((nothing,)),), logits=(logits,), train=train)
