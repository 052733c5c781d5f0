"""How sites are asked and their models combined: what every strategy shares, and what each has of its own."""

from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import (
    NOT_NEGATIVE,
    SHARE,
    Command,
    Need,
    above,
    above_up_to,
    at_least,
    below,
    setting,
)
from fl_rsna.settings.stages import SEVERAL
from fl_rsna.settings.training import Schedule


class StrategyName(StrEnum):
    """Strategies; papers and equations are in federation/rules/server_rules.py and learning/training/local_rules.py."""

    fedavg = "fedavg"
    fedavgm = "fedavgm"
    fedadagrad = "fedadagrad"
    fedadam = "fedadam"
    fedyogi = "fedyogi"
    fedmedian = "fedmedian"
    fedtrimmedavg = "fedtrimmedavg"
    krum = "krum"
    multikrum = "multikrum"
    bulyan = "bulyan"
    qfedavg = "qfedavg"
    fedprox = "fedprox"
    scaffold = "scaffold"
    fednova = "fednova"
    feddyn = "feddyn"
    moon = "moon"
    ditto = "ditto"
    fedavg_logit_adjusted = "fedavg_logit_adjusted"


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


OF_EACH = (
    StrategyName.fedmedian,
    StrategyName.fedtrimmedavg,
    StrategyName.krum,
    StrategyName.multikrum,
    StrategyName.bulyan,
)


def _by(*names: StrategyName) -> tuple[Need, ...]:
    return (Need(f"strategy={' or '.join(names)}", lambda asked: asked.config.strategy.name in names),)


def _averages(how: Averaging) -> Need:
    return Need(f"strategy.averaging={how}", lambda asked: asked.config.strategy.averaging is how)


SAMPLED = Need("strategy.fraction below 1, or every site is sampled", lambda asked: asked.config.strategy.fraction < 1)
WEIGHED = Need(
    "a strategy that takes a mean of its own weights",
    lambda asked: asked.config.strategy.name not in (*OF_EACH, StrategyName.qfedavg),
)
DEPLOYED = Need(
    "sites on machines of their own: python -m fl_rsna.coordinate",
    lambda asked: asked.command is Command.coordinate,
)
STEPPING = Need(
    f"a strategy that takes a step: none of {', '.join(OF_EACH)} and feddyn",
    lambda asked: asked.config.strategy.name not in (*OF_EACH, StrategyName.feddyn),
)


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    name: StrategyName = setting(StrategyName.fedavg, "how models are combined, and what sites do differently")
    fraction: float = setting(
        1.0, "of the sites, sampled each round", within=above_up_to(0, 1), needs=(SEVERAL,), off=(1,)
    )
    min_sites: int = setting(
        1,
        "sampled at least",
        within=at_least(1),
        needs=(SEVERAL, SAMPLED),
        off=(1,),
        may_be_idle=True,
    )
    weighting: Weighting = setting(
        Weighting.examples,
        "how much a site counts in a mean",
        needs=(SEVERAL, WEIGHED),
        off=(Weighting.equal,),  # strategies that take no mean weigh all sites alike
    )
    quorum: float = setting(0.5, "share of the sampled sites that must reply, or the run stops", within=SHARE)
    timeout_s: float = setting(
        3600.0,
        "deployment: for the replies of one phase of a round, and for sites that are not there",
        within=above(0),
        needs=(DEPLOYED,),
    )
    lost: Lost = setting(Lost.go_on, "what is done about a site that went away", needs=(DEPLOYED,))
    max_update: float = setting(
        10.0, "an update larger than so many times the model's own norm is refused as exploded", within=above(0)
    )
    averaging: Averaging = setting(
        Averaging.none, "which mean over rounds is validated, tested and kept; sites train from the last model"
    )
    ema_decay: float = setting(
        0.9, "weight of the mean so far in the new one", within=below(1), needs=(_averages(Averaging.ema),)
    )
    window: int = setting(3, "rounds", within=at_least(1), needs=(_averages(Averaging.window),))
    server_learning_rate: float = setting(
        1.0, "of the server's step; 1 takes the sites' mean", within=above(0), needs=(STEPPING,), off=(1,)
    )
    server_schedule: Schedule = setting(
        Schedule.constant,
        "how the server's rate goes from round to round",
        needs=(STEPPING,),
        off=(Schedule.constant,),
    )
    server_momentum: float = setting(0.9, "fedavgm", within=below(1), needs=_by(StrategyName.fedavgm), off=(0,))
    beta_1: float = setting(
        0.9, "fedadam, fedyogi", within=below(1), needs=_by(StrategyName.fedadam, StrategyName.fedyogi)
    )
    beta_2: float = setting(
        0.99, "fedadam, fedyogi", within=below(1), needs=_by(StrategyName.fedadam, StrategyName.fedyogi)
    )
    tau: float = setting(
        1e-3,
        "fedadagrad, fedadam, fedyogi: their adaptivity",
        within=above(0),
        needs=_by(StrategyName.fedadagrad, StrategyName.fedadam, StrategyName.fedyogi),
    )
    trim: float = setting(
        0.2,
        "fedtrimmedavg: share cut off at each end",
        within=below(0.5),
        needs=_by(StrategyName.fedtrimmedavg),
        off=(0,),
    )
    malicious: int = setting(
        1,
        "krum, multikrum, bulyan: sites at most that may send anything",
        within=NOT_NEGATIVE,
        needs=_by(StrategyName.krum, StrategyName.multikrum, StrategyName.bulyan),
        off=(0,),
    )
    chosen: int = setting(2, "multikrum: sites averaged", within=at_least(1), needs=_by(StrategyName.multikrum))
    q: float = setting(
        0.1,
        "qfedavg: 0 is even-handed, more favours sites with a high loss",
        within=NOT_NEGATIVE,
        needs=_by(StrategyName.qfedavg),
        off=(0,),
    )
    mu: float = setting(
        0.01,
        "fedprox, moon: weight of their term",
        within=NOT_NEGATIVE,
        needs=_by(StrategyName.fedprox, StrategyName.moon),
        off=(0,),
    )
    temperature: float = setting(0.5, "moon", within=above(0), needs=_by(StrategyName.moon))
    alpha: float = setting(0.01, "feddyn", within=above(0), needs=_by(StrategyName.feddyn))
    personal: float = setting(
        0.1,
        "ditto: pull of a site's own model towards the global one",
        within=NOT_NEGATIVE,
        needs=_by(StrategyName.ditto),
        off=(0,),
    )
    adjustment: float = setting(
        1.0,
        "fedavg_logit_adjusted: 0 is fedavg",
        within=NOT_NEGATIVE,
        needs=(SEVERAL, *_by(StrategyName.fedavg_logit_adjusted)),
        off=(0,),
    )


def check_strategy(strategy: StrategyConfig) -> None:
    """Refuse what a strategy's paper has no place for, and what would change another thing than it says."""
    plain = StrategyConfig()
    if strategy.name is StrategyName.scaffold and strategy.weighting is not Weighting.equal:
        raise ValueError(
            f"strategy.weighting: expected equal with strategy.name=scaffold, whose control variates end where sites count alike, got "
            f"{strategy.weighting}; say strategy=scaffold or strategy.weighting=equal"
        )
    if strategy.name is StrategyName.feddyn:
        for key in ("server_learning_rate", "server_schedule"):
            value, expected = getattr(strategy, key), getattr(plain, key)
            if value != expected:
                raise ValueError(
                    f"strategy.{key}: expected {expected} with strategy.name=feddyn, whose server takes no step of its own, got {value}; leave it out"
                )
