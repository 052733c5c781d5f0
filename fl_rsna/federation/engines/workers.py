"""Keep worker processes from one run to the next, one CUDA device each, and replace those that died."""

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
GRACE_S = 10  # seconds to wait for a dead process's exit code


class WorkerDied(Exception):
    """The error of a process that ended before it answered; the message names its signal or exit code."""


class Worker:
    """A process that runs one call at a time: `send` the call, wait for `pipe`, `receive` the result."""

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
        """Send the call `act(*args)`, which must pickle; a dead worker is noticed by `receive`."""
        self.busy = True
        with contextlib.suppress(OSError):
            self.pipe.send((act, args))

    def receive(self) -> Any:
        """Return the result of the call. Raises WorkerDied."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise WorkerDied(self._last_words()) from None
        self.busy = False
        return answer

    def is_ready(self) -> bool:
        """Tell whether the worker lives and is not at work."""
        return self.process.is_alive() and not self.busy

    def restart(self) -> None:
        """End the process, whatever it does, and start another in its place."""
        self.end()
        self._start()

    def end(self) -> None:
        """Kill the process."""
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
    """Return the first `count` workers, each ready: a missing one is started, one that died or is still at work is restarted."""
    for position in range(count):
        if position == len(_staff):
            _staff.append(Worker(position))
        elif not _staff[position].is_ready():
            _staff[position].restart()
    return _staff[:count]


def device_of(position: int, count: int, visible: str | None) -> str | None:
    """Return the CUDA_VISIBLE_DEVICES of worker `position`; `count` devices are assigned in turn. None without devices.

    `visible` is this process's own CUDA_VISIBLE_DEVICES: the indices or ids of the `count` devices.
    """
    if count == 0:
        return None
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[position % count].strip()


def workers_for(asked: int | None, devices: int) -> int:
    """Return the number of workers: as many as asked for, else one for each CUDA device, else WITHOUT_CUDA."""
    return asked if asked is not None else devices or WITHOUT_CUDA


# in a worker process


def _serve(pipe: "Connection[Any, Any]", device: str | None) -> None:
    """Run the calls that come through the pipe until its other end is closed."""
    if device is not None:
        os.environ[DEVICES] = device  # read when CUDA starts, which is with the first site
    end_with_parent()  # a worker whose run was killed must not stay behind with its memory
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            act, args = pipe.recv()
            pipe.send(act(*args))
