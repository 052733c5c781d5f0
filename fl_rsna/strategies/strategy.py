"""Define a strategy: how the server makes the next model from a round's replies, how a site trains, and what both need for it.

Notation: x is the global model that a round started from, y_i what site i made of it, p_i its weight (training slices, or 1),
d_i = y_i - x. Each strategy is one value of `Strategy`, in a file of this folder or in an installed package that declares the entry
point `fl_rsna.strategies` (see find.py).
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
    """The means and sums of a round's replies."""

    mean: Vector  # [P] of y_i, weighted by p_i / a_i where parameters are shared, elsewhere by p_i; a_i is 1 without count_steps
    weight: float  # sum of those weights
    examples: float  # sum of p_i
    work: float  # sum of p_i a_i, where a_i are the site's steps as `count_steps` of the strategy counts them
    count: int  # number of replies
    second: Vector | None = None  # plain mean of the sites' second vectors
    updates: tuple[Update, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[C]):
    """Everything from which a strategy makes the next model."""

    config: C
    rate: float  # the server's learning rate of the round
    round: int
    x: Vector
    aggregate: RoundAggregate
    num_sites: int  # all sites of the run, also those that this round did not ask
    stepped: NDArray[np.bool_]  # [P], true for parameters that sites share
    trained: NDArray[np.bool_]  # [P], true for parameters that sites train and share


def move_to_mean(step: Step[Any], memory: Memory) -> tuple[Vector, Memory]:
    """Return x + rate (mean(y_i) - x), which at a rate of 1 is FedAvg (McMahan et al. 2017, arXiv:1602.05629)."""
    x, mean, rate = step.x, step.aggregate.mean, step.rate
    return (mean if rate == 1 else x + np.float32(rate) * (mean - x)), memory


def need_one(config: Any) -> int:
    """Return 1, the fewest sites of a strategy whose paper states no minimum."""
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[C]):
    """A strategy; its name and its parameters are those of `settings`.

    `next_model` takes a `Step` and the server's memory, and returns the next global model [P] and the new memory. BatchNorm's running
    statistics are not parameters: they are always the sites' mean, weighted by p_i, because a momentum or an adaptive step could make
    variances negative. The same holds for layers that stay at their sites. A `robust` strategy aggregates all values as it does
    parameters, so that no site can poison the statistics.
    """

    settings: type[C]
    title: str  # the name as papers write it
    paper: str
    next_model: Callable[[Step[C], Memory], tuple[Vector, Memory]] = move_to_mean
    train: "SiteRule[C] | None" = None  # a site's part in a round; None is plain training
    count_steps: Callable[[TrainConfig, float], float] | None = (
        None  # a_i, by which p_i is divided; None divides by nothing
    )
    second: Callable[[Memory, int], Vector] | None = None  # (memory, size) -> a vector that is sent with the model
    every_update: bool = False  # the server needs each d_i, not their mean alone
    robust: bool = False
    fewest_sites: Callable[[C], int] = need_one  # the fewest sites in a round for which the paper's proof holds
    on_server: int = 0  # vectors of the model's size that the server remembers
    at_site: int = 0  # vectors of the model's size that each site remembers
    keeps_model: bool = False  # a site keeps a model of its own, which is validated beside the global one

    @property
    def name(self) -> str:
        """The name by which the settings choose the strategy."""
        return self.settings().name


def take_step(strategy: Strategy[C], step: Step[C], memory: Memory) -> tuple[Vector, Memory]:
    """Return the next global model and the server's new memory.

    Where `stepped` is false (statistics and layers that stay at sites), the model is the sites' mean, unless the strategy is robust.
    """
    assert step.aggregate.count >= strategy.fewest_sites(step.config)
    found, memory = strategy.next_model(step, memory)
    return (found if strategy.robust else np.where(step.stepped, found, step.aggregate.mean)), memory
