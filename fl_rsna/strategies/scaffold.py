"""SCAFFOLD: control variates correct each site's gradients for the drift of its model (Karimireddy et al. 2020, arXiv:1910.06378)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, list_shared_parameters, train_by_rule
from fl_rsna.learning.training.local_rule import LocalRule, Parameters, to_tensor, vector_of, views_of
from fl_rsna.settings.strategy import StrategyConfig, Weighting, declare_name
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector

CONTROL = "control"  # name under which the server and a site remember their control variate


@dataclass(kw_only=True, slots=True)
class ScaffoldConfig(StrategyConfig):
    name: str = declare_name("scaffold")

    def check(self, train: TrainConfig) -> None:
        """Raise ValueError unless all sites count equally."""
        if self.weighting is not Weighting.equal:
            raise ValueError(
                "strategy.weighting: expected equal with strategy.name=scaffold, whose control variates end where sites count "
                f"alike, got {self.weighting}; say strategy=scaffold or strategy.weighting=equal"
            )


class ControlVariates:
    """Control variates of one site's training, which change each gradient to g - c_i + c (eq. 3).

    c_i, the site's, and c, the server's, are vectors [T]. The new c_i is the mean of the site's own gradients over its
    steps. Under plain SGD with rate r and K steps this equals option II of the paper, c_i - c + (w_t - w) / (K r); unlike
    that formula, the mean gradient is valid under every optimizer.
    """

    def __init__(self, site: torch.Tensor, server: torch.Tensor) -> None:
        self._site, self._shift = site, server - site
        self._total, self._steps = torch.zeros_like(site), 0

    def correct(self, now: Parameters) -> None:
        """Add the parameters' gradients to the site's total, then shift them in place by c - c_i."""
        gradients = [parameter.grad for parameter in now]
        for gradient, shift, total in zip(
            gradients, views_of(self._shift, now), views_of(self._total, now), strict=True
        ):
            assert gradient is not None
            total.add_(gradient)
            gradient.add_(shift)
        self._steps += 1

    def compute_variate(self) -> torch.Tensor:
        """Return the site's new control variate [T], the mean gradient over the steps so far."""
        return self._total / self._steps


def train(model: nn.Module, round_: Round[ScaffoldConfig], remembered: Memory) -> SitePart:
    """Train with corrected gradients on shared parameters; parameters that stay at the site follow the site's loss alone."""
    shared = list_shared_parameters(model, round_.personal)
    size = vector_of(shared).numel()
    own, server = (to_tensor(vector, size, round_.device) for vector in (remembered.get(CONTROL), round_.second))
    variates = ControlVariates(own, server)
    result = train_by_rule(model, round_, LocalRule(correct=lambda trained: variates.correct(shared)))
    renewed = variates.compute_variate()
    change = (renewed - own).cpu().numpy()
    return SitePart(result=result, remembered={CONTROL: renewed.cpu().numpy()}, second=change)


def step_with_control(step: Step[ScaffoldConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Return x + rate (mean(y_i) - x) and the server's new variate, c + m / N mean(change of c_i), for m of N sites."""
    x, aggregate = step.x, step.aggregate
    assert aggregate.second is not None
    control = memory.get(CONTROL, np.zeros_like(aggregate.second))
    share = np.float32(aggregate.count / step.num_sites)
    return x + step.rate * (aggregate.mean - x), {CONTROL: control + share * aggregate.second}


def control_of(memory: Memory, size: int) -> Vector:
    """Return the server's control variate [`size`], which is sent with the model; zeros before the first round."""
    return memory.get(CONTROL, np.zeros(size, np.float32))


SCAFFOLD = Strategy(
    settings=ScaffoldConfig,
    title="SCAFFOLD",
    paper="Karimireddy et al. 2020, arXiv:1910.06378",
    next_model=step_with_control,
    train=train,
    second=control_of,
    on_server=1,
    at_site=1,
)
