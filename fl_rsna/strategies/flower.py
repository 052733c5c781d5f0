"""Call Flower's own strategies, unchanged, with the aggregate of a round's replies.

A strategy that needs means alone gets one reply that stands for all, so memory does not grow with the number of sites. Its memory from
round to round is read after each round and restored before the next, so that a killed run can resume.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvgM, QFedAvg
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from fl_rsna.strategies.strategy import Memory, RoundAggregate, Update, Vector

EXAMPLES, LOSS = "num-examples", "loss"
MOMENTUM, FIRST, SECOND = "momentum", "first_moment", "second_moment"


def of_mean(
    strategy: FlowerStrategy,
    round_: int,
    x: Vector,
    aggregate: RoundAggregate,
    where: NDArray[np.bool_],
    memory: Memory,
) -> tuple[Vector, Memory]:
    """Give Flower's strategy one reply that stands for all, with their mean and total weight, and its memory.

    Return the new model where `where` holds, and the strategy's new memory.
    """
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = ArrayRecord({"floats": Array(x)})
        strategy.momentum_vector = [memory[MOMENTUM]] if MOMENTUM in memory else None
    if isinstance(strategy, FedOpt):
        strategy.current_arrays = {"floats": x}
        strategy.m_t = {"floats": memory[FIRST]} if FIRST in memory else None
        strategy.v_t = {"floats": memory[SECOND]} if SECOND in memory else None
    found = _aggregate(strategy, round_, [make_reply(aggregate.mean[where], aggregate.weight, 0.0)])
    if isinstance(strategy, FedAvgM):
        return found, {MOMENTUM: strategy.momentum_vector[0]} if strategy.momentum_vector else {}
    if isinstance(strategy, FedOpt):
        kept = {FIRST: strategy.m_t, SECOND: strategy.v_t}
        return found, {name: vectors["floats"] for name, vectors in kept.items() if vectors}
    return found, {}


def of_every_update(strategy: FlowerStrategy, round_: int, updates: tuple[Update, ...]) -> Vector:
    """Give Flower's strategy every site's change, and return the change that it computes.

    Medians, trimmed means and distances are the same for changes as for models. A distance between changes is more exact
    than one between models, where the difference of two large squared norms loses digits.
    """
    if isinstance(strategy, QFedAvg):
        strategy.current_arrays = ArrayRecord({"floats": Array(np.zeros_like(updates[0].change))})
    replies = [make_reply(update.change, update.examples, update.loss) for update in updates]
    return _aggregate(strategy, round_, replies)


def make_reply(floats: Vector, examples: float, loss: float) -> Message:
    """Return a reply in the form that Flower's strategies read."""
    content = RecordDict({"arrays": ArrayRecord({"floats": Array(np.ascontiguousarray(floats))})})
    content["metrics"] = MetricRecord({EXAMPLES: examples, LOSS: loss})
    return Message(content, reply_to=Message(RecordDict(), 1, MessageType.TRAIN))


def _aggregate(strategy: FlowerStrategy, round_: int, replies: list[Message]) -> Vector:
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert isinstance(arrays, ArrayRecord), f"{type(strategy).__name__} made nothing of {len(replies)} replies"
    return arrays["floats"].numpy().astype(np.float32, copy=False)
