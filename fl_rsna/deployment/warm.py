"""Keep a process at a site that has loaded all a ClientApp needs and forks for every task.

The SuperNode starts it as python -m fl_rsna.deployment.warm <socket> <parent>. Flower alone would start a new process for every message,
which loads torch, Flower and the rest again: four seconds of CPU each time. A fork takes milliseconds and computes the same. The process
ends with the SuperNode, whose child it is, and runs only the installed app.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from fl_rsna.common.ownership import clear_folder
from fl_rsna.common.process import PRELOAD
from fl_rsna.deployment import ask_warm
from fl_rsna.deployment.known_app import guard_program
from fl_rsna.deployment.launch import PROGRAMS, write_program

LOOK_S = 0.5  # seconds between two looks at whether the SuperNode lives
ENDED_LOOK_S = 0.05  # seconds between two looks at whether a task has ended


def start_warming(state: Path, environment: Mapping[str, str]) -> None:
    """Start the warm process as a child of this one, and write the program that makes Flower's tasks ask it."""
    # only this user can read it; a socket's path must be short
    path = Path(tempfile.mkdtemp(prefix="fl_rsna-")) / "warm"
    subprocess.Popen(
        [sys.executable, "-m", "fl_rsna.deployment.warm", str(path), str(os.getpid())], env=dict(environment)
    )
    asks = str(Path(ask_warm.__file__).resolve())
    write_program(state / PROGRAMS / ask_warm.PROGRAM, ["-I", "-S", asks, str(path)])


def serve(path: Path, act: Callable[[], Any], parent: int) -> None:
    """Do `act` in a fork for everyone who asks at the socket `path`, until the process `parent` has ended.

    The parent may have ended before this was called.
    """
    working = dict[int, socket.socket]()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        while os.getppid() == parent:
            readable, _, _ = select.select([listener], [], [], ENDED_LOOK_S if working else LOOK_S)
            if readable:
                link, _ = listener.accept()
                child = fork_for(link, listener, act)
                if child:
                    working[child] = link
            answer_ended(working)
    clear_folder(path.parent, [path])


def fork_for(link: socket.socket, listener: socket.socket, act: Callable[[], Any]) -> int:
    """Fork a process that does the task that came over `link`; return its id, 0 where no task came."""
    size, descriptors, _, _ = socket.recv_fds(link, 4, 2)
    if len(size) < 4 or len(descriptors) < 2:
        link.close()
        return 0
    told = b""
    while len(told) < int.from_bytes(size, "big") and (more := link.recv(65536)):
        told += more
    child = os.fork()
    if child == 0:
        listener.close()
        link.close()
        do(act, json.loads(told), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def do(act: Callable[[], Any], arguments: list[str], descriptors: list[int]) -> NoReturn:
    """Do the task in the fork: set sys.argv and the descriptors of the process that asked, call `act`, and exit."""
    code = 1
    try:
        for place, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, place)
        sys.argv = [ask_warm.PROGRAM, *arguments]
        act()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 255)


def answer_ended(working: dict[int, socket.socket]) -> None:
    """Send the exit code of every fork that has ended to the process that asked, and kill the forks whose process has ended."""
    for child, link in list(working.items()):
        if select.select([link], [], [], 0)[0]:  # readable without a message means closed
            os.kill(child, signal.SIGTERM)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            with working.pop(child) as answered, contextlib.suppress(OSError):
                answered.sendall(bytes([code & 255]))


if __name__ == "__main__":
    for name in PRELOAD:
        import_module(name)
    serve(Path(sys.argv[1]), guard_program(ask_warm.PROGRAM), int(sys.argv[2]))
