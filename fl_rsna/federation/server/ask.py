"""Ask sites: send one content to each, wait, check and record the replies, count their bytes, and require a quorum.

Every question of the server after the roll call goes through `ask` or `ask_for`. Where replies are aggregated as they come, `send`
yields them one by one.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_rsna.common.command_end import RunFailed
from fl_rsna.federation.protocol.failures import describe
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    failure_of,
    num_bytes,
    record_in,
    to_arrays,
)
from fl_rsna.federation.server.context import RunContext
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.run_folder.run_folder import RunFolder, finite_or_null
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.strategy import StrategyConfig

KEPT = ("num-examples", "steps", "loss", "seconds", "virtual_s")  # the metrics that have columns in sites.csv
QUORUM = "strategy.quorum"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReply:
    """A site's reply in one phase of a round; `error` is empty when it succeeded."""

    site: str
    metrics: dict[str, float]
    bytes_down: int
    bytes_up: int
    error: str = ""
    traceback: str = ""
    update_sha256: str = ""  # hash of the trained model as sent, by which a repetition is compared


class Traffic(Protocol):
    """The counts of bytes and failures in the state of a run."""

    bytes_down: int
    bytes_up: int
    failures: int


class BelowQuorum(RunFailed):
    """The error of a phase in which fewer sites replied than the quorum needs."""


def ask(
    context: RunContext,
    sites: list[Site],
    kind: str,
    content: RecordDict,
    *,
    round_: int,
    on_reply: Callable[[SiteReply], None],
) -> list[SiteReply]:
    """Send `content` to each of `sites` as a message of this kind and return each site's reply, in their order."""
    answers = ask_for(context, sites, kind, content, round_=round_, on_reply=on_reply, read=lambda reply: None)
    return [reply for reply, _ in answers]


def ask_for(
    context: RunContext,
    sites: list[Site],
    kind: str,
    content: RecordDict,
    *,
    round_: int,
    on_reply: Callable[[SiteReply], None],
    read: Callable[[Message], T],
) -> list[tuple[SiteReply, T | None]]:
    """Ask as `ask` does, and return beside each reply the result of `read`; None where the site failed or `read` raised."""
    arriving = send(context, sites, kind, content, round_)
    return read_replies(sites, arriving, read, bytes_down=num_bytes(content), on_reply=on_reply)


def send(context: RunContext, sites: list[Site], kind: str, content: RecordDict, round_: int) -> Iterator[Message]:
    """Send one content to each of `sites` and yield replies as they come, within the time limit of the run."""
    return context.deliver([Message(content, site.node_id, kind, group_id=str(round_)) for site in sites])


def in_site_order(sites: list[Site], replies: Iterable[Message]) -> Iterator[tuple[Site, Message | None]]:
    """Pair sites with their replies in the order of `sites`, keeping replies that came early; None for a site that did not reply."""
    waiting: dict[int, Message] = {}
    arriving = iter(replies)
    for site in sites:
        while site.node_id not in waiting:
            reply = next(arriving, None)
            if reply is None:
                break
            waiting[reply.metadata.src_node_id] = reply
        yield site, waiting.pop(site.node_id, None)


def read_replies(
    sites: list[Site],
    replies: Iterable[Message],
    read: Callable[[Message], T],
    *,
    bytes_down: int,
    on_reply: Callable[[SiteReply], None],
) -> list[tuple[SiteReply, T | None]]:
    """Read every site's metrics, and the result of `read`, from its reply as `ask_for` describes.

    A KeyError or ValueError of `read` makes the reply a failure, and so does a metric that is not finite.
    """
    answers: list[tuple[SiteReply, T | None]] = []
    for site, reply in in_site_order(sites, replies):
        found, metrics, up = None, dict[str, float](), 0
        error, text = ("no reply in time", "") if reply is None else failure_of(reply) or ("", "")
        if reply is not None and not error:
            try:
                found, metrics, up = read(reply), read_metrics(reply), num_bytes(reply.content)
            except (KeyError, ValueError) as unreadable:
                error = f"expected the reply of this phase, got another ({describe(unreadable)})"
            if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
                error, found, metrics = f"expected finite figures, got others of {', '.join(strange)}", None, {}
        record = SiteReply(
            site=site.name, metrics=metrics, bytes_down=bytes_down, bytes_up=up, error=error, traceback=text
        )
        answers.append((record, found))
        on_reply(record)
    return answers


def read_metrics(reply: Message) -> dict[str, float]:
    """Read the metrics of a reply. Raises KeyError when it has none."""
    return {
        name: float(value)
        for name, value in record_in(reply.content, METRICS, MetricRecord).items()
        if not isinstance(value, list)
    }


def recorder(run: RunFolder, phase: str, round_: int) -> Callable[[SiteReply], None]:
    """Make a function that records each reply as an event and a row of sites.csv."""

    def record(reply: SiteReply) -> None:
        if reply.error:
            run.event(
                "site_failed", round=round_, phase=phase, site=reply.site, error=reply.error, traceback=reply.traceback
            )
        else:
            update = {"update_sha256": reply.update_sha256} if reply.update_sha256 else {}
            run.event("site_done", round=round_, phase=phase, site=reply.site, metrics=reply.metrics, **update)
        areas = {name.replace("auroc/", "auroc_"): value for name, value in reply.metrics.items() if "auroc/" in name}
        row = {
            "round": round_,
            "phase": phase,
            "site": reply.site,
            **{name: reply.metrics.get(name) for name in KEPT},
            "bytes_down": reply.bytes_down,
            "bytes_up": reply.bytes_up,
        }
        run.append_row(
            "sites",
            {
                **row,
                "error": reply.error,
                "aurocs": json.dumps(finite_or_null(areas), allow_nan=False) if areas else "",
            },
        )

    return record


def sum_traffic(replies: Iterable[SiteReply]) -> dict[str, int]:
    """Add up bytes down, bytes up and failures of the replies."""
    counted = list(replies)
    return {
        "bytes_down": sum(reply.bytes_down for reply in counted),
        "bytes_up": sum(reply.bytes_up for reply in counted),
        "failures": sum(bool(reply.error) for reply in counted),
    }


def count_traffic(progress: Traffic, replies: Iterable[SiteReply]) -> dict[str, int]:
    """Add the bytes and failures of these replies to those of the run; return what was added."""
    found = sum_traffic(replies)
    progress.bytes_down += found["bytes_down"]
    progress.bytes_up += found["bytes_up"]
    progress.failures += found["failures"]
    return found


def require_quorum(
    phase: str,
    came: int,
    asked: int,
    strategy: StrategyConfig,
    replies: Iterable[SiteReply],
    *,
    least: int = 1,
    needed_by: str = QUORUM,
) -> None:
    """Raise BelowQuorum, with the reason of each failure, when fewer of the `asked` sites replied than strategy.quorum or `least` needs."""
    needed = max(least, math.ceil(strategy.quorum * asked))
    if came < needed:
        failed = "; ".join(f"{reply.site}: {reply.error}" for reply in replies if reply.error)
        raise BelowQuorum(f"{phase}: {came} of {asked} sites replied, {needed} needed by {needed_by} ({failed})")


def model_content(
    model: FlatModel,
    config: ConfigRecord,
    second: NDArray[np.float32] | None = None,
    precision: Precision = Precision.fp32,
    exact: NDArray[np.bool_] | None = None,
) -> RecordDict:
    """Make the content of a message with a model, which is the same for every site."""
    return RecordDict({ARRAYS: to_arrays(model, second, precision, exact), CONFIG: config})
