"""Aggregation equals numpy, follows site order and not arrival, and keeps bad updates out."""

import gc
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.federation.protocol.failures import Failure
from fl_rsna.federation.protocol.messages import ARRAYS, METRICS, reply_failure, to_arrays
from fl_rsna.federation.server.aggregation import Asked, aggregate_replies
from fl_rsna.federation.server.ask import BelowQuorum, SiteReply, in_site_order, read_replies
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.same_sites import average_metric, with_answers
from fl_rsna.federation.server.sampling import sample_sites
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.strategies.strategy import RoundAggregate

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def site(number: int) -> Site:
    return Site(
        name=f"site-{number}",
        node_id=100 - number,
        version="",
        cohort_sha256="",
        task="ich",
        counts={},
        controls={},
        patients=frozenset(),
    )


SITES = [site(number) for number in (1, 2, 3)]
ZERO = FlatModel(np.zeros(4, np.float32), np.zeros(1, np.int64))


def reply(of: Site, values: list[float], examples: int, tracked: int = 5, second: list[float] | None = None) -> Message:
    beside = None if second is None else np.array(second, np.float32)
    content = RecordDict({ARRAYS: to_arrays(FlatModel(np.array(values, np.float32), np.array([tracked])), beside)})
    content[METRICS] = MetricRecord({"num-examples": examples, "loss": float(examples)})
    return Message(content, reply_to=Message(RecordDict(), of.node_id, MessageType.TRAIN))


def replies() -> list[Message]:
    return [
        reply(SITES[0], [0.1, 1, 2, 3], 10),
        reply(SITES[1], [0.3, 5, 0, -3], 30, 6),
        reply(SITES[2], [0.7, 9, 9, 9], 7, 7),
    ]


def folded(
    messages: Iterable[Message], sites: list[Site] = SITES, **arguments
) -> tuple[RoundAggregate, np.ndarray, list[SiteReply]]:  # type: ignore[no-untyped-def, type-arg]
    strategy = STRATEGIES[arguments.pop("name", "fedavg")]
    settings = strategy.settings(max_update=100, quorum=arguments.pop("quorum", 0.5))
    asked = Asked(
        sites=sites,
        model=ZERO,
        strategy=strategy,
        settings=settings,
        train=TrainConfig(),
        round=1,
        bytes_down=1,
        **arguments,
    )
    return aggregate_replies(asked, messages, lambda _: None)


def test_the_mean_is_weighted_by_training_slices() -> None:
    found, integers, records = folded(replies())
    stacked = np.array([[0.1, 1, 2, 3], [0.3, 5, 0, -3], [0.7, 9, 9, 9]], np.float32).astype(np.float64)
    expected = np.average(stacked, axis=0, weights=[10, 30, 7])
    np.testing.assert_array_max_ulp(found.mean, expected.astype(np.float32), maxulp=1)
    assert integers.tolist() == [5]  # counters are not averaged
    assert integers.dtype == np.int64
    assert average_metric((record.metrics for record in records), "loss") == pytest.approx(
        (10 * 10 + 30 * 30 + 7 * 7) / 47
    )
    assert found.updates == ()


def test_strategies_that_need_every_update_get_the_changes_in_site_order() -> None:
    found, _, _ = folded(replies()[::-1], name="fedmedian")
    assert [update.examples for update in found.updates] == [10, 30, 7]
    np.testing.assert_array_equal(found.updates[1].change, np.array([0.3, 5, 0, -3], np.float32))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_arrival_order_changes_no_bit(order: tuple[int, ...]) -> None:
    found, _, records = folded([replies()[i] for i in order])
    assert found.mean.tobytes() == folded(replies())[0].mean.tobytes()
    assert [record.site for record in records] == ["site-1", "site-2", "site-3"]


def test_one_site_alone_comes_back_unchanged() -> None:
    values = np.random.default_rng(0).normal(size=4).astype(np.float32)
    found, _, _ = folded([reply(SITES[0], values.tolist(), 13)], SITES[:1], quorum=1)
    np.testing.assert_array_equal(found.mean, values)


def without(record: str) -> Message:
    message = reply(SITES[1], [1, 2, 3, 4], 30)
    del message.content[record]
    return message


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda: reply(SITES[1], [np.nan, 0, 0, 0], 30), "not finite"),
        (lambda: reply(SITES[1], [np.inf, 0, 0, 0], 30), "not finite"),
        (lambda: reply(SITES[1], [3e38, 3e38, 3e38, 3e38], 30), "exploded"),
        (lambda: reply(SITES[1], [0, 0, 101, 0], 30), "exploded: it moves the model by 101 times its norm"),
        (lambda: reply(SITES[1], [1, 2], 30), "expected an update of 4 values, got 2"),
        (lambda: reply(SITES[1], [1, 2, 3, 4], 0), "expected a number of training images above 0, got 0"),
        (lambda: reply(SITES[1], [1, 2, 3, 4], 30, second=[1.0]), "expected 0 values beside the update, got 1"),
        (lambda: without(ARRAYS), "expected a model and its metrics"),
        (lambda: without(METRICS), "expected a model and its metrics"),
        (
            lambda: reply_failure(
                Message(RecordDict(), SITES[1].node_id, MessageType.TRAIN), Failure(error="OSError: disk", traceback="")
            ),
            "OSError: disk",
        ),
        (None, "no reply in time"),
    ],
)
def test_bad_updates_are_named_and_stay_out_of_the_mean(bad, said: str) -> None:  # type: ignore[no-untyped-def]
    good = [replies()[0], replies()[2]]
    found, _, records = folded(good + ([bad()] if bad else []))
    assert said in records[1].error
    np.testing.assert_allclose(
        found.mean, np.average([[0.1, 1, 2, 3], [0.7, 9, 9, 9]], axis=0, weights=[10, 7]), rtol=1e-6
    )


def test_second_vectors_are_averaged_plainly_and_must_have_their_length() -> None:
    pair = [reply(SITES[0], [0, 0, 0, 0], 10, second=[1, 2]), reply(SITES[1], [0, 0, 0, 0], 90, second=[3, 6])]
    found, _, records = folded([*pair, reply(SITES[2], [0, 0, 0, 0], 5)], second_size=2)
    assert found.second is not None
    assert found.second.tolist() == [2, 4]
    assert "expected 2 values beside the update, got 0" in records[2].error


def test_late_and_absent_sites_are_named_and_left_out() -> None:
    slow = {"site-1": 1.0, "site-2": 9.0}
    found, _, records = folded(
        replies()[:2], timed=lambda record: slow[record.site], deadline_s=5, absent={"site-3"}, quorum=0.3
    )
    assert [record.error for record in records[1:]] == [
        "too late: 9.0 virtual s, faults.deadline_s is 5",
        "dropped out (simulated)",
    ]
    assert records[0].metrics["virtual_s"] == 1
    assert records[2].bytes_down == 0
    np.testing.assert_array_equal(found.mean, np.array([0.1, 1, 2, 3], np.float32))


def test_below_quorum_stops_and_names_who_failed() -> None:
    with pytest.raises(
        BelowQuorum, match=r"1 of 3 sites replied, 2 needed by strategy\.quorum.*site-2: no reply in time"
    ):
        folded(replies()[:1])
    assert folded(replies()[:1], quorum=0.3)[0].count == 1
    with pytest.raises(BelowQuorum):
        folded([], quorum=0)
    with pytest.raises(BelowQuorum, match="5 needed"):
        folded(replies(), name="krum")


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
    one = [[s.name for s in sample_sites(many, StrategyConfig(fraction=0.3), seed=1, round_=r)] for r in range(1, 6)]
    assert one == [
        [s.name for s in sample_sites(many, StrategyConfig(fraction=0.3), seed=1, round_=r)] for r in range(1, 6)
    ]
    assert all(len(names) == 6 == len(set(names)) for names in one)
    assert len({tuple(names) for names in one}) > 1
    assert [s.name for s in sample_sites(SITES, StrategyConfig(), 0, 1)] == ["site-1", "site-2", "site-3"]
    assert len(sample_sites(SITES, StrategyConfig(fraction=0.01), 0, 1)) == 1
    assert len(sample_sites(SITES, StrategyConfig(fraction=0.01, min_sites=2), 0, 1)) == 2
    assert len(sample_sites(SITES, StrategyConfig(fraction=0.01, min_sites=9), 0, 1)) == 3


def test_a_folded_reply_is_gone() -> None:
    """At once, not when the garbage collector happens to run: until then the models of a round would pile up."""
    sites, contents = [site(number) for number in range(1, 7)], list[weakref.ref[RecordDict]]()

    def arriving() -> Iterator[Message]:
        for of in sites:
            message = reply(of, [0.1, 1, 2, 3], 10)
            contents.append(weakref.ref(message.content))
            yield message
            del message
            alive.append(sum(content() is not None for content in contents))

    alive: list[int] = []
    gc.collect()
    gc.disable()
    try:
        folded(arriving(), sites)
    finally:
        gc.enable()
    assert max(alive) <= 2, alive


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_validation_that_is_no_number_is_a_failure_by_name(loss: float) -> None:
    """It enters no mean and chooses no round."""
    evaluations = [
        reply(SITES[0], [0, 0, 0, 0], 10),
        reply(SITES[1], [0, 0, 0, 0], 30),
        reply(SITES[2], [0, 0, 0, 0], 7),
    ]
    evaluations[1].content[METRICS] = MetricRecord({"num-examples": 30, "loss": loss})
    answers = read_replies(SITES, evaluations, lambda reply: None, bytes_down=1, on_reply=lambda _: None)
    records = [record for record, _ in answers]
    assert [record.error for record in records] == ["", "expected finite figures, got others of loss", ""]
    assert set(with_answers({}, records, 1)) == {SITES[0].name, SITES[2].name}
