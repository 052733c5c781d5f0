"""What a worker process does first: load its libraries early, keep memory that it freed, and limit what it may take."""

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
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
DATA_PAGES = 5  # the place in /proc/self/statm (proc(5))


def create_worker_context() -> ForkServerContext:
    """Processes forked from a server that has loaded what a site needs."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts; set later, two workers fight over the cores
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def begin_loading() -> None:
    """Start that server now; it loads on another core."""
    create_worker_context()
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


@functools.cache
def keep_freed_memory() -> None:
    """Once a process, on glibc: image after image and step after step need the same sizes again.

    Otherwise every large array is mapped and faulted in anew, at half the time of a step.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
                libc.mallopt(option, value)


@functools.cache
def limit_memory(more: int) -> None:
    """Once a process, on Linux: beyond `more` bytes on top of what it has now, allocations fail."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[DATA_PAGES])
        limit, hard = pages * resource.getpagesize() + more, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
