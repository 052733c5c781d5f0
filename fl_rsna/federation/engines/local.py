"""Run the local engine: a Flower Grid that runs the ClientApp in this process or in pre-loaded worker processes.

Only this file uses the private parts of Flower (1.42) that an in-process Grid needs: the TaskIdentity of the process that makes
messages, a message's `_message_id`, and Run.create_empty.
"""

import logging
import pickle
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.federation.engines.shared_memory import SharedContents, forget_killed, leave, take
from fl_rsna.federation.engines.workers import Worker, WorkerDied, hire

RUN_ID, TASK_ID, FIRST_NODE_ID = 1, 1, 1000
ATTEMPTS = 2  # tries of one site in one phase whose worker the system kills

AppFactory = Callable[[], ClientApp]
OnDeath = Callable[[int, Message, str], None]  # the node's partition-id, what it was asked, how its worker ended


def unheard(position: int, message: Message, how: str) -> None:
    """Ignore the death of a worker."""


def run_local(
    server_app: ServerApp,
    client_app: AppFactory,
    *,
    num_sites: int,
    workers: int,
    on_death: OnDeath = unheard,
) -> None:
    """Run a ServerApp against `num_sites` nodes in `workers` processes; with 0 workers everything runs in this process.

    `client_app` makes the ClientApp and must be picklable when there are workers. `on_death` is called for every worker that
    died at a site's message; the site is asked once more.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)  # the run's events already tell of its rounds
    identify()
    grid = LocalGrid(client_app, num_sites, workers, on_death)
    server_app(grid, Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), {}))


class LocalGrid(Grid):
    """A Grid of nodes 1000, 1001, ... with `partition-id` 0, 1, ..., which yields replies as they come."""

    def __init__(
        self,
        client_app: AppFactory,
        num_sites: int,
        workers: int,
        on_death: OnDeath = unheard,
    ) -> None:
        self._run = Run.create_empty(RUN_ID)
        self._contexts = {
            FIRST_NODE_ID + i: Context(
                RUN_ID, FIRST_NODE_ID + i, {"partition-id": i, "num-partitions": num_sites}, RecordDict(), {}
            )
            for i in range(num_sites)
        }
        self._replies: dict[str, Message] = {}
        self._workers, self._on_death = workers, on_death
        self._app = client_app() if workers == 0 else None
        self._factory = pickle.dumps(client_app) if workers else b""
        forget_killed()
        hire(workers)  # they start while the server gets ready

    @property
    def run(self) -> Run:
        """Return Flower's run."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield replies in order of completion; later ones than `timeout` seconds are left out, as in Flower."""
        messages = list(messages)
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
        return self._inline(messages) if self._app is not None else self._run_in_pool(messages, timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, wait for all replies, and return the messages' ids."""
        replies = list(self.send_and_receive(messages))
        self._replies.update({reply.metadata.reply_to_message_id: reply for reply in replies})
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, each of them once."""
        return [self._replies.pop(message_id) for message_id in list(message_ids) if message_id in self._replies]

    def _inline(self, messages: list[Message]) -> Iterator[Message]:
        assert self._app is not None
        for message in messages:
            try:
                yield self._app(message, self._contexts[message.metadata.dst_node_id])
            except Exception as error:
                yield _error(message, f"{type(error).__name__}: {error}")

    def _run_in_pool(self, messages: list[Message], timeout: float | None) -> Iterator[Message]:
        """Give each worker one message at a time, and yield the replies. A worker that is still at work at the end is ended."""
        end = None if timeout is None else time.monotonic() + timeout
        queue, idle, replies = deque(messages), deque(hire(self._workers)), list[Message]()
        working, deaths = dict[Any, tuple[Worker, Message]](), Counter[int]()
        try:
            with SharedContents() as shared:
                while True:
                    while idle and queue:  # before replies are aggregated, so that no worker waits for that
                        worker, message = idle.popleft(), queue.popleft()
                        paths = shared.path(message.content), shared.answer(worker.position)
                        worker.send(_work, self._factory, *paths, *self._whereabouts(message))
                        working[worker.pipe] = worker, message
                    yield from replies
                    replies.clear()
                    if not working:
                        return
                    ready = wait(working, None if end is None else max(0.0, end - time.monotonic()))
                    if not ready:
                        return
                    for pipe in ready:
                        worker, message = working.pop(pipe)
                        reply = self._receive_reply(worker, message, shared.answer(worker.position), deaths)
                        replies.extend([reply] if reply else [])
                        queue.extendleft([] if reply else [message])
                        idle.append(worker)
        finally:
            for pipe, (worker, _) in working.items():
                if worker.pipe is pipe:  # it was not restarted since
                    worker.end()

    def _whereabouts(self, message: Message) -> tuple[object, Context]:
        return message.metadata, self._contexts[message.metadata.dst_node_id]

    def _receive_reply(self, worker: Worker, message: Message, answer: Path, deaths: Counter[int]) -> Message | None:
        """Return the worker's reply; None where it died and the message will be sent again, an error where it died again."""
        node = message.metadata.dst_node_id
        try:
            error = worker.receive()
        except WorkerDied as death:
            worker.restart()
            self._on_death(node - FIRST_NODE_ID, message, str(death))
            deaths[node] += 1
            if deaths[node] < ATTEMPTS:
                return None
            advice = "lower engine.workers, train.batch_size or model.image_size, or give the machine more memory"
            return _error(message, f"the worker that ran this site died twice ({death}); {advice}")
        if error is not None:
            return _error(message, error)
        reply: Message
        reply, self._contexts[node] = take(answer)
        return reply


def identify() -> None:
    """Set Flower's identity of this process, which it needs to make messages."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, TASK_ID, SUPERLINK_NODE_ID


def _error(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


# the state of a worker process between messages
_app: tuple[bytes, ClientApp] | None = None
_content: tuple[Path, RecordDict] | None = None


def _work(factory: bytes, path: Path, answer: Path, metadata: object, context: Context) -> str | None:
    """Write the site's reply and its context to `answer`; return an error as text, else None."""
    global _app, _content
    try:
        identify()
        if _app is None or _app[0] != factory:
            _app = (factory, pickle.loads(factory)())
        if _content is None or _content[0] != path:
            _content = (path, take(path))
        reply = _app[1](Message(content=_content[1], metadata=metadata), context)  # type: ignore[call-overload]
        leave((reply, context), answer)
    except BaseException as error:  # a decoder's panic is no Exception
        return f"{type(error).__name__}: {error}"
    return None
