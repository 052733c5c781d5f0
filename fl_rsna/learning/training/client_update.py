"""A site's part in one round: what it is given, and local training under what a strategy adds to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.training.local_rule import PLAIN, LocalRule
from fl_rsna.learning.training.objectives import SliceObjective
from fl_rsna.learning.training.train import LocalResult, OnBatch, ignore_progress, start_training, train_locally
from fl_rsna.settings.model import Norm
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

Vector = NDArray[np.float32]
C = TypeVar("C", bound=StrategyConfig)

PERSONAL = "personal"  # what a site remembers under this name is a whole model of its own, which it validates, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Generic[C]):
    """What is the same for everything a site trains in one round."""

    data: SiteData
    objective: SliceObjective
    task: Task
    norm: Norm
    train: TrainConfig
    strategy: C
    learning_rate: float
    seed: int
    device: torch.device
    prior: tuple[float, ...] = ()  # share of positive training slices of all sites, a label
    kept: float = 1.0  # share of slices without the union label that a pass draws
    personal: frozenset[str] = frozenset()  # names of the parameters that stay at the site
    second: Vector | None = None  # what the server sent beside the model, over trained parameters that sites share
    on_batch: OnBatch = ignore_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePart:
    """What training gave besides the model, which is trained in place."""

    result: LocalResult
    remembered: dict[str, Vector]  # for the site's next round; never leaves it
    second: Vector | None = None  # travels beside the model


SiteRule = Callable[
    [nn.Module, Round[C], dict[str, Vector]], SitePart
]  # given what the site remembers of earlier rounds


def train_site(
    model: nn.Module, round_: Round[Any], remembered: dict[str, Vector], train: SiteRule[Any] | None
) -> SitePart:
    """Train `model` in place as the strategy's `train` does it, or plainly, given what the site remembers of earlier rounds."""
    start_training(model, round_.norm, round_.train, round_.device)
    if train is None:
        return SitePart(result=train_by_rule(model, round_, PLAIN), remembered={})
    return train(model, round_, remembered)


def train_by_rule(model: nn.Module, round_: Round[Any], rule: LocalRule) -> LocalResult:
    """Local training of a round, with what a strategy adds to gradients, loss or logits."""
    return train_locally(
        model,
        round_.objective,
        norm=round_.norm,
        config=round_.train,
        learning_rate=round_.learning_rate,
        seed=round_.seed,
        device=round_.device,
        rule=rule,
        on_batch=round_.on_batch,
    )


def list_shared_parameters(model: nn.Module, personal: frozenset[str]) -> list[torch.nn.Parameter]:
    """What the optimizer changes and sites share, in the order of every vector over it."""
    return [value for name, value in model.named_parameters() if value.requires_grad and name not in personal]
