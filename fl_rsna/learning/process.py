"""How a process that trains on a CPU behaves: one thread, and memory kept between steps."""

import ctypes
import functools
import sys

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


@functools.cache
def settle_process() -> None:
    """Once a process: one compute thread, cuDNN's deterministic algorithms, and on glibc no returning of freed activations to the kernel.

    One thread gives the same sums in the same order in every engine, and parallelism is over sites. Without the
    second, every training step maps and faults in its activations anew: half the time of a round was the kernel's.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
                libc.mallopt(option, value)
