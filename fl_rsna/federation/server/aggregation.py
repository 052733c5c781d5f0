"""Aggregate the models that sites trained in a round: replies in site order, each checked before it enters the running sums."""

import hashlib
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message
from numpy.typing import NDArray

from fl_rsna.federation.protocol.codec import FLOATS, unpack
from fl_rsna.federation.protocol.failures import describe
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    SECOND,
    failure_of,
    from_arrays,
    num_bytes,
    record_in,
)
from fl_rsna.federation.server.ask import QUORUM, SiteReply, in_site_order, read_metrics, require_quorum
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.strategy import StrategyConfig, Weighting
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.strategy import RoundAggregate, Strategy, Update

PART = 131_072  # values at a time, few enough for the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The model in a usable reply, and the vector sent beside it."""

    model: FlatModel
    second: NDArray[np.float32] | None


class Sums:
    """Running sums of the sites' models: one float64 vector, whatever the number of sites, unless the strategy needs every update.

    `stepped` [N] marks the values that the strategy's step changes, by default all. Where the strategy divides weights by steps, the
    other values (BatchNorm's statistics, and values personal to sites) are not results of steps, so they are summed a second time,
    weighted by p_i alone.
    """

    def __init__(
        self,
        start: NDArray[np.float32],
        strategy: Strategy[Any],
        weighting: Weighting,
        train: TrainConfig,
        stepped: NDArray[np.bool_] | None = None,
    ) -> None:
        self._start, self._strategy, self._weighting, self._train = start, strategy, weighting, train
        self._total = np.zeros(start.size)
        self._second: NDArray[np.float64] | None = None
        self._weight, self._examples, self._work = 0.0, 0.0, 0.0
        self._updates: list[Update] = []
        apart = strategy.count_steps is not None and stepped is not None
        self._apart = np.flatnonzero(~stepped) if apart and stepped is not None else np.zeros(0, np.intp)
        self._rest = np.zeros(self._apart.size)
        self.count, self.integers = 0, None  # type: tuple[int, NDArray[np.int64] | None]

    def add(self, sent: Sent, metrics: dict[str, float]) -> None:
        """Add one site's model, weighted by its examples (or 1), divided by its steps where the strategy counts them."""
        p = metrics["num-examples"] if self._weighting is Weighting.examples else 1.0
        count_steps = self._strategy.count_steps
        steps = 1.0 if count_steps is None else count_steps(self._train, metrics.get("steps", 1.0) or 1.0)
        weight = p / steps
        add_scaled(self._total, sent.model.floats, weight)
        self._rest += p * sent.model.floats[self._apart].astype(np.float64)
        self._weight, self._examples, self._work = self._weight + weight, self._examples + p, self._work + p * steps
        self.count, self.integers = self.count + 1, sent.model.integers if self.integers is None else self.integers
        if sent.second is not None:
            self._second = np.zeros(sent.second.size) if self._second is None else self._second
            add_scaled(self._second, sent.second, 1.0)
        if self._strategy.every_update:
            change = sent.model.floats - self._start
            self._updates.append(Update(change=change, examples=p, loss=metrics.get("loss", 0.0)))

    def aggregate(self) -> RoundAggregate:
        """Divide the sums by the weights."""
        mean = divide_total(self._total, self._weight)
        mean[self._apart] = divide_total(self._rest, self._examples)
        return RoundAggregate(
            mean=mean,
            weight=self._weight,
            examples=self._examples,
            work=self._work,
            count=self.count,
            second=None if self._second is None else divide_total(self._second, self.count),
            updates=tuple(self._updates),
        )


def add_scaled(total: NDArray[np.float64], values: NDArray[np.float32], weight: float) -> None:
    """Compute total += weight * values in float64."""
    product = np.empty(PART)
    for start in range(0, total.size, PART):
        part = total[start : start + PART]
        scaled = product[: part.size]
        scaled[...] = values[start : start + PART]
        scaled *= weight
        part += scaled


def divide_total(total: NDArray[np.float64], weight: float) -> NDArray[np.float32]:
    """Compute total / weight, rounded once to float32."""
    found = np.empty(total.size, np.float32)
    for start in range(0, total.size, PART):
        found[start : start + PART] = total[start : start + PART] / weight
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The values a reply is checked against: the model that was sent, its norm, and the limits on an update."""

    model: FlatModel
    norm: float
    max_update: float
    second_size: int


def read_sent(arrays: ArrayRecord, model: FlatModel) -> Sent:
    """Read a site's model, and the vector beside it; below float32 the arrays hold the change from `model`, which is added.

    Raises KeyError, TypeError or ValueError when they cannot be read.
    """
    found = from_arrays(arrays)
    if arrays[FLOATS].dtype != "float32" and found.floats.shape == model.floats.shape:
        found = FlatModel(model.floats + found.floats, found.integers)
    return Sent(model=found, second=unpack(arrays[SECOND]) if SECOND in arrays else None)


def update_sha256(reply: Message | None) -> str:
    """Hash the arrays of a reply as they were sent; empty where there are none."""
    digest = hashlib.sha256()
    arrays = reply.content.get(ARRAYS) if reply is not None and reply.has_content() else None
    if not isinstance(arrays, ArrayRecord):
        return ""
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def fault_of(sent: Sent, metrics: dict[str, float], expected: Expected) -> str:
    """Say why an update must not enter the mean; empty when it may."""
    floats, model, second_size = sent.model.floats, expected.model, expected.second_size
    if floats.shape != model.floats.shape or sent.model.integers.shape != model.integers.shape:
        return f"expected an update of {model.floats.size} values, got {floats.size}"
    if (0 if sent.second is None else sent.second.size) != second_size:
        return f"expected {second_size} values beside the update, got {0 if sent.second is None else sent.second.size}"
    moved = distance(floats, model.floats)
    suspects = (None if np.isfinite(moved) else floats, sent.second, np.array(list(metrics.values())))
    if any(values is not None and not np.isfinite(values).all() for values in suspects):
        return "the update holds values that are not finite"
    if metrics.get("num-examples", 0) <= 0:
        return f"expected a number of training images above 0, got {metrics.get('num-examples', 'none')}"
    times = moved / max(expected.norm, 1.0)
    if times > expected.max_update:
        return f"the update exploded: it moves the model by {times:.3g} times its norm, strategy.max_update is {expected.max_update:g}"
    return ""


def distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Compute the Euclidean distance of two vectors; it is not finite where a value is not, or where it overflows float32."""
    square, change = 0.0, np.empty(PART, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, ours.size, PART):
            part = np.subtract(
                ours[start : start + PART], theirs[start : start + PART], out=change[: ours.size - start]
            )
            square += float(np.dot(part, part))
    return float(np.sqrt(square))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The sites and the model of a round, and the rules for its replies."""

    sites: list[Site]
    model: FlatModel  # as it was sent
    strategy: Strategy[Any]
    settings: StrategyConfig
    train: TrainConfig
    round: int
    bytes_down: int  # of one message
    second_size: int = 0  # length of the vector expected beside each model
    timed: Callable[[SiteReply], float] = lambda reply: 0.0  # virtual seconds of a reply
    deadline_s: float | None = None  # a reply of more virtual seconds is too late
    absent: AbstractSet[str] = frozenset()  # those of `sites` that are out of reach and were not asked
    stepped: NDArray[np.bool_] | None = None  # the values that the strategy's step changes; None is all


def aggregate_replies(
    asked: Asked, replies: Iterable[Message], on_reply: Callable[[SiteReply], None]
) -> tuple[RoundAggregate, NDArray[np.int64], list[SiteReply]]:
    """Aggregate the replies in site order; return the aggregate, the integers and every site's record.

    Memory is one float64 vector, whatever the number of sites, unless the strategy needs every update. Integer
    buffers cannot be averaged: the first site's are kept. Raises BelowQuorum when fewer than
    strategy.quorum * len(sites) replies are usable.
    """
    model, strategy, settings = asked.model, asked.strategy, asked.settings
    sums = Sums(model.floats, strategy, settings.weighting, asked.train, asked.stepped)
    records = list[SiteReply]()
    norm = distance(model.floats, np.zeros_like(model.floats))
    expected = Expected(model=model, norm=norm, max_update=settings.max_update, second_size=asked.second_size)
    with ThreadPoolExecutor(1) as beside:
        for site, reply in in_site_order(asked.sites, replies):
            hashed = beside.submit(update_sha256, reply)
            record, sent = _usable(site, reply, expected, asked.bytes_down)
            if site.name in asked.absent:
                record = replace(record, error="dropped out (simulated)", bytes_down=0)
            elif sent is not None:
                record, sent = _in_time(record, asked.timed(record), asked.deadline_s, sent)
            if sent is not None:
                sums.add(sent, record.metrics)
                record = replace(record, update_sha256=hashed.result())
            records.append(record)
            on_reply(record)
    needs = f"{QUORUM} and strategy.name"
    phase, least = f"round {asked.round}", strategy.fewest_sites(settings)
    require_quorum(phase, sums.count, len(asked.sites), settings, records, least=least, needed_by=needs)
    assert sums.integers is not None  # of the first reply
    return sums.aggregate(), sums.integers, records


def _in_time(record: SiteReply, seconds: float, deadline_s: float | None, sent: Sent) -> tuple[SiteReply, Sent | None]:
    """Add its virtual seconds to a reply's record; a reply that came too late becomes a failure."""
    if deadline_s is not None and seconds > deadline_s:
        return replace(
            record, metrics={}, error=f"too late: {seconds:.1f} virtual s, faults.deadline_s is {deadline_s:g}"
        ), None
    return replace(record, metrics={**record.metrics, "virtual_s": seconds}), sent


def _usable(site: Site, reply: Message | None, expected: Expected, bytes_down: int) -> tuple[SiteReply, Sent | None]:
    """Make the record of a reply, and read the model it brought, which is None when it must not enter the mean."""

    def record_failure(error: str, text: str = "") -> tuple[SiteReply, None]:
        return SiteReply(
            site=site.name, metrics={}, bytes_down=bytes_down, bytes_up=0, error=error, traceback=text
        ), None

    if reply is None:
        return record_failure("no reply in time")
    failure = failure_of(reply)
    if failure is not None:
        return record_failure(*failure)
    try:
        arrays, metrics = record_in(reply.content, ARRAYS, ArrayRecord), read_metrics(reply)
    except KeyError:
        return record_failure("expected a model and its metrics, got a reply without")
    try:
        sent = read_sent(arrays, expected.model)
    except (KeyError, TypeError, ValueError) as unreadable:
        return record_failure(f"expected a model's vectors, got some that cannot be read ({describe(unreadable)})")
    error = fault_of(sent, metrics, expected)
    if error:
        return record_failure(error)
    return SiteReply(site=site.name, metrics=metrics, bytes_down=bytes_down, bytes_up=num_bytes(reply.content)), sent
