"""FedNova: each change is divided by the steps behind it, so large sites do not count twice (Wang et al. 2020, arXiv:2007.07481)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.settings.training import Optimizer, TrainConfig
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector


@dataclass(kw_only=True, slots=True)
class FedNovaConfig(StrategyConfig):
    assumes_sgd: ClassVar[str] = (
        "divides each site's change by its steps, as if a step's length were its gradient's, which under an adaptive "
        "optimizer it is not"
    )

    name: str = declare_name("fednova")


def count_steps(train: TrainConfig, steps: float) -> float:
    """Return a_i of a site that took `steps` steps: their number, or under SGD with momentum the norm of its gradients' weights.

    With momentum rho and K steps, a_i is (K - rho (1 - rho^K) / (1 - rho)) / (1 - rho) (section 4.2).
    """
    rho = train.momentum if train.optimizer is Optimizer.sgd else 0.0
    return float((steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho))


def step_by_steps(step: Step[FedNovaConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Return x + rate (sum p_i a_i / sum p_i) sum p_i d_i / a_i / sum p_i (eq. 9)."""
    aggregate = step.aggregate
    effective = aggregate.work / aggregate.examples  # steps
    scale = np.float32(step.rate * effective * aggregate.weight / aggregate.examples)
    return step.x + scale * (aggregate.mean - step.x), memory


FEDNOVA = Strategy(
    settings=FedNovaConfig,
    title="FedNova",
    paper="Wang et al. 2020, arXiv:2007.07481",
    next_model=step_by_steps,
    count_steps=count_steps,
)
