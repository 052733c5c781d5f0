"""Settings that every strategy has: which sites are sampled, and how their models are combined.

A strategy's own parameters are declared in fl_rsna/strategies/.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from fl_rsna.settings.fields import (
    SHARE,
    Command,
    Need,
    above,
    above_up_to,
    at_least,
    below,
    declare,
)
from fl_rsna.settings.stages import SEVERAL
from fl_rsna.settings.training import Schedule, TrainConfig


class Lost(StrEnum):
    """A round's treatment of a site that the message did not reach, or that disconnected before it replied."""

    go_on = "go_on"  # continue with the other sites, if they meet the quorum
    wait = "wait"  # wait until the site is back, at most strategy.timeout_s, and ask it again


class Weighting(StrEnum):
    """The weight of a site in the mean of the models."""

    examples = "examples"  # its number of training slices
    equal = "equal"


class Averaging(StrEnum):
    """The mean over rounds that is validated, tested and kept. Sites always train from the last round's model."""

    none = "none"
    ema = "ema"  # exponential moving average, by strategy.ema_decay
    window = "window"  # mean of the last strategy.window rounds


def _averages(how: Averaging) -> Need:
    return Need(f"strategy.averaging={how}", lambda asked: asked.config.strategy.averaging is how)


SAMPLED = Need("strategy.fraction below 1, or every site is sampled", lambda asked: asked.config.strategy.fraction < 1)
WEIGHED = Need(
    "a strategy that takes a mean of its own weights",
    lambda asked: asked.config.strategy.takes_weights,
)
DEPLOYED = Need(
    "sites on machines of their own: python -m fl_rsna.coordinate",
    lambda asked: asked.command is Command.coordinate,
)
STEPPING = Need(
    "a strategy whose server takes a step of its own rate, as FedAvg's does",
    lambda asked: asked.config.strategy.takes_step,
)


def declare_name(name: str) -> str:
    """Declare the field `name` of a strategy's settings, with the strategy's name as default."""
    return declare(name, "strategy: how models are combined, and how sites train")


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    """Settings that every strategy has. A strategy with its own parameters declares them in a dataclass that inherits from this one."""

    takes_weights: ClassVar[bool] = True  # False: the strategy weights sites by a rule of its own
    takes_step: ClassVar[bool] = True  # False: the strategy's server has no learning rate
    assumes_sgd: ClassVar[str] = ""  # what goes wrong with another optimizer than SGD, as part of a warning

    name: str = declare_name("fedavg")
    fraction: float = declare(
        1.0, "share of the sites that is sampled in each round", within=above_up_to(0, 1), needs=(SEVERAL,), off=(1,)
    )
    min_sites: int = declare(
        1,
        "smallest number of sites that is sampled in a round",
        within=at_least(1),
        needs=(SEVERAL, SAMPLED),
        off=(1,),
        may_be_idle=True,
    )
    weighting: Weighting = declare(
        Weighting.examples,
        "weight of a site in the mean of the models",
        needs=(SEVERAL, WEIGHED),
        off=(Weighting.equal,),  # strategies that take no mean weight all sites equally
    )
    quorum: float = declare(0.5, "share of the sampled sites that must reply; with fewer the run stops", within=SHARE)
    timeout_s: float = declare(
        3600.0,
        "deployment: seconds to wait for the replies of one phase of a round, and for unreachable sites",
        within=above(0),
        needs=(DEPLOYED,),
    )
    lost: Lost = declare(Lost.go_on, "what a round does about an unreachable site", needs=(DEPLOYED,))
    max_update: float = declare(
        10.0,
        "largest norm of an update, as a multiple of the model's norm; a larger one is refused as exploded",
        within=above(0),
    )
    averaging: Averaging = declare(
        Averaging.none, "mean over rounds that is validated, tested and kept; sites train from the last round's model"
    )
    ema_decay: float = declare(
        0.9, "weight of the previous mean in the new mean", within=below(1), needs=(_averages(Averaging.ema),)
    )
    window: int = declare(
        3, "number of last rounds in the mean", within=at_least(1), needs=(_averages(Averaging.window),)
    )
    server_learning_rate: float = declare(
        1.0,
        "learning rate of the server's step; with 1 the new model is the sites' mean",
        within=above(0),
        needs=(STEPPING,),
        off=(1,),
    )
    server_schedule: Schedule = declare(
        Schedule.constant,
        "how the server's learning rate changes from round to round",
        needs=(STEPPING,),
        off=(Schedule.constant,),
    )

    def check(self, train: TrainConfig) -> None:
        """Raise ValueError for training settings that the strategy does not support. This one supports all."""
