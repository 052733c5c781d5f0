"""What this machine has: cores, memory, disk and ports, as a process here may use them."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import psutil

CGROUPS = (  # (limit, in use) of a container's memory, version 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> float:
    """Cores this process may run on, by its affinity and its container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = CPU_MAX.read_text().split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def free_memory(cgroups: tuple[tuple[Path, Path], ...] = CGROUPS) -> int:
    """Bytes that can be had without swapping: the machine's, or what a container's limit leaves."""
    free = int(psutil.virtual_memory().available)
    for limit, used in cgroups:
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return max(0, free)


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    return path


def refuses_writing(folder: Path) -> str:
    """Why nothing can be written into a folder, made or not; empty when it can. It stays as it is."""
    there = existing_part(folder)
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror or error}"


def free_disk(folder: Path) -> tuple[int, int]:
    """(device, free bytes) of the file system a folder is or will be on."""
    there = existing_part(folder)
    return there.stat().st_dev, shutil.disk_usage(there).free


def taken_ports(ports: tuple[int, ...]) -> list[int]:
    """Those on which something on this machine listens already."""
    return [port for port in ports if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
