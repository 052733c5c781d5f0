"""Flower's strategies for XGBoost, handed what a round's replies came to, one label at a time.

Bagging (FedXgbBagging) appends one tree of every site to the common ones; all are of the same state, so each site grew
its own at its share of the learning rate. Cyclic (FedXgbCyclic) takes one site's whole trees; sites take turns.
"""

from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic

from fl_rsna.choices import Boosting
from fl_rsna.federation.messages import ARRAYS, METRICS
from fl_rsna.federation.rollcall import Site
from fl_rsna.learning.trees import Forest, from_json, to_json


def turn(sites: list[Site], round_: int) -> list[Site]:
    """The one site of a cyclic round, in the order of their names."""
    return [sites[(round_ - 1) % len(sites)]]


def merged(
    method: Boosting, round_: int, before: Forest, replies: Sequence[Forest], features: int, prior: float
) -> Forest:
    """What Flower's strategy makes of one label's trees."""
    sent = [_reply(to_json(forest, features, prior)) for forest in replies]
    match method:
        case Boosting.bagging:
            bagging = FedXgbBagging()
            bagging.current_bst = to_json(before, features, prior)
            arrays, _ = bagging.aggregate_train(round_, sent)
        case Boosting.cyclic:
            arrays, _ = FedXgbCyclic().aggregate_train(round_, sent)
    assert arrays is not None, "Flower's strategy made nothing of the replies"
    return from_json(arrays["0"].numpy().tobytes(), features)


def check_grown(method: Boosting, before: Forest, sent: Forest) -> None:
    """Raises ValueError unless a site sent one new tree, and under cyclic left the others as they were."""
    kept = before if method is Boosting.cyclic else []
    same = len(sent) == len(kept) + 1 and all(
        np.array_equal(getattr(old, name), getattr(new, name))
        for old, new in zip(kept, sent, strict=False)
        for name in ("left", "right", "feature", "value")
    )
    if not same:
        raise ValueError(f"expected {len(kept)} trees as they were sent and one more, got {len(sent)} or others")


def _reply(raw: bytes) -> Message:
    content = RecordDict({ARRAYS: ArrayRecord([np.frombuffer(raw, np.uint8)])})
    content[METRICS] = MetricRecord({"num-examples": 1})
    return Message(content, reply_to=Message(RecordDict(), 1, MessageType.TRAIN))
