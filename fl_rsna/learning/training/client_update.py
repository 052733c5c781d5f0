"""A site's part in one round of each strategy: local training under its rule, and what the site remembers of it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.models.flat import FlatModel, flatten, unflatten
from fl_rsna.learning.training.local_rules import (
    PLAIN,
    ControlVariates,
    LocalRule,
    contrastive,
    dynamic,
    frozen_copy,
    list_trainable_parameters,
    prior_shift,
    proximal,
    vector_of,
)
from fl_rsna.learning.training.objectives import SliceObjective
from fl_rsna.learning.training.sampling import compute_drawn_shares
from fl_rsna.learning.training.train import LocalResult, OnBatch, ignore_progress, start_training, train_locally
from fl_rsna.settings.model import Norm
from fl_rsna.settings.strategy import StrategyConfig, StrategyName
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

Vector = NDArray[np.float32]

CONTROL, MEMORY, PREVIOUS, PERSONAL = "control", "memory", "previous", "personal"  # what a site may remember


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is the same for everything a site trains in one round."""

    data: SiteData
    lesson: SliceObjective
    task: Task
    norm: Norm
    train: TrainConfig
    strategy: StrategyConfig
    learning_rate: float
    seed: int
    device: torch.device
    prior: tuple[float, ...] = ()  # share of positive training slices of all sites, a label
    kept: float = 1.0  # share of slices without the union label that a pass draws
    personal: frozenset[str] = frozenset()  # names of the parameters that stay at the site
    control: Vector | None = None  # the server's control variate, over trained parameters that sites share
    on_batch: OnBatch = ignore_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePart:
    """What training gave besides the model, which is trained in place."""

    result: LocalResult
    remembered: dict[str, Vector]  # for the site's next round; never leaves it
    second: Vector | None = None  # travels beside the model: SCAFFOLD's change of the control variate


def train_site(model: nn.Module, round_: Round, remembered: dict[str, Vector]) -> SitePart:
    """Train `model` in place as the strategy wants, given what the site remembers of earlier rounds.

    What SCAFFOLD and FedDyn correct is how shared parameters drift apart; what stays at the site follows its own loss alone.
    """
    start_training(model, round_.norm, round_.train, round_.device)
    parameters, strategy = list_trainable_parameters(model), round_.strategy
    match strategy.name:
        case StrategyName.fedprox:
            return SitePart(result=_train(model, round_, proximal(parameters, strategy.mu)), remembered={})
        case StrategyName.scaffold:
            return _scaffold(model, round_, remembered)
        case StrategyName.feddyn:
            return _feddyn(model, round_, remembered)
        case StrategyName.moon:
            return _moon(model, round_, remembered)
        case StrategyName.ditto:
            return _ditto(model, round_, remembered)
        case StrategyName.fedavg_logit_adjusted:
            return SitePart(result=_train(model, round_, _build_logit_adjustment(round_)), remembered={})
        case _:
            return SitePart(result=_train(model, round_, PLAIN), remembered={})


def positive_share(positives: NDArray[np.float64], slices: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of positive slices a label, with half a slice added to either side so that 0 and 1 stay finite in logits."""
    return (positives + 0.5) / (slices + 1)


def list_shared_parameters(model: nn.Module, personal: frozenset[str]) -> list[torch.nn.Parameter]:
    """What the optimizer changes and sites share, in the order of every vector over it."""
    return [value for name, value in model.named_parameters() if value.requires_grad and name not in personal]


def _train(model: nn.Module, round_: Round, rule: LocalRule) -> LocalResult:
    return train_locally(
        model,
        round_.lesson,
        norm=round_.norm,
        config=round_.train,
        learning_rate=round_.learning_rate,
        seed=round_.seed,
        device=round_.device,
        rule=rule,
        on_batch=round_.on_batch,
    )


def _scaffold(model: nn.Module, round_: Round, remembered: dict[str, Vector]) -> SitePart:
    shared = list_shared_parameters(model, round_.personal)
    size = vector_of(shared).numel()
    own, server = (_to_tensor(vector, size, round_.device) for vector in (remembered.get(CONTROL), round_.control))
    variates = ControlVariates(own, server)
    result = _train(model, round_, LocalRule(correct=lambda trained: variates.correct(shared)))
    renewed = variates.compute_variate()
    return SitePart(result=result, remembered={CONTROL: _numpy(renewed)}, second=_numpy(renewed - own))


def _feddyn(model: nn.Module, round_: Round, remembered: dict[str, Vector]) -> SitePart:
    shared, alpha = list_shared_parameters(model, round_.personal), round_.strategy.alpha
    start = vector_of(shared)
    memory = _to_tensor(remembered.get(MEMORY), start.numel(), round_.device)
    correct = dynamic(shared, memory, alpha).correct
    assert correct is not None
    result = _train(model, round_, LocalRule(correct=lambda trained: correct(shared)))
    memory = memory - alpha * (vector_of(shared) - start)
    return SitePart(result=result, remembered={MEMORY: _numpy(memory)})


def _moon(model: nn.Module, round_: Round, remembered: dict[str, Vector]) -> SitePart:
    """A site that takes part for the first time has no model of its own to stay away from, and trains plainly."""
    rule, strategy = PLAIN, round_.strategy
    if PREVIOUS in remembered:
        received, previous = frozen_copy(model), frozen_copy(model)
        unflatten(FlatModel(remembered[PREVIOUS], flatten(model).integers), previous)
        rule = contrastive(received, previous, mu=strategy.mu, temperature=strategy.temperature)
    result = _train(model, round_, rule)
    return SitePart(result=result, remembered={PREVIOUS: flatten(model).floats})


def _ditto(model: nn.Module, round_: Round, remembered: dict[str, Vector]) -> SitePart:
    """Ditto (Li et al. 2021, arXiv:2012.04221, alg. 1): plain training for the shared model, and beside it a personal

    model v that stays at the site, trained on the loss plus personal/2 ||v - w_t||^2 with the same batches.
    """
    received = flatten(model)
    centre = vector_of(list_trainable_parameters(model))
    result = _train(model, replace(round_, on_batch=lambda done, of: round_.on_batch(done, 2 * of)), PLAIN)
    shared = flatten(model)
    unflatten(FlatModel(remembered.get(PERSONAL, received.floats), received.integers), model)
    start_training(model, round_.norm, round_.train, round_.device)
    again = replace(round_, on_batch=lambda done, of: round_.on_batch(of + done, 2 * of))
    _train(model, again, proximal(list_trainable_parameters(model), round_.strategy.personal, centre))
    personal = flatten(model).floats
    unflatten(shared, model)
    return SitePart(result=result, remembered={PERSONAL: personal})


def _build_logit_adjustment(round_: Round) -> LocalRule:
    rows = round_.data.rows("train")
    labels = round_.data.labels[rows]
    own = positive_share(np.nansum(labels, 0, dtype=np.float64), (~np.isnan(labels)).sum(0))
    everyone = np.array(round_.prior, np.float64)
    here, all_ = (
        torch.from_numpy(compute_drawn_shares(shares, round_.task, round_.kept)) for shares in (own, everyone)
    )
    return prior_shift(here, all_, round_.strategy.adjustment)


def _to_tensor(vector: Vector | None, size: int, device: torch.device) -> torch.Tensor:
    """What was remembered or sent, or zeros before there was anything."""
    return torch.zeros(size, device=device) if vector is None else torch.from_numpy(vector.copy()).to(device)


def _numpy(vector: torch.Tensor) -> Vector:
    return vector.cpu().numpy()
