"""FedCM: every site's gradient is mixed with the federation's last one (Xu et al. 2021, arXiv:2106.10874)."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, list_shared_parameters, train_by_rule
from fl_rsna.learning.training.local_rule import LocalRule, to_tensor, vector_of, views_of
from fl_rsna.settings.fields import above_up_to, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector, move_to_mean


@dataclass(kw_only=True, slots=True)
class FedCMConfig(StrategyConfig):
    name: str = declare_name("my_strategy")
    alpha: float = declare(0.1, "share of a site's own gradient in its steps; 1 is FedAvg", within=above_up_to(0, 1))


def train(model: nn.Module, round_: Round[FedCMConfig], remembered: Memory) -> SitePart:
    """g <- alpha g + (1 - alpha) delta, with delta [T] the mean gradient of the last round; sends the site's own mean."""
    shared, alpha = list_shared_parameters(model, round_.personal), round_.strategy.alpha
    delta = to_tensor(round_.second, vector_of(shared).numel(), round_.device)
    total, steps = delta * 0, 0

    def correct(_: object) -> None:
        nonlocal steps
        for parameter, last, summed in zip(shared, views_of(delta, shared), views_of(total, shared), strict=True):
            assert parameter.grad is not None
            parameter.grad.mul_(alpha).add_(last, alpha=1 - alpha)
            summed.add_(parameter.grad)
        steps += 1

    result = train_by_rule(model, round_, LocalRule(correct=correct))
    return SitePart(result=result, remembered={}, second=(total / steps).cpu().numpy())


def step_to_mean(step: Step[FedCMConfig], memory: Memory) -> tuple[Vector, Memory]:
    """FedAvg's step; what the sites' steps had for a gradient, on average, is the next round's delta."""
    assert step.aggregate.second is not None
    return move_to_mean(step, memory)[0], {"delta": step.aggregate.second}


MY_STRATEGY = Strategy(
    settings=FedCMConfig,
    title="FedCM",
    paper="Xu et al. 2021, arXiv:2106.10874",
    next_model=step_to_mean,
    train=train,
    second=lambda memory, size: memory.get("delta", np.zeros(size, np.float32)),
    on_server=1,
)
