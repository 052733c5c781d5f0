"""Messages out and replies in, whatever happens to a site in between."""

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
LONGEST_S = 10 * 365 * 86400.0  # how long Flower keeps a message that no time limits; its own default is 12 hours
LOST = {  # Flower's errors that say a site did not answer, not that it answered badly
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}


def patience_s(config: Config) -> float | None:
    """How long a run waits for the replies of one phase. No time limits a simulation: its sites work or are known to have died."""
    return config.strategy.timeout_s if config.engine.name is EngineName.deployment else None


def deliver(
    grid: Grid, messages: list[Message], *, timeout_s: float | None, lost: Lost, gone_s: float | None = None
) -> Iterator[Message]:
    """Replies as they come, until all are there or `timeout_s` is over; what has not come by then is left out.

    Under `wait` a message whose site went away goes out once more when the site is back, within `gone_s` of when it was
    missed, else within `timeout_s`. What the site then does is the same, so is the model; in simulation nothing is ever lost so.
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
            if known and lost is Lost.wait and is_lost(reply) and time.monotonic() < end:
                missed[known.metadata.dst_node_id] = reply
            else:
                yield reply
        back = _wait_for_nodes(grid, set(missed), end if gone_s is None else min(end, time.monotonic() + gone_s))
        messages = [again(asked[node]) for node in missed if node in back]
        yield from (reply for node, reply in missed.items() if node not in back)


def find_request(reply: Message, asked: dict[int, Message]) -> Message | None:
    """The message that `reply` answers. What the SuperLink itself says for a node that is gone is made that node's own answer."""
    told = reply.metadata
    if told.src_node_id not in asked:
        for node_id, message in asked.items():
            if message.metadata.message_id == told.reply_to_message_id:
                told.__dict__["_src_node_id"] = node_id
    return asked.get(told.src_node_id)


def is_lost(reply: Message) -> bool:
    """Whether a reply only says that the site could not be asked, or went away."""
    return reply.has_error() and reply.error.code in LOST


def again(message: Message) -> Message:
    """The same message as a new one: Flower delivers each once."""
    told = message.metadata
    return Message(message.content, told.dst_node_id, told.message_type, group_id=told.group_id)


def _wait_for_nodes(grid: Grid, wanted: set[int], end: float) -> set[int]:
    """Those of the wanted that are there when all are, or at the end."""
    while not wanted <= (there := set(grid.get_node_ids())) and time.monotonic() < end:
        time.sleep(POLL_S)
    return wanted & there
