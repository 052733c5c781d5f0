"""A round among named sites: seeded sampling, replies in site order, each checked before it may enter the mean, and a quorum."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.codec import FLOATS, unpack
from fl_rsna.federation.protocol.failures import describe
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    SECOND,
    failure_of,
    from_arrays,
    num_bytes,
    record_in,
    to_arrays,
)
from fl_rsna.federation.rules.aggregate import RoundAggregate
from fl_rsna.federation.rules.server_rules import fewest_sites
from fl_rsna.federation.server.aggregation import PART, Sent, Sums
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.choices import Precision
from fl_rsna.settings.config import StrategyConfig, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a reply is held against: the model that was sent and its norm."""

    model: FlatModel
    norm: float
    max_update: float
    second_size: int


def read_sent(arrays: ArrayRecord, model: FlatModel) -> Sent:
    """The site's model, as sent in float32 or the sent one plus its change in less, and the vector beside it.

    Raises KeyError, TypeError or ValueError when they cannot be read.
    """
    found = from_arrays(arrays)
    if arrays[FLOATS].dtype != "float32" and found.floats.shape == model.floats.shape:
        found = FlatModel(model.floats + found.floats, found.integers)
    return Sent(model=found, second=unpack(arrays[SECOND]) if SECOND in arrays else None)


def update_sha256(reply: Message | None) -> str:
    """Hash of all a site sent of what it trained, as it travelled; empty where it sent nothing."""
    digest = hashlib.sha256()
    arrays = reply.content.get(ARRAYS) if reply is not None and reply.has_content() else None
    if not isinstance(arrays, ArrayRecord):
        return ""
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def fault_of(sent: Sent, metrics: dict[str, float], expected: Expected) -> str:
    """Why an update must not enter the mean; empty when it may."""
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
    """Euclidean distance of two vectors; infinite or not a number when a value is, or when it is too large for a float32."""
    square, change = 0.0, np.empty(PART, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, ours.size, PART):
            part = np.subtract(
                ours[start : start + PART], theirs[start : start + PART], out=change[: ours.size - start]
            )
            square += float(np.dot(part, part))
    return float(np.sqrt(square))


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReply:
    """One site's part in one phase of a round; `error` is empty when it succeeded."""

    site: str
    metrics: dict[str, float]
    bytes_down: int
    bytes_up: int
    error: str = ""
    traceback: str = ""
    update_sha256: str = ""  # of what a site trained, so that a repetition can be compared


class BelowQuorum(RunFailed):
    """Too few sites replied for their mean to stand for the cohort."""


def sample_sites(sites: list[Site], config: StrategyConfig, seed: int, round_: int) -> list[Site]:
    """round(fraction * n) sites, at least `min_sites`, chosen by seed and round among the names; in the order given."""
    count = compute_sample_size(len(sites), config)
    chosen = np.random.default_rng(derive_seed(seed, "sample", round_)).choice(len(sites), count, replace=False)
    return [sites[i] for i in sorted(chosen)]


def compute_sample_size(sites: int, config: StrategyConfig) -> int:
    """How many of so many sites take part in a round."""
    return min(sites, max(1, config.min_sites, round(config.fraction * sites)))


def address(
    sites: list[Site],
    kind: str,
    model: FlatModel,
    config: ConfigRecord,
    round_: int,
    second: NDArray[np.float32] | None = None,
    precision: Precision = Precision.fp32,
    exact: NDArray[np.bool_] | None = None,
) -> tuple[list[Message], int]:
    """One message a site, all sharing one content; and the bytes each carries."""
    content = RecordDict({ARRAYS: to_arrays(model, second, precision, exact), CONFIG: config})
    return [Message(content, site.node_id, kind, group_id=str(round_)) for site in sites], num_bytes(content)


def in_site_order(sites: list[Site], replies: Iterable[Message]) -> Iterator[tuple[Site, Message | None]]:
    """Pair replies with sites, in the order of `sites`, holding back only those that came early; None for the silent."""
    waiting: dict[int, Message] = {}
    arriving = iter(replies)
    for site in sites:
        while site.node_id not in waiting:
            reply = next(arriving, None)
            if reply is None:
                break
            waiting[reply.metadata.src_node_id] = reply
        yield site, waiting.pop(site.node_id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a round asked for, and of whom."""

    sites: list[Site]
    model: FlatModel  # what they were sent
    strategy: StrategyConfig
    train: TrainConfig
    round: int
    bytes_down: int  # of one message
    second_size: int = 0  # length of the vector expected beside each model
    timed: Callable[[SiteReply], float] = lambda reply: 0.0  # virtual seconds of a reply
    deadline_s: float | None = None  # above which it comes too late
    absent: AbstractSet[str] = frozenset()  # of `sites`: out of reach, not asked
    stepped: NDArray[np.bool_] | None = None  # where the strategy steps; None is everywhere


def aggregate_replies(
    asked: Asked, replies: Iterable[Message], on_reply: Callable[[SiteReply], None]
) -> tuple[RoundAggregate, NDArray[np.int64], list[SiteReply]]:
    """Fold the replies, in site order, into a running mean; also integers and every site's record.

    Memory is one float64 vector, whatever the number of sites, unless the strategy needs every update. Integer
    buffers are no quantity to average: the first site's are kept. Raises BelowQuorum when fewer than
    strategy.quorum * len(sites) replies are usable.
    """
    model, strategy = asked.model, asked.strategy
    sums, records = Sums(model.floats, strategy, asked.train, asked.stepped), list[SiteReply]()
    norm = distance(model.floats, np.zeros_like(model.floats))
    expected = Expected(model=model, norm=norm, max_update=strategy.max_update, second_size=asked.second_size)
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
    needed = max(fewest_sites(strategy), math.ceil(strategy.quorum * len(asked.sites)))
    if sums.count < needed or sums.integers is None:
        failed = "; ".join(f"{record.site}: {record.error}" for record in records if record.error)
        raise BelowQuorum(
            f"round {asked.round}: {sums.count} of {len(asked.sites)} sites replied, {needed} needed by strategy.quorum and strategy.name ({failed})"
        )
    return sums.aggregate(), sums.integers, records


def _in_time(record: SiteReply, seconds: float, deadline_s: float | None, sent: Sent) -> tuple[SiteReply, Sent | None]:
    """A reply with its virtual seconds; one that came too late counts for nothing."""
    if deadline_s is not None and seconds > deadline_s:
        return replace(
            record, metrics={}, error=f"too late: {seconds:.1f} virtual s, faults.deadline_s is {deadline_s:g}"
        ), None
    return replace(record, metrics={**record.metrics, "virtual_s": seconds}), sent


def hear(
    sites: list[Site],
    replies: Iterable[Message],
    read: Callable[[Message], T],
    *,
    bytes_down: int,
    on_reply: Callable[[SiteReply], None],
) -> list[tuple[SiteReply, T | None]]:
    """Every site's metrics and what `read` finds in its reply, in site order; None beside the failure of one that has no such reply."""
    heard: list[tuple[SiteReply, T | None]] = []
    for site, reply in in_site_order(sites, replies):
        found, metrics, up = None, dict[str, float](), 0
        error, text = ("no reply in time", "") if reply is None else failure_of(reply) or ("", "")
        if reply is not None and not error:
            try:
                found, metrics, up = read(reply), _metrics(reply), num_bytes(reply.content)
            except (KeyError, ValueError) as unreadable:
                error = f"expected the reply of this phase, got another ({describe(unreadable)})"
            if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
                error, found, metrics = f"expected finite figures, got others of {', '.join(strange)}", None, {}
        record = SiteReply(
            site=site.name, metrics=metrics, bytes_down=bytes_down, bytes_up=up, error=error, traceback=text
        )
        heard.append((record, found))
        on_reply(record)
    return heard


def read_evaluations(
    sites: list[Site], replies: Iterable[Message], *, bytes_down: int, on_reply: Callable[[SiteReply], None]
) -> list[SiteReply]:
    """Every site's validation metrics, or its failure, in site order."""
    heard = hear(sites, replies, lambda reply: None, bytes_down=bytes_down, on_reply=on_reply)
    return [record for record, _ in heard]


def average_metric(found: Iterable[Mapping[str, float]], metric: str) -> float | None:
    """A metric over the sites that have it among what they `found`, weighted by their examples."""
    pairs = [(metrics[metric], metrics["num-examples"]) for metrics in found if metric in metrics]
    weight = sum(examples for _, examples in pairs)
    return sum(value * examples for value, examples in pairs) / weight if weight else None


def _usable(site: Site, reply: Message | None, expected: Expected, bytes_down: int) -> tuple[SiteReply, Sent | None]:
    """The record of a reply and what it brought, which is None when it must not enter the mean."""

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
        arrays, metrics = record_in(reply.content, ARRAYS, ArrayRecord), _metrics(reply)
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


def _metrics(reply: Message) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record_in(reply.content, METRICS, MetricRecord).items()
        if not isinstance(value, list)
    }
