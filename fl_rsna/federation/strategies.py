"""A Flower strategy among named sites: seeded sampling, replies folded in site order, failures counted, a quorum kept."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from fl_rsna.config import StrategyConfig, StrategyName
from fl_rsna.federation.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    FlatModel,
    failure_of,
    from_arrays,
    num_bytes,
    to_arrays,
)
from fl_rsna.federation.rollcall import Site
from fl_rsna.learning.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReply:
    """One site's part in one phase of a round; `error` is empty when it succeeded."""

    site: str
    metrics: dict[str, float]
    bytes_down: int
    bytes_up: int
    error: str = ""
    traceback: str = ""


class BelowQuorum(Exception):
    """Too few sites replied for their mean to stand for the cohort."""


def flower_strategy(config: StrategyConfig) -> Strategy:
    """Flower's own strategy that turns the folded mean into the next global model."""
    match config.name:
        case StrategyName.fedavg:
            return FedAvg(weighted_by_key="num-examples")


def sample_sites(sites: list[Site], fraction: float, seed: int, round_: int) -> list[Site]:
    """round(fraction * n) sites, at least one, chosen by seed and round among the names; in the order given."""
    count = max(1, round(fraction * len(sites)))
    chosen = np.random.default_rng(derive_seed(seed, "sample", round_)).choice(len(sites), count, replace=False)
    return [sites[i] for i in sorted(chosen)]


def address(
    sites: list[Site], kind: str, model: FlatModel, config: ConfigRecord, round_: int
) -> tuple[list[Message], int]:
    """One message a site, all sharing one content; and the bytes each carries."""
    content = RecordDict({ARRAYS: to_arrays(model), CONFIG: config})
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


def aggregate(
    strategy: Strategy,
    round_: int,
    model: FlatModel,
    sites: list[Site],
    replies: Iterable[Message],
    *,
    quorum: float,
    bytes_down: int,
    on_reply: Callable[[SiteReply], None],
) -> tuple[FlatModel, list[SiteReply]]:
    """Fold the replies into a running mean weighted by training slices and let the strategy make the next model.

    Memory is one float64 vector, whatever the number of sites. Integer buffers are no quantity to average: the
    first site's are kept. Raises BelowQuorum when fewer than quorum * len(sites) replies are usable.
    """
    total, integers, weight = torch.zeros(model.floats.size, dtype=torch.float64), None, 0.0
    records: list[SiteReply] = []
    for site, reply in in_site_order(sites, replies):
        record, update = _usable(site, reply, model, bytes_down)
        records.append(record)
        on_reply(record)
        if update is not None:
            total.add_(torch.from_numpy(update.floats), alpha=record.metrics["num-examples"])
            integers, weight = (
                update.integers if integers is None else integers,
                weight + record.metrics["num-examples"],
            )
    good = [record for record in records if not record.error]
    needed = max(1, math.ceil(quorum * len(sites)))
    if len(good) < needed or integers is None:
        failed = "; ".join(f"{record.site}: {record.error}" for record in records if record.error)
        raise BelowQuorum(
            f"round {round_}: {len(good)} of {len(sites)} sites replied, strategy.quorum needs {needed} ({failed})"
        )
    mean = (total / weight).float().numpy()
    return FlatModel(_next_floats(strategy, round_, mean, weight), integers), records


def read_evaluations(
    sites: list[Site], replies: Iterable[Message], *, bytes_down: int, on_reply: Callable[[SiteReply], None]
) -> list[SiteReply]:
    """Every site's validation metrics, or its failure, in site order."""
    records = []
    for site, reply in in_site_order(sites, replies):
        error, text = ("no reply in time", "") if reply is None else failure_of(reply) or ("", "")
        metrics = _metrics(reply) if reply is not None and not error else {}
        records.append(
            SiteReply(site=site.name, metrics=metrics, bytes_down=bytes_down, bytes_up=0, error=error, traceback=text)
        )
        on_reply(records[-1])
    return records


def weighted_mean(records: list[SiteReply], metric: str) -> float | None:
    """A metric over the sites that have it, weighted by their examples."""
    pairs = [(record.metrics[metric], record.metrics["num-examples"]) for record in records if metric in record.metrics]
    weight = sum(examples for _, examples in pairs)
    return sum(value * examples for value, examples in pairs) / weight if weight else None


def _usable(site: Site, reply: Message | None, model: FlatModel, bytes_down: int) -> tuple[SiteReply, FlatModel | None]:
    """The record of a reply and its update, which is None when it must not enter the mean."""

    def failed(error: str, text: str = "") -> tuple[SiteReply, None]:
        return SiteReply(
            site=site.name, metrics={}, bytes_down=bytes_down, bytes_up=0, error=error, traceback=text
        ), None

    if reply is None:
        return failed("no reply in time")
    failure = failure_of(reply)
    if failure is not None:
        return failed(*failure)
    update, metrics = from_arrays(reply.content.array_records[ARRAYS]), _metrics(reply)
    if update.floats.shape != model.floats.shape or update.integers.shape != model.integers.shape:
        return failed(f"expected an update of {model.floats.size} values, got {update.floats.size}")
    if not np.isfinite(update.floats).all():
        return failed("the update holds values that are not finite")
    return SiteReply(site=site.name, metrics=metrics, bytes_down=bytes_down, bytes_up=num_bytes(reply.content)), update


def _next_floats(strategy: Strategy, round_: int, mean: np.ndarray, weight: float) -> np.ndarray:
    """Hand Flower's strategy one reply that stands for all: their mean and their total weight."""
    empty = np.zeros(0, np.int64)
    content = RecordDict({ARRAYS: to_arrays(FlatModel(mean, empty)), METRICS: MetricRecord({"num-examples": weight})})
    stand_in = Message(RecordDict(), 1, MessageType.TRAIN)
    arrays, _ = strategy.aggregate_train(round_, [Message(content, reply_to=stand_in)])
    assert isinstance(arrays, ArrayRecord)
    return arrays["floats"].numpy().astype(np.float32, copy=False)


def _metrics(reply: Message) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in reply.content.metric_records[METRICS].items()
        if not isinstance(value, list)
    }
