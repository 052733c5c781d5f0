"""What a process does with memory: keep what it freed, and never take more than its work can need."""

import ctypes
import functools
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
DATA_PAGES = 5  # the place in /proc/self/statm (proc(5))


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
