"""Flower's own strategies, called as they are with what a round's replies came to.

Those that need means alone get one reply that stands for all, so memory does not grow with sites. What they remember
from round to round is taken out and put back, so that a killed run goes on.
"""

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from fl_rsna.federation.protocol.codec import pack
from fl_rsna.federation.protocol.messages import ARRAYS, METRICS
from fl_rsna.federation.rules.aggregate import Memory, RoundAggregate, Update, Vector
from fl_rsna.settings.strategy import StrategyConfig, StrategyName

MOMENTUM, FIRST, SECOND = "momentum", "first_moment", "second_moment"


def flower_strategy(config: StrategyConfig, rate: float) -> Strategy:
    """Flower's own strategy of that name; FedAvg for those whose difference lies at the sites.

    McMahan et al. 2017 (arXiv:1602.05629) FedAvg: sum p_i y_i / sum p_i. Hsu et al. 2019 (arXiv:1909.06335) FedAvgM:
    v <- beta v + (x - mean), x - rate v. Reddi et al. 2021 (arXiv:2003.00295) FedAdagrad, FedAdam, FedYogi: x + rate m /
    (sqrt(v) + tau). Yin et al. 2018 (arXiv:1803.01498) FedMedian and FedTrimmedAvg, by coordinate. Blanchard et al.
    2017 (arXiv:1703.02757) Krum and MultiKrum: the sites nearest to their n - f - 2 neighbours. El Mhamdi et al. 2018
    (arXiv:1802.07927) Bulyan. Li et al. 2020 (arXiv:1905.10497) QFedAvg with L = 1 / rate.
    """
    weighted = "num-examples"
    match config.name:
        case StrategyName.fedavgm:
            return FedAvgM(weighted_by_key=weighted, server_learning_rate=rate, server_momentum=config.server_momentum)
        case StrategyName.fedadagrad:
            return FedAdagrad(weighted_by_key=weighted, eta=rate, tau=config.tau)
        case StrategyName.fedadam:
            return FedAdam(
                weighted_by_key=weighted, eta=rate, beta_1=config.beta_1, beta_2=config.beta_2, tau=config.tau
            )
        case StrategyName.fedyogi:
            return FedYogi(
                weighted_by_key=weighted, eta=rate, beta_1=config.beta_1, beta_2=config.beta_2, tau=config.tau
            )
        case StrategyName.fedmedian:
            return FedMedian(weighted_by_key=weighted)
        case StrategyName.fedtrimmedavg:
            return FedTrimmedAvg(weighted_by_key=weighted, beta=config.trim)
        case StrategyName.krum:
            return Krum(weighted_by_key=weighted, num_malicious_nodes=config.malicious)
        case StrategyName.multikrum:
            return MultiKrum(
                weighted_by_key=weighted, num_malicious_nodes=config.malicious, num_nodes_to_select=config.chosen
            )
        case StrategyName.bulyan:
            return Bulyan(weighted_by_key=weighted, num_malicious_nodes=config.malicious)
        case StrategyName.qfedavg:
            return QFedAvg(client_learning_rate=rate, q=config.q, train_loss_key="loss", weighted_by_key=weighted)
        case _:
            return FedAvg(weighted_by_key=weighted)


def of_mean(
    strategy: Strategy, round_: int, x: Vector, aggregate: RoundAggregate, where: NDArray[np.bool_], memory: Memory
) -> tuple[Vector, Memory]:
    """Hand Flower's strategy one reply that stands for all: their mean and their total weight, and its own memory."""
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = ArrayRecord({"floats": pack(x)})
        strategy.momentum_vector = [memory[MOMENTUM]] if MOMENTUM in memory else None
    if isinstance(strategy, FedOpt):
        strategy.current_arrays = {"floats": x}
        strategy.m_t = {"floats": memory[FIRST]} if FIRST in memory else None
        strategy.v_t = {"floats": memory[SECOND]} if SECOND in memory else None
    found = _aggregate_replies(strategy, round_, [_reply(aggregate.mean[where], aggregate.weight, 0.0)])
    return found, _read_memory(strategy)


def _read_memory(strategy: Strategy) -> Memory:
    if isinstance(strategy, FedAvgM):
        return {MOMENTUM: strategy.momentum_vector[0]} if strategy.momentum_vector else {}
    if isinstance(strategy, FedOpt):
        kept = {FIRST: strategy.m_t, SECOND: strategy.v_t}
        return {name: vectors["floats"] for name, vectors in kept.items() if vectors}
    return {}


def of_every_update(strategy: Strategy, round_: int, updates: tuple[Update, ...]) -> Vector:
    """Hand Flower's strategy every site's change.

    Medians, trimmed means and distances are the same for changes as for models, and a distance between changes keeps
    the digits that the difference of two large squared norms loses.
    """
    if isinstance(strategy, QFedAvg):
        strategy.current_arrays = ArrayRecord({"floats": pack(np.zeros_like(updates[0].change))})
    return _aggregate_replies(
        strategy, round_, [_reply(update.change, update.examples, update.loss) for update in updates]
    )


def _reply(floats: Vector, examples: float, loss: float) -> Message:
    content = RecordDict({ARRAYS: ArrayRecord({"floats": pack(floats)})})
    content[METRICS] = MetricRecord({"num-examples": examples, "loss": loss})
    return Message(content, reply_to=Message(RecordDict(), 1, MessageType.TRAIN))


def _aggregate_replies(strategy: Strategy, round_: int, replies: list[Message]) -> Vector:
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert isinstance(arrays, ArrayRecord), f"{type(strategy).__name__} made nothing of {len(replies)} replies"
    return arrays["floats"].numpy().astype(np.float32, copy=False)
