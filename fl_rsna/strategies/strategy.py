"""What a strategy is: what the server makes of a round's replies, what a site does differently, and what both need for it.

Notation: x is the global model that a round started from, y_i what site i made of it, p_i its weight (training slices, or 1),
d_i = y_i - x. Each strategy is one value of `Strategy` in a file of this folder, or of an installed package that declares the entry
point `fl_rsna.strategies`: find.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import TrainConfig

if TYPE_CHECKING:  # a command that only reads a strategy's settings needs no network
    from fl_rsna.learning.training.client_update import SiteRule

Vector = NDArray[np.float32]
Memory = dict[str, Vector]  # what the server remembers from round to round
C = TypeVar("C", bound=StrategyConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One site's d_i with its weight and mean training loss, for strategies that need every one."""

    change: Vector
    examples: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAggregate:
    """What the replies of a round come to."""

    mean: Vector  # of y_i: where the strategy steps weighted by p_i over the steps it counts, elsewhere by p_i
    weight: float  # sum of those weights
    examples: float  # sum of p_i
    work: float  # sum of p_i a_i, a_i the steps that a site took as the strategy counts them
    count: int  # of replies
    second: Vector | None = None  # plain mean of the sites' second vectors
    updates: tuple[Update, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[C]):
    """What a strategy has to go on when it makes the next model."""

    config: C
    rate: float  # the server's learning rate of the round
    round: int
    x: Vector
    aggregate: RoundAggregate
    num_sites: int  # in all
    stepped: NDArray[np.bool_]  # [P], where parameters lie that sites share
    trained: NDArray[np.bool_]  # [P], and those that sites train


def move_to_mean(step: Step[Any], memory: Memory) -> tuple[Vector, Memory]:
    """x + rate (mean(y_i) - x): FedAvg, McMahan et al. 2017 (arXiv:1602.05629), at a rate of 1."""
    x, mean, rate = step.x, step.aggregate.mean, step.rate
    return (mean if rate == 1 else x + np.float32(rate) * (mean - x)), memory


def need_one(config: Any) -> int:
    """The fewest sites of a strategy whose paper asks for no number of them."""
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[C]):
    """A strategy; its name and its parameters are those of `settings`.

    `next_model` gives the next global model [P] and what the server remembers, from a `Step` and what it remembered. BatchNorm's
    running statistics are no parameters: whatever steps a server takes, they are the sites' mean, weighted by p_i, for a momentum or an
    adaptive step would make variances negative. So are layers that stay at their sites. A `robust` strategy takes all of it as it takes
    parameters, so that no site can poison it.
    """

    settings: type[C]
    title: str  # as papers write it
    paper: str
    next_model: Callable[[Step[C], Memory], tuple[Vector, Memory]] = move_to_mean
    train: "SiteRule[C] | None" = None  # a site's part in a round; None is plain training
    count_steps: Callable[[TrainConfig, float], float] | None = (
        None  # a_i, by which p_i is divided; None divides by nothing
    )
    second: Callable[[Memory, int], Vector] | None = None  # the vector that travels beside the model, of so many values
    every_update: bool = False  # the server needs each d_i, not their mean alone
    robust: bool = False
    fewest_sites: Callable[[C], int] = need_one  # a round, to mean what the paper proves
    on_server: int = 0  # vectors of the model's size that the server remembers
    at_site: int = 0  # and each site
    keeps_model: bool = False  # a site keeps a model of its own, which is validated beside the global one

    @property
    def name(self) -> str:
        return self.settings().name


def take_step(strategy: Strategy[C], step: Step[C], memory: Memory) -> tuple[Vector, Memory]:
    """The next global model and what the server remembers of this round."""
    assert step.aggregate.count >= strategy.fewest_sites(step.config)
    found, memory = strategy.next_model(step, memory)
    return (found if strategy.robust else np.where(step.stepped, found, step.aggregate.mean)), memory
