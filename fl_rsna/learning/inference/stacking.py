"""A stacking as one model: the slice models of all folds, and the second model on the mean of what they say.

The second model sees of a slice what slice models say of it, of its neighbours and of its whole series: probabilities and the
place in the series, nothing else, so no id, no header and nothing of another series. Values lie on a public grid, so that a tree's
threshold, which leaves a site, is never the very value of one slice.
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

NEIGHBOURS = (-3, -2, -1, 1, 2, 3)  # slices away, in anatomical order
WINDOWS = (3, 5, 7, 9)  # slices, centred
ROLLING = ("mean", "min", "max", "std")
SERIES = ("mean", "max", "std", "quantile_75")
LOGIT = 10.0  # logits end here, on either side
GRID = 64  # steps a unit
Second = Callable[[pd.DataFrame, Floats, torch.device], Floats]
HASHED = (
    "task",
    "features",
    "prior",
    "selected_rounds",
    "platt",
    "trees",
)  # what trees are; not whose images made them


def stack_features(index: pd.DataFrame, probabilities: NDArray[np.floating]) -> Floats:
    """float32 [N, F], a row a slice of `index` in its order, of its probabilities [N, L]; columns as `feature_names` has them.

    `index` needs series_id and rank, and patient_id where a series' name is not its own. Beyond the ends of a series its
    last slice stands in, also inside the windows; a slice of unknown order is its own neighbour, and lies in the middle.
    """
    logits = clip_logits(probabilities)
    found = np.empty((len(index), len(feature_names([""] * logits.shape[1]))), np.float32)
    known = find_placed_rows(index)
    for rows in in_order(index):
        found[rows] = _of_series(logits[rows], known[rows])
    return np.asarray(np.rint(found * GRID) / GRID, np.float32)


def clip_logits(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits of [N, L], at most LOGIT on either side of 0."""
    return np.clip(finite_logits(probabilities), -LOGIT, LOGIT)


def in_order(index: pd.DataFrame) -> list[NDArray[np.intp]]:
    """Positions of each series' slices, from one end of the head to the other."""
    keys = [name for name in ("patient_id", "series_id") if name in index]
    table = index.reset_index(drop=True)
    return [
        np.asarray(rows.index.to_numpy(), np.intp) for _, rows in table.sort_values("rank", kind="stable").groupby(keys)
    ]


def feature_names(labels: list[str] | tuple[str, ...]) -> list[str]:
    """Names of the columns, in their order."""
    return [
        *(f"logit/{label}" for label in labels),
        *(f"neighbour{step:+d}/{label}" for step in NEIGHBOURS for label in labels),
        *(f"rolling{width}_{how}/{label}" for width in WINDOWS for how in ROLLING for label in labels),
        *(f"series_{how}/{label}" for how in SERIES for label in labels),
        "relative_position",
    ]


def _of_series(logits: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[n, F] of one series' logits [n, L] in order; `known` [n] says which slices have a place, and these come first."""
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
    def config(self) -> RunModel:
        """Of the slice models, which have the same but for what each run counted."""
        return self.folds[0].config

    @property
    def png_size(self) -> int:
        return self.folds[0].png_size


AnyModel = SavedModel | SavedStack


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
        seen = logits_alone(np.asarray(clip_logits(mean), np.float32), rows[:0])
        return as_probabilities(head_logits(head, index, seen, rows, device), task)

    return second


def logits_alone(logits: Floats, train: NDArray[np.intp]) -> Encoded:
    """Logits [N, L] without features, as a head takes them: of each slice one number that says nothing."""
    nothing = np.zeros((len(logits), 1), np.float16)
    return Encoded(features=(Joined((nothing,)),), logits=(logits,), train=train)
