"""The server's half of every strategy: from what the sites sent to the next global model.

Notation: x the global model a round started from, y_i what site i made of it, p_i its weight (training slices, or 1),
d_i = y_i - x. Flower's strategies are called as they are (flower_rules.py); what Flower lacks is written out here.
BatchNorm's running statistics are no parameters: whatever steps the server takes, they are the sites' mean, weighted by
p_i. A momentum or an adaptive step would make variances negative. So are layers that stay at their sites, which no step of the
server reaches. Robust strategies take all of it as they take parameters, so that no site can poison it.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.federation.rules.aggregate import Memory, RoundAggregate, Vector
from fl_rsna.federation.rules.flower_rules import flower_strategy, of_every_update, of_mean
from fl_rsna.settings.strategy import StrategyConfig, StrategyName, Weighting
from fl_rsna.settings.training import Optimizer, TrainConfig

ROBUST = (
    StrategyName.fedmedian,
    StrategyName.fedtrimmedavg,
    StrategyName.krum,
    StrategyName.multikrum,
    StrategyName.bulyan,
)
NEEDS_EVERY_UPDATE = (*ROBUST, StrategyName.qfedavg)
CONTROL, CORRECTION = "control", "correction"


def fewest_sites(config: StrategyConfig) -> int:
    """How many replies the strategy needs to mean what its paper proves."""
    match config.name:
        case StrategyName.krum:
            return 2 * config.malicious + 3
        case StrategyName.multikrum:
            return max(2 * config.malicious + 3, config.chosen)
        case StrategyName.bulyan:
            return 4 * config.malicious + 3
        case _:
            return 1


def steps_as_counted(train: TrainConfig, steps: float) -> float:
    """FedNova's a_i for a site that took `steps`: their number, or under SGD with momentum the norm of its weights.

    Wang et al. 2020 (arXiv:2007.07481), section 4.2: with momentum rho, (K - rho (1 - rho^K) / (1 - rho)) / (1 - rho).
    """
    rho = train.momentum if train.optimizer is Optimizer.sgd else 0.0
    return float((steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho))


def site_weight(config: StrategyConfig, examples: float) -> float:
    """p_i of a site with so many training slices."""
    return examples if config.weighting is Weighting.examples else 1.0


def aggregation_weight(config: StrategyConfig, weight: float, counted_steps: float) -> float:
    """What y_i counts in the mean: p_i, and for FedNova p_i / a_i."""
    return weight / counted_steps if config.name is StrategyName.fednova else weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a rule has to go on when it makes the next model."""

    strategy: StrategyConfig
    rate: float  # the server's learning rate of the round
    round: int
    x: Vector
    aggregate: RoundAggregate
    num_sites: int  # in all
    stepped: NDArray[np.bool_]  # [P], where parameters lie that sites share
    trained: NDArray[np.bool_]  # [P], and those that sites train


def next_floats(step: Step, memory: Memory) -> tuple[Vector, Memory]:
    """The next global model and what the server remembers of this round."""
    strategy, aggregate = step.strategy, step.aggregate
    assert aggregate.count >= fewest_sites(strategy)
    if strategy.name in ROBUST:
        change = of_every_update(flower_strategy(strategy, step.rate), step.round, aggregate.updates)
        return step.x + (
            change if step.rate == 1 else np.where(step.stepped, np.float32(step.rate), np.float32(1)) * change
        ), memory
    now, memory = _qfedavg(step, memory) if strategy.name is StrategyName.qfedavg else _by_mean(step, memory)
    return np.where(step.stepped, now, aggregate.mean), memory


def _qfedavg(step: Step, memory: Memory) -> tuple[Vector, Memory]:
    """The norms that a step is divided by are of parameters: changes of running variances are larger by orders."""
    updates = tuple(replace(update, change=update.change[step.stepped]) for update in step.aggregate.updates)
    now = step.x.copy()
    now[step.stepped] += of_every_update(flower_strategy(step.strategy, step.rate), step.round, updates)
    return now, memory


def _by_mean(step: Step, memory: Memory) -> tuple[Vector, Memory]:
    """Strategies that need the mean alone; values where they do not step are of no account here."""
    x, aggregate, rate = step.x, step.aggregate, step.rate
    match step.strategy.name:
        case StrategyName.scaffold:
            assert aggregate.second is not None
            control = memory.get(CONTROL, np.zeros_like(aggregate.second))
            share = np.float32(aggregate.count / step.num_sites)
            return x + rate * (aggregate.mean - x), {CONTROL: control + share * aggregate.second}
        case StrategyName.fednova:
            effective = aggregate.work / aggregate.examples  # steps, Wang et al. 2020, eq. 9
            return x + np.float32(rate * effective * aggregate.weight / aggregate.examples) * (
                aggregate.mean - x
            ), memory
        case StrategyName.feddyn:
            return _feddyn(step, memory)
        case StrategyName.fedavgm | StrategyName.fedadagrad | StrategyName.fedadam | StrategyName.fedyogi:
            rule, now = flower_strategy(step.strategy, rate), x.copy()
            now[step.stepped], memory = of_mean(rule, step.round, x[step.stepped], aggregate, step.stepped, memory)
            return now, memory
        case _:  # FedAvg: what Flower's makes of one reply that stands for all is that reply
            return (aggregate.mean if rate == 1 else x + np.float32(rate) * (aggregate.mean - x)), memory


def _feddyn(step: Step, memory: Memory) -> tuple[Vector, Memory]:
    """Acar et al. 2021 (arXiv:2111.04263), alg. 1: h <- h - alpha / m sum d_i, then mean(y_i) - h / alpha.

    m are all sites, the sum is over those that took part. Weights other than equal are not the paper's.
    """
    alpha, aggregate = step.strategy.alpha, step.aggregate
    change = (aggregate.mean - step.x)[step.trained]
    share = np.float32(alpha * aggregate.count / step.num_sites)
    correction = memory.get(CORRECTION, np.zeros_like(change)) - share * change
    now = aggregate.mean.copy()
    now[step.trained] -= correction / np.float32(alpha)
    return now, {CORRECTION: correction}


def second_vector(memory: Memory, size: int) -> Vector | None:
    """What travels beside the model: SCAFFOLD's control variate of the server, zeros before there was a round."""
    return memory.get(CONTROL, np.zeros(size, np.float32)) if size else None
