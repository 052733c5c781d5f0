"""FedDyn: each site's loss gets terms that move its optimum to the federation's (Acar et al. 2021, arXiv:2111.04263)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, list_shared_parameters, train_by_rule
from fl_rsna.learning.training.local_rule import LocalRule, Parameters, to_tensor, vector_of, views_of
from fl_rsna.settings.fields import above, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector

CORRECTION, GRADIENT = "correction", "memory"  # names of what the server remembers and of what a site remembers


@dataclass(kw_only=True, slots=True)
class FedDynConfig(StrategyConfig):
    takes_step: ClassVar[bool] = False
    assumes_sgd: ClassVar[str] = (
        "takes a site's change for the gradient it stands for, which under an adaptive optimizer it is not: at its default "
        "alpha it ends farther from the optimum than FedAvg"
    )

    name: str = declare_name("feddyn")
    alpha: float = declare(0.01, "weight of the squared distance to the global model", within=above(0))

    def check(self, train: TrainConfig) -> None:
        """Raise ValueError for a server learning rate or schedule, as this server takes no step of its own."""
        plain = StrategyConfig()
        for key in ("server_learning_rate", "server_schedule"):
            value, expected = getattr(self, key), getattr(plain, key)
            if value != expected:
                raise ValueError(
                    f"strategy.{key}: expected {expected} with strategy.name=feddyn, whose server takes no step of its own, "
                    f"got {value}; leave it out"
                )


def dynamic(parameters: Parameters, memory: torch.Tensor, alpha: float) -> LocalRule:
    """Return the rule for the loss minus <h_i, w> plus alpha/2 ||w - w_t||^2 (eq. 1).

    The rule changes a gradient to g - h_i + alpha (w - w_t), where `memory` is h_i [T], the site's gradient at its last
    optimum, and w_t are `parameters` as they are now.
    """
    start, remembered = views_of(vector_of(parameters), parameters), views_of(memory, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor, past in zip(now, start, remembered, strict=True):
            assert parameter.grad is not None
            parameter.grad.sub_(past).add_(parameter.detach() - anchor, alpha=alpha)

    return LocalRule(correct=correct)


def train(model: nn.Module, round_: Round[FedDynConfig], remembered: Memory) -> SitePart:
    """Train with the added terms on shared parameters; parameters that stay at the site follow the site's loss alone."""
    shared, alpha = list_shared_parameters(model, round_.personal), round_.strategy.alpha
    start = vector_of(shared)
    memory = to_tensor(remembered.get(GRADIENT), start.numel(), round_.device)
    correct = dynamic(shared, memory, alpha).correct
    assert correct is not None
    result = train_by_rule(model, round_, LocalRule(correct=lambda trained: correct(shared)))
    memory = memory - alpha * (vector_of(shared) - start)
    return SitePart(result=result, remembered={GRADIENT: memory.cpu().numpy()})


def step_with_correction(step: Step[FedDynConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Update h <- h - alpha / m sum d_i and return mean(y_i) - h / alpha, and h for the next round (alg. 1).

    m is the number of all sites; the sum is over the sites that took part. The paper weights all sites equally.
    """
    alpha, aggregate = step.config.alpha, step.aggregate
    change = (aggregate.mean - step.x)[step.trained]
    share = np.float32(alpha * aggregate.count / step.num_sites)
    correction = memory.get(CORRECTION, np.zeros_like(change)) - share * change
    now = aggregate.mean.copy()
    now[step.trained] -= correction / np.float32(alpha)
    return now, {CORRECTION: correction}


FEDDYN = Strategy(
    settings=FedDynConfig,
    title="FedDyn",
    paper="Acar et al. 2021, arXiv:2111.04263",
    next_model=step_with_correction,
    train=train,
    on_server=1,
    at_site=1,
)
