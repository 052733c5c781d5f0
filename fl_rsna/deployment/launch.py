"""Prepare what Flower's long-running processes are started with: their environment and the programs on their PATH."""

import os
import shlex
import sys
from pathlib import Path

from fl_rsna.common.atomic import write_whole
from fl_rsna.deployment.known_app import REFUSED, RUNS_IT

PROGRAMS, HOME = "bin", "flwr"  # folders in the state folder
POLL_S = "0.2"


def environment(state: Path) -> dict[str, str]:
    """Make the folder `state` and return the environment of a SuperLink or SuperNode that keeps its state there.

    Telemetry, update checks and the installation of packages at run time are off, and the programs found first for Flower's tasks
    run only the installed app (`known_app`). Raises OSError where the folder cannot be written.
    """
    programs = state.resolve() / PROGRAMS
    programs.mkdir(parents=True, exist_ok=True)
    for name in (*RUNS_IT, *REFUSED):
        write_program(programs / name, ["-m", "fl_rsna.deployment.known_app", name])
    return {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "FLWR_HOME": str(state.resolve() / HOME),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": POLL_S,
        **bypass_proxy(),
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def bypass_proxy() -> dict[str, str]:
    """Return the variables that keep calls to this machine away from a proxy that the environment may name."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys([*filter(None, named.split(",")), "localhost", "127.0.0.1"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def is_ours(program: bytes) -> bool:
    """Check whether `write_program` wrote this program."""
    return program.startswith(b"#!/bin/sh\nexec ") and b"fl_rsna" in program


def write_program(path: Path, arguments: list[str]) -> None:
    """Write a program that runs this Python with `arguments` before its own. Raises ValueError where another program has its name."""
    if os.path.lexists(path) and not (path.is_file() and is_ours(path.read_bytes())):
        raise ValueError(
            f"--state: expected a folder for this program alone, got {path}, which is another's; choose another"
        )
    write_whole(path, f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n'.encode())
    path.chmod(0o755)
