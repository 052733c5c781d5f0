"""Send messages to sites and collect their replies, also where a site goes away in between."""

import math
import time
from collections.abc import Iterator

from flwr.app import DEFAULT_TTL, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fl_rsna.settings.config import Config
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.strategy import Lost

POLL_S = 1.0
LONGEST_S = 10 * 365 * 86400.0  # how long Flower keeps a message without a time limit; its own default is 12 hours
LOST = {  # Flower's errors for a site that did not answer
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}


def patience_s(config: Config) -> float | None:
    """Return how many seconds a run waits for the replies of one phase; None, without limit, in a simulation.

    The sites of a simulation either work or are known to have died.
    """
    return config.strategy.timeout_s if config.engine.name is EngineName.deployment else None


def deliver(
    grid: Grid, messages: list[Message], *, timeout_s: float | None, lost: Lost, gone_s: float | None = None
) -> Iterator[Message]:
    """Send messages and yield replies as they come, until all are there or `timeout_s` seconds are over; later replies are left out.

    Under `lost=wait` a message whose site went away is sent once more when the site is back, within `gone_s` seconds if that is given,
    else within `timeout_s`. The site then does the same work, so the model is the same. No message is lost in a simulation.
    """
    start = time.monotonic()
    end = math.inf if timeout_s is None else start + timeout_s
    while messages:
        for message in messages:
            message.metadata.ttl = LONGEST_S if timeout_s is None else max(DEFAULT_TTL, 2 * timeout_s)
        asked, missed = {message.metadata.dst_node_id: message for message in messages}, dict[int, Message]()
        left = None if timeout_s is None else max(0.0, end - time.monotonic())
        for reply in grid.send_and_receive(list(asked.values()), timeout=left):
            known = find_request(reply, asked)
            is_lost = reply.has_error() and reply.error.code in LOST
            if known and lost is Lost.wait and is_lost and time.monotonic() < end:
                missed[known.metadata.dst_node_id] = reply
            else:
                yield reply
        back = _wait_for_nodes(grid, set(missed), end if gone_s is None else min(end, time.monotonic() + gone_s))
        messages = [again(asked[node]) for node in missed if node in back]
        yield from (reply for node, reply in missed.items() if node not in back)


def find_request(reply: Message, asked: dict[int, Message]) -> Message | None:
    """Find the message that `reply` answers. A reply that the SuperLink makes for a node that is gone becomes that node's own."""
    told = reply.metadata
    if told.src_node_id not in asked:
        for node_id, message in asked.items():
            if message.metadata.message_id == told.reply_to_message_id:
                told.__dict__["_src_node_id"] = node_id
    return asked.get(told.src_node_id)


def again(message: Message) -> Message:
    """Copy a message, because Flower delivers each message once."""
    told = message.metadata
    return Message(message.content, told.dst_node_id, told.message_type, group_id=told.group_id)


def _wait_for_nodes(grid: Grid, wanted: set[int], end: float) -> set[int]:
    """Wait until all `wanted` nodes are there, or until the time `end`; return those that are there."""
    while not wanted <= (there := set(grid.get_node_ids())) and time.monotonic() < end:
        time.sleep(POLL_S)
    return wanted & there
