"""How a process that trains behaves: one CPU thread, repeatable CUDA, and memory kept between steps."""

import functools

import torch

from fl_rsna.memory import keep_freed_memory


@functools.cache
def settle_process() -> None:
    """Once a process: one compute thread, cuDNN's deterministic algorithms, and freed memory kept.

    One thread gives the same sums in the same order in every engine, and parallelism is over sites.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    keep_freed_memory()
