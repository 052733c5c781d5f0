"""Aggregation equals numpy, follows site order and not arrival, and keeps bad updates out."""

from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.config import StrategyConfig
from fl_rsna.federation.messages import ARRAYS, METRICS, FlatModel, reply_failure, to_arrays
from fl_rsna.federation.rollcall import Site
from fl_rsna.federation.strategies import (
    BelowQuorum,
    SiteReply,
    aggregate,
    flower_strategy,
    in_site_order,
    sample_sites,
    weighted_mean,
)

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def site(number: int) -> Site:
    return Site(
        name=f"site-{number}",
        node_id=100 - number,
        cohort_sha256="",
        task="ich",
        counts={},
        controls={},
        patients=frozenset(),
    )


SITES = [site(number) for number in (1, 2, 3)]
ZERO = FlatModel(np.zeros(4, np.float32), np.zeros(1, np.int64))


def reply(of: Site, values: list[float], examples: int, tracked: int = 5) -> Message:
    content = RecordDict({ARRAYS: to_arrays(FlatModel(np.array(values, np.float32), np.array([tracked])))})
    content[METRICS] = MetricRecord({"num-examples": examples, "loss": float(examples)})
    return Message(content, reply_to=Message(RecordDict(), of.node_id, MessageType.TRAIN))


def replies() -> list[Message]:
    return [
        reply(SITES[0], [0.1, 1, 2, 3], 10),
        reply(SITES[1], [0.3, 5, 0, -3], 30, 6),
        reply(SITES[2], [0.7, 9, 9, 9], 7, 7),
    ]


def fold(messages: list[Message], quorum: float = 0.5) -> tuple[FlatModel, list[SiteReply]]:
    strategy = flower_strategy(StrategyConfig())
    return aggregate(strategy, 1, ZERO, SITES, messages, quorum=quorum, bytes_down=1, on_reply=lambda reply: None)


def test_fedavg_is_the_weighted_mean() -> None:
    model, records = fold(replies())
    stacked = np.array([[0.1, 1, 2, 3], [0.3, 5, 0, -3], [0.7, 9, 9, 9]], np.float32).astype(np.float64)
    np.testing.assert_array_equal(model.floats, np.average(stacked, axis=0, weights=[10, 30, 7]).astype(np.float32))
    assert model.integers.tolist() == [5]  # counters are not averaged
    assert model.integers.dtype == np.int64
    assert weighted_mean(records, "loss") == pytest.approx((10 * 10 + 30 * 30 + 7 * 7) / 47)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_arrival_order_changes_no_bit(order: tuple[int, ...]) -> None:
    model, records = fold([replies()[i] for i in order])
    assert model.floats.tobytes() == fold(replies())[0].floats.tobytes()
    assert [record.site for record in records] == ["site-1", "site-2", "site-3"]


def test_one_site_alone_comes_back_unchanged() -> None:
    strategy = flower_strategy(StrategyConfig())
    values = np.random.default_rng(0).normal(size=4).astype(np.float32)
    message = reply(SITES[0], values.tolist(), 13)
    model, _ = aggregate(strategy, 1, ZERO, SITES[:1], [message], quorum=1, bytes_down=0, on_reply=lambda reply: None)
    np.testing.assert_array_equal(model.floats, values)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda: reply(SITES[1], [np.nan, 0, 0, 0], 30), "not finite"),
        (lambda: reply(SITES[1], [np.inf, 0, 0, 0], 30), "not finite"),
        (lambda: reply(SITES[1], [1, 2], 30), "expected an update of 4 values, got 2"),
        (
            lambda: reply_failure(Message(RecordDict(), SITES[1].node_id, MessageType.TRAIN), OSError("disk")),
            "OSError: disk",
        ),
        (None, "no reply in time"),
    ],
)
def test_bad_updates_are_named_and_stay_out_of_the_mean(bad, said: str) -> None:  # type: ignore[no-untyped-def]
    good = [replies()[0], replies()[2]]
    model, records = fold(good + ([bad()] if bad else []))
    assert said in records[1].error
    np.testing.assert_allclose(
        model.floats, np.average([[0.1, 1, 2, 3], [0.7, 9, 9, 9]], axis=0, weights=[10, 7]), rtol=1e-6
    )


def test_below_quorum_stops_and_names_who_failed() -> None:
    with pytest.raises(BelowQuorum, match=r"1 of 3 sites replied, strategy\.quorum needs 2 .*site-2: no reply in time"):
        fold(replies()[:1])
    assert fold(replies()[:1], quorum=0.3)[0] is not ZERO
    with pytest.raises(BelowQuorum):
        fold([], quorum=0)


def test_replies_are_folded_as_they_come() -> None:
    """In site order a reply is handed on before the next is asked for, so no list of models builds up."""
    asked = 0

    def arriving() -> Iterator[Message]:
        nonlocal asked
        for message in replies():
            asked += 1
            yield message

    for count, (_, message) in enumerate(in_site_order(SITES, arriving()), 1):
        assert message is not None
        assert asked == count


def test_sampling_follows_seed_and_round_and_nothing_else() -> None:
    many = [site(number) for number in range(1, 21)]
    one = [[s.name for s in sample_sites(many, 0.3, seed=1, round_=r)] for r in range(1, 6)]
    assert one == [[s.name for s in sample_sites(many, 0.3, seed=1, round_=r)] for r in range(1, 6)]
    assert all(len(names) == 6 == len(set(names)) for names in one)
    assert len({tuple(names) for names in one}) > 1
    assert [s.name for s in sample_sites(SITES, 1.0, 0, 1)] == ["site-1", "site-2", "site-3"]
    assert len(sample_sites(SITES, 0.01, 0, 1)) == 1
