"""Worker processes that outlive a run: warm for the next one, a CUDA device each, and new ones for those that died."""

import contextlib
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from fl_rsna.common.process import create_worker_context, end_with_parent, without_interrupts

DEVICES = "CUDA_VISIBLE_DEVICES"
WITHOUT_CUDA = 2  # workers, where none are asked for
GRACE_S = 10  # for a dead process to tell how it ended


class WorkerDied(Exception):
    """The process ended before it answered; the message says by which signal or exit code."""


class Worker:
    """One process that does one thing at a time: `send` it, wait for `pipe`, `receive` what came of it."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._start()

    def _start(self) -> None:
        self.busy = False
        device = device_of(self.position, torch.cuda.device_count(), os.environ.get(DEVICES))
        context = create_worker_context()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        with without_interrupts():  # Ctrl-C goes to the run, which ends its workers
            self.process.start()
        theirs.close()

    def send(self, act: Callable[..., Any], *args: Any) -> None:
        """Have it do `act(*args)`, of which both must pickle; of a dead worker one hears on receiving."""
        self.busy = True
        with contextlib.suppress(OSError):
            self.pipe.send((act, args))

    def receive(self) -> Any:
        """What `act` gave. Raises WorkerDied."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise WorkerDied(self._last_words()) from None
        self.busy = False
        return answer

    def is_ready(self) -> bool:
        return self.process.is_alive() and not self.busy

    def restart(self) -> None:
        """Another process in its place, whatever the old one does."""
        self.end()
        self._start()

    def end(self) -> None:
        self.process.kill()
        self.pipe.close()

    def _last_words(self) -> str:
        self.process.join(GRACE_S)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return f"{signal.Signals(-code).name}, sent by the system or a person; perhaps memory ran out"


_staff: list[Worker] = []  # the jobs of a sweep share them and what they have loaded


def hire(count: int) -> list[Worker]:
    """The first `count` workers of this process, each ready: new where there is none, or one that died or still works."""
    for position in range(count):
        if position == len(_staff):
            _staff.append(Worker(position))
        elif not _staff[position].is_ready():
            _staff[position].restart()
    return _staff[:count]


def device_of(position: int, count: int, visible: str | None) -> str | None:
    """The CUDA_VISIBLE_DEVICES of worker `position` among `count` devices, dealt in turn; None where there is none.

    `visible` is this process's own CUDA_VISIBLE_DEVICES: indices or ids of which `count` are there.
    """
    if count == 0:
        return None
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[position % count].strip()


def workers_for(asked: int | None, devices: int) -> int:
    """How many workers: as many as asked for, else one a CUDA device, else two."""
    return asked if asked is not None else devices or WITHOUT_CUDA


# in a worker process


def _serve(pipe: "Connection[Any, Any]", device: str | None) -> None:
    """Do what comes until nobody is there to ask."""
    if device is not None:
        os.environ[DEVICES] = device  # read when CUDA starts, which is with the first site
    end_with_parent()  # a worker whose run was killed must not stay behind with its memory
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            act, args = pipe.recv()
            pipe.send(act(*args))
