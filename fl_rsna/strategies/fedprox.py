"""FedProx: FedAvg, with sites held near the global model (Li et al. 2020, arXiv:1812.06127)."""

from dataclasses import dataclass

import torch
from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, train_by_rule
from fl_rsna.learning.training.local_rule import (
    LocalRule,
    Parameters,
    list_trainable_parameters,
    vector_of,
    views_of,
)
from fl_rsna.settings.fields import NOT_NEGATIVE, setting
from fl_rsna.settings.strategy import StrategyConfig, called
from fl_rsna.strategies.strategy import Memory, Strategy


@dataclass(kw_only=True, slots=True)
class FedProxConfig(StrategyConfig):
    name: str = called("fedprox")
    mu: float = setting(0.01, "weight of the squared distance to the global model", within=NOT_NEGATIVE, off=(0,))


def proximal(parameters: Parameters, mu: float, centre: torch.Tensor | None = None) -> LocalRule:
    """The loss plus mu/2 ||w - w_t||^2 (eq. 2), so g <- g + mu (w - w_t).

    The squared norm, over trained parameters only. `centre` [T] is w_t; None takes the parameters as they are now.
    """
    start = views_of(vector_of(parameters) if centre is None else centre, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor in zip(now, start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - anchor, alpha=mu)

    return LocalRule(correct=correct)


def train(model: nn.Module, round_: Round[FedProxConfig], remembered: Memory) -> SitePart:
    rule = proximal(list_trainable_parameters(model), round_.strategy.mu)
    return SitePart(result=train_by_rule(model, round_, rule), remembered={})


FEDPROX = Strategy(settings=FedProxConfig, title="FedProx", paper="Li et al. 2020, arXiv:1812.06127", train=train)
