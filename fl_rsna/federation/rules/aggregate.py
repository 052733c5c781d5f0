"""What the replies of a round come to, for whatever rule makes the next model of it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Memory = dict[str, Vector]  # what the server remembers from round to round


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One site's d_i with its weight and mean training loss, for strategies that need every one."""

    change: Vector
    examples: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAggregate:
    """What the replies of a round come to."""

    mean: Vector  # of y_i: where the strategy steps weighted by `fold_weight`, elsewhere by p_i
    weight: float  # sum of those weights
    examples: float  # sum of p_i
    work: float  # sum of p_i a_i, a_i the steps a site took as FedNova counts them
    count: int  # of replies
    second: Vector | None = None  # plain mean of the sites' second vectors
    updates: tuple[Update, ...] = field(default=())
