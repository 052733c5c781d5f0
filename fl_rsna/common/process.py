"""Prepare worker processes: load libraries early, end with the parent, keep freed memory, and limit memory."""

import atexit
import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported

PRELOAD = ["fl_rsna.federation.site.client_app", "torch._dynamo", "efficientnet_pytorch", "efficientnet_lite_pytorch"]
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # parameters of mallopt, from glibc's malloc.h
DATA_PAGES = 5  # position of the data size, in pages, in /proc/self/statm (proc(5))


def create_worker_context() -> ForkServerContext:
    """Create a context whose processes are forked from a server that has loaded the libraries a site needs."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts; set later, two workers fight over the cores
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def begin_loading() -> None:
    """Start the server of `create_worker_context` now, so that it loads libraries on another core meanwhile.

    A command with the setting engine.workers=0 needs no workers, and so no server.
    """
    if "engine.workers=0" in sys.argv:
        return
    create_worker_context()
    with without_interrupts():
        ensure_running()
    atexit.register(_end_loading)


def _end_loading() -> None:
    """Kill the server at exit: otherwise it would finish loading before it noticed that its parent is gone."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if server is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started in the body, from their first instruction on. Their parent ends them."""
    resource_tracker.ensure_running()  # its own start would unblock SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit the blocked signals
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let this worker process end when its parent ends, in whatever way, and not by Ctrl-C.

    SIGINT is blocked here, too: the server it was forked from may have been started elsewhere without blocking it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@functools.cache
def keep_freed_memory() -> None:
    """Keep freed memory for the next allocation, on glibc. A second call in a process does nothing.

    Images and training steps need the same sizes again and again. Without this every large array is mapped and its pages are faulted in
    again, which takes half the time of a step.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
                libc.mallopt(option, value)


@functools.cache
def limit_memory(more: int) -> None:
    """Limit the process, on Linux, to `more` bytes beyond its present data size: larger allocations fail. A second call does nothing."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[DATA_PAGES])
        limit, hard = pages * resource.getpagesize() + more, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
