"""Freed memory stays in the process: image after image and step after step need the same sizes again."""

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


@functools.cache
def keep_freed_memory() -> None:
    """Once a process, on glibc: otherwise every large array is mapped and faulted in anew, at half the time of a step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
                libc.mallopt(option, value)
