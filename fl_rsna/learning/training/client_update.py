"""Train at a site for one round: what the site is given, and local training with what a strategy adds to it."""

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

PERSONAL = "personal"  # name under which a site remembers a whole model of its own, which it validates, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Generic[C]):
    """Everything that a site's training in one round is given, apart from the model."""

    data: SiteData
    objective: SliceObjective
    task: Task
    norm: Norm
    train: TrainConfig
    strategy: C
    learning_rate: float
    seed: int
    device: torch.device
    prior: tuple[float, ...] = ()  # share of positive training slices over all sites, for each label
    kept: float = 1.0  # share of the slices without the union label that a pass draws
    personal: frozenset[str] = frozenset()  # names of the parameters that stay at the site
    second: Vector | None = None  # vector sent with the model, over trained parameters that sites share
    on_batch: OnBatch = ignore_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePart:
    """The results of a site's training, apart from the model, which is trained in place."""

    result: LocalResult
    remembered: dict[str, Vector]  # for the site's next round; never leaves the site
    second: Vector | None = None  # vector to send with the model


SiteRule = Callable[[nn.Module, Round[C], dict[str, Vector]], SitePart]  # the last is what the site remembers


def train_site(
    model: nn.Module, round_: Round[Any], remembered: dict[str, Vector], train: SiteRule[Any] | None
) -> SitePart:
    """Train `model` in place by the strategy's `train`, or plainly where it is None; `remembered` is from earlier rounds."""
    start_training(model, round_.norm, round_.train, round_.device)
    if train is None:
        return SitePart(result=train_by_rule(model, round_, PLAIN), remembered={})
    return train(model, round_, remembered)


def train_by_rule(model: nn.Module, round_: Round[Any], rule: LocalRule) -> LocalResult:
    """Train `model` in place for one round, with what a strategy's rule adds to gradients, loss or logits."""
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
    """Return the trainable parameters that sites share, in the order of every vector over them."""
    return [value for name, value in model.named_parameters() if value.requires_grad and name not in personal]
