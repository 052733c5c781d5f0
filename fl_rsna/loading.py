"""Worker processes load what they need while the command itself still does: begin this before anything slow is imported."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported

PRELOAD = ["fl_rsna.federation.client_app", "torch._dynamo", "efficientnet_pytorch", "efficientnet_lite_pytorch"]


def loading_context() -> ForkServerContext:
    """Processes forked from a server that has loaded what a site needs."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts; set later, two workers fight over the cores
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def begin_loading() -> None:
    """Start that server now; it loads on another core."""
    loading_context()
    with without_interrupts():
        ensure_running()
    atexit.register(_end_loading)


def _end_loading() -> None:
    """The server would load to its end, and only then look whether anybody is there."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if server is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C does not reach a process that is started in the body, not even before it runs a line: whoever started it ends it."""
    resource_tracker.ensure_running()  # which would let it through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit what is blocked
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """In a process that was started: let it end when the one that started it does, however that ends, and not by Ctrl-C.

    It is forked from a server, which another part of the program may have started with Ctrl-C let through.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
