"""The local engine: a Flower Grid that runs the ClientApp in this process or in pre-loaded worker processes.

Everything private of Flower that an in-process Grid needs is named in this file alone (1.41 and 1.42): the
TaskIdentity of whoever makes messages, a message's `_message_id`, and Run.create_empty.
"""

import itertools
import logging
import multiprocessing
import os
import pickle
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.loading import loading_context

RUN_ID, TASK_ID, FIRST_NODE_ID = 1, 1, 1000

AppFactory = Callable[[], ClientApp]


def run_local(server_app: ServerApp, client_app: AppFactory, *, num_sites: int, workers: int) -> None:
    """Run a ServerApp against `num_sites` nodes; `workers` processes, or none for everything in this one.

    `client_app` makes the ClientApp and must be picklable when there are workers.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)  # its account of a round is in the events already
    identify()
    grid = LocalGrid(client_app, num_sites, workers)
    try:
        server_app(grid, Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
    finally:
        grid.close()


class LocalGrid(Grid):
    """Nodes 1000, 1001, ... with `partition-id` 0, 1, ...; replies are yielded as they come."""

    def __init__(self, client_app: AppFactory, num_sites: int, workers: int) -> None:
        self._run = Run.create_empty(RUN_ID)
        self._contexts = {
            FIRST_NODE_ID + i: Context(
                RUN_ID, FIRST_NODE_ID + i, {"partition-id": i, "num-partitions": num_sites}, RecordDict(), {}
            )
            for i in range(num_sites)
        }
        self._replies: dict[str, Message] = {}
        self._workers = workers
        self._app = client_app() if workers == 0 else None
        self._factory = pickle.dumps(client_app) if workers else b""
        self._pool = _pool_of(workers) if workers else None
        self._unanswered = 0

    @property
    def run(self) -> Run:
        return self._run

    def set_run(self, run: Run) -> None:
        self._run = run

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies in order of completion; what has not come after `timeout` seconds is left out, as in Flower."""
        messages = list(messages)
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
        return self._inline(messages) if self._pool is None else self._pooled(messages, self._pool, timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        replies = list(self.send_and_receive(messages))
        self._replies.update({reply.metadata.reply_to_message_id: reply for reply in replies})
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(message_id) for message_id in list(message_ids) if message_id in self._replies]

    def close(self) -> None:
        """Leave the workers to the next run of this process, unless one still works on what nobody waits for."""
        if self._unanswered:
            _pools.pop(self._workers).shutdown(wait=False, cancel_futures=True)

    def _inline(self, messages: list[Message]) -> Iterator[Message]:
        assert self._app is not None
        for message in messages:
            try:
                yield self._app(message, self._contexts[message.metadata.dst_node_id])
            except Exception as error:
                yield _error(message, error)

    def _pooled(self, messages: list[Message], pool: ProcessPoolExecutor, timeout: float | None) -> Iterator[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        queue, pending = iter(messages), dict[Future[tuple[Message, Context]], Message]()
        with _SharedContents() as shared:
            while True:
                for message in itertools.islice(queue, self._workers + 1 - len(pending)):
                    context = self._contexts[message.metadata.dst_node_id]
                    work = pool.submit(_work, self._factory, shared.path(message.content), message.metadata, context)
                    pending[work] = message
                if not pending:
                    return
                done, _ = wait(pending, None if end is None else max(0.0, end - time.monotonic()), FIRST_COMPLETED)
                if not done:
                    self._unanswered += len(pending)
                    return
                for future in done:
                    yield self._finished(future, pending.pop(future))

    def _finished(self, future: Future[tuple[Message, Context]], message: Message) -> Message:
        try:
            reply, self._contexts[message.metadata.dst_node_id] = future.result()
        except Exception as error:
            return _error(message, error)
        return reply


class _SharedContents:
    """Message contents written once to shared memory, however many sites they go to; gone at the end of the phase."""

    def __enter__(self) -> "_SharedContents":
        self._folder = tempfile.TemporaryDirectory(
            prefix="fl_rsna-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
        )
        self._paths: dict[int, Path] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def path(self, content: RecordDict) -> Path:
        if id(content) not in self._paths:
            path = Path(self._folder.name) / str(len(self._paths))
            with path.open("wb") as file:
                pickle.dump(content, file, protocol=5)
            self._paths[id(content)] = path
        return self._paths[id(content)]


def identify() -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, TASK_ID, SUPERLINK_NODE_ID


def _error(message: Message, error: Exception) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error).__name__}: {error}"), reply_to=message)


_pools: dict[int, ProcessPoolExecutor] = {}  # by number of workers: the jobs of a sweep share them and what they loaded


def _pool_of(workers: int) -> ProcessPoolExecutor:
    """Workers that are running, or new ones where there are none or one of them died."""
    if workers not in _pools or _is_broken(_pools[workers]):
        _pools[workers] = start_pool(workers)
    return _pools[workers]


def _is_broken(pool: ProcessPoolExecutor) -> bool:
    try:
        pool.submit(int).result()
    except BrokenProcessPool:
        return True
    return False


def start_pool(workers: int) -> ProcessPoolExecutor:
    """Workers forked from a server that has torch and the site's code loaded; one thread each."""
    return ProcessPoolExecutor(workers, loading_context(), _begin_work)


# in a worker process: what it keeps between messages
_app: tuple[bytes, ClientApp] | None = None
_content: tuple[Path, RecordDict] | None = None


def _begin_work() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    identify()


def _end_with_parent() -> None:
    """A worker whose run was killed must not stay behind with its memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(factory: bytes, path: Path, metadata: object, context: Context) -> tuple[Message, Context]:
    global _app, _content
    if _app is None or _app[0] != factory:
        _app = (factory, pickle.loads(factory)())
    if _content is None or _content[0] != path:
        with path.open("rb") as file:
            _content = (path, pickle.load(file))
    return _app[1](Message(content=_content[1], metadata=metadata), context), context  # type: ignore[call-overload]
