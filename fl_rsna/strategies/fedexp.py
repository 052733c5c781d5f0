"""FedExP: the server takes a longer step where the sites' changes differ in direction (Jhunjhunwala et al. 2023, arXiv:2301.09604)."""

from dataclasses import dataclass

import numpy as np

from fl_rsna.settings.fields import above, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector


@dataclass(kw_only=True, slots=True)
class FedExPConfig(StrategyConfig):
    name: str = declare_name("fedexp")
    epsilon: float = declare(1e-3, "added to the squared norm of the mean change; large is FedAvg", within=above(0))


def step_farther(step: Step[FedExPConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Return x + rate max(1, mean ||d_i||^2 / (2 (||mean d_i||^2 + epsilon))) mean d_i (eq. 8), means weighted by p_i.

    Norms are of shared parameters alone, as changes of running variances are larger by orders of magnitude. The models oscillate around
    the optimum, so the paper reports the mean of the last two: strategy.averaging=window strategy.window=2.
    """
    stepped, updates = step.stepped, step.aggregate.updates
    change = step.aggregate.mean - step.x
    squares = [
        update.examples * float(np.sum(np.square(update.change[stepped], dtype=np.float64))) for update in updates
    ]
    of_mean = float(np.sum(np.square(change[stepped], dtype=np.float64)))
    factor = max(1.0, sum(squares) / step.aggregate.examples / (2 * (of_mean + step.config.epsilon)))
    return step.x + np.float32(step.rate * factor) * change, memory


FEDEXP = Strategy(
    settings=FedExPConfig,
    title="FedExP",
    paper="Jhunjhunwala et al. 2023, arXiv:2301.09604",
    next_model=step_farther,
    every_update=True,
)
