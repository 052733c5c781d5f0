"""Messages out and replies in, whatever happens to a site in between."""

import time
from collections.abc import Iterator

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fl_rsna.choices import Lost

POLL_S = 1.0
LOST = {  # Flower's errors that say a site did not answer, not that it answered badly
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}


def deliver(grid: Grid, messages: list[Message], *, timeout_s: float, lost: Lost) -> Iterator[Message]:
    """Replies as they come, until all are there or `timeout_s` is over; what has not come by then is left out.

    Under `wait` a message whose site went away goes out once more when the site is back. What the site then does is the same,
    so is the model; in simulation nothing is ever lost so.
    """
    end = time.monotonic() + timeout_s
    while messages:
        asked = {message.metadata.dst_node_id: message for message in messages}
        messages = []
        for reply in grid.send_and_receive(list(asked.values()), timeout=max(0.0, end - time.monotonic())):
            message = answered(reply, asked)
            if message and lost is Lost.wait and is_lost(reply) and time.monotonic() < end:
                messages.append(again(message))
            else:
                yield reply
        _wait_for_nodes(grid, {message.metadata.dst_node_id for message in messages}, end)


def answered(reply: Message, asked: dict[int, Message]) -> Message | None:
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


def _wait_for_nodes(grid: Grid, wanted: set[int], end: float) -> None:
    while not wanted <= set(grid.get_node_ids()) and time.monotonic() < end:
        time.sleep(POLL_S)
