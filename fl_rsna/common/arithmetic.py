"""Describe the arithmetic of a process: where processor, libraries and threads are the same, the same seed gives the same model."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info


def describe_arithmetic() -> dict[str, Any]:
    """Name the processor, and the instruction sets that PyTorch, NumPy and the linear algebra libraries use on it.

    They decide the order in which floating-point numbers are added, and so the rounding. Two machines that differ in one of them may
    train models that differ in the last bits, and after some rounds in more.
    """
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    libraries = {(library["internal_api"], library.get("architecture")) for library in threadpool_info()}
    return {
        "processor": name_processor(),
        "torch": torch.backends.cpu.get_cpu_capability(),
        "numpy": [*simd["baseline"], *simd.get("found", [])],
        "linear_algebra": sorted(f"{name} {architecture}" for name, architecture in libraries if architecture),
        "threads": torch.get_num_threads(),
    }


def name_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model as Linux names it; on other systems its architecture."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
