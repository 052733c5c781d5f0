"""How sites are asked and their models combined: what every strategy has. What one has of its own: fl_rsna/strategies/."""

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
    """What a round does about a site that its message did not reach, or that went away before it answered."""

    go_on = "go_on"  # with the others, if they are a quorum
    wait = "wait"  # until it is back or strategy.timeout_s is over, and ask it again


class Weighting(StrEnum):
    """How much a site counts in a mean."""

    examples = "examples"  # by its training slices
    equal = "equal"


class Averaging(StrEnum):
    """Which mean over rounds is the model that is validated, tested and kept; sites always train from the last one."""

    none = "none"
    ema = "ema"  # exponential, by strategy.ema_decay
    window = "window"  # of the last strategy.window rounds


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
    """The field `name` of a strategy's settings."""
    return declare(name, "how models are combined, and what sites do differently")


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    """What every strategy has. One with parameters of its own declares them in a dataclass that inherits from this one."""

    takes_weights: ClassVar[bool] = True  # False: weighs sites by a rule of its own
    takes_step: ClassVar[bool] = True  # False: its server has no learning rate
    assumes_sgd: ClassVar[str] = ""  # what goes wrong under an adaptive optimizer, which its paper does not have

    name: str = declare_name("fedavg")
    fraction: float = declare(
        1.0, "share of the sites that is sampled each round", within=above_up_to(0, 1), needs=(SEVERAL,), off=(1,)
    )
    min_sites: int = declare(
        1,
        "sites that are sampled at least",
        within=at_least(1),
        needs=(SEVERAL, SAMPLED),
        off=(1,),
        may_be_idle=True,
    )
    weighting: Weighting = declare(
        Weighting.examples,
        "how much a site counts in a mean",
        needs=(SEVERAL, WEIGHED),
        off=(Weighting.equal,),  # strategies that take no mean weigh all sites alike
    )
    quorum: float = declare(0.5, "share of the sampled sites that must reply, or the run stops", within=SHARE)
    timeout_s: float = declare(
        3600.0,
        "deployment: seconds for the replies of one phase of a round, and for sites that are not there",
        within=above(0),
        needs=(DEPLOYED,),
    )
    lost: Lost = declare(Lost.go_on, "what is done about a site that went away", needs=(DEPLOYED,))
    max_update: float = declare(
        10.0, "an update larger than so many times the model's own norm is refused as exploded", within=above(0)
    )
    averaging: Averaging = declare(
        Averaging.none, "which mean over rounds is validated, tested and kept; sites train from the last model"
    )
    ema_decay: float = declare(
        0.9, "weight of the mean so far in the new one", within=below(1), needs=(_averages(Averaging.ema),)
    )
    window: int = declare(3, "rounds whose mean is shown", within=at_least(1), needs=(_averages(Averaging.window),))
    server_learning_rate: float = declare(
        1.0, "learning rate of the server's step; 1 takes the sites' mean", within=above(0), needs=(STEPPING,), off=(1,)
    )
    server_schedule: Schedule = declare(
        Schedule.constant,
        "how the server's rate goes from round to round",
        needs=(STEPPING,),
        off=(Schedule.constant,),
    )

    def check(self, train: TrainConfig) -> None:
        """Refuse what the strategy's paper has no place for; raises ValueError with the key's path."""
