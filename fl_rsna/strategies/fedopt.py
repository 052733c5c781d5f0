"""FedAvg with momentum (FedAvgM) or an adaptive step (FedAdagrad, FedAdam, FedYogi) on the server, by Flower's strategies.

FedAvgM (Hsu et al. 2019, arXiv:1909.06335) sets v <- beta v + (x - mean) and returns x - rate v. FedAdagrad, FedAdam and FedYogi (Reddi
et al. 2021, arXiv:2003.00295) return x + rate m / (sqrt(v) + tau).
"""

from dataclasses import dataclass
from typing import TypeVar

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fl_rsna.settings.fields import above, below, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.flower import EXAMPLES, of_mean
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector

REDDI = "Reddi et al. 2021, arXiv:2003.00295"
C = TypeVar("C", bound=StrategyConfig)


@dataclass(kw_only=True, slots=True)
class FedAvgMConfig(StrategyConfig):
    name: str = declare_name("fedavgm")
    server_momentum: float = declare(0.9, "share of the last step in the next", within=below(1), off=(0,))


@dataclass(kw_only=True, slots=True)
class FedAdagradConfig(StrategyConfig):
    name: str = declare_name("fedadagrad")
    tau: float = declare(1e-3, "adaptivity: small divides steps by their size, large does not", within=above(0))


@dataclass(kw_only=True, slots=True)
class FedAdamConfig(FedAdagradConfig):
    name: str = declare_name("fedadam")
    beta_1: float = declare(0.9, "share of the mean step so far in the next", within=below(1))
    beta_2: float = declare(0.99, "share of the mean squared step so far in the next", within=below(1))


@dataclass(kw_only=True, slots=True)
class FedYogiConfig(FedAdamConfig):
    name: str = declare_name("fedyogi")


def _step_by(rule: FlowerStrategy, step: Step[C], memory: Memory) -> tuple[Vector, Memory]:
    """Take the step of Flower's strategy on shared parameters, given its memory, and return the model and the new memory."""
    now = step.x.copy()
    now[step.stepped], memory = of_mean(rule, step.round, step.x[step.stepped], step.aggregate, step.stepped, memory)
    return now, memory


def step_by_momentum(step: Step[FedAvgMConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Take FedAvgM's step; the server remembers v."""
    rule = FedAvgM(
        weighted_by_key=EXAMPLES, server_learning_rate=step.rate, server_momentum=step.config.server_momentum
    )
    return _step_by(rule, step, memory)


def step_by_adagrad(step: Step[FedAdagradConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Take FedAdagrad's step; the server remembers m and v."""
    return _step_by(FedAdagrad(weighted_by_key=EXAMPLES, eta=step.rate, tau=step.config.tau), step, memory)


def step_by_adam(step: Step[FedAdamConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Take FedAdam's step; the server remembers m and v."""
    own = step.config
    rule = FedAdam(weighted_by_key=EXAMPLES, eta=step.rate, beta_1=own.beta_1, beta_2=own.beta_2, tau=own.tau)
    return _step_by(rule, step, memory)


def step_by_yogi(step: Step[FedYogiConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Take FedYogi's step; the server remembers m and v."""
    own = step.config
    rule = FedYogi(weighted_by_key=EXAMPLES, eta=step.rate, beta_1=own.beta_1, beta_2=own.beta_2, tau=own.tau)
    return _step_by(rule, step, memory)


FEDAVGM = Strategy(
    settings=FedAvgMConfig,
    title="FedAvgM",
    paper="Hsu et al. 2019, arXiv:1909.06335",
    next_model=step_by_momentum,
    on_server=1,
)
FEDADAGRAD = Strategy(
    settings=FedAdagradConfig, title="FedAdagrad", paper=REDDI, next_model=step_by_adagrad, on_server=2
)
FEDADAM = Strategy(settings=FedAdamConfig, title="FedAdam", paper=REDDI, next_model=step_by_adam, on_server=2)
FEDYOGI = Strategy(settings=FedYogiConfig, title="FedYogi", paper=REDDI, next_model=step_by_yogi, on_server=2)
