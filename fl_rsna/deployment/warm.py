"""A process at a site that has loaded all a ClientApp needs, and forks for every task: python -m fl_rsna.deployment.warm <socket> <parent>.

Flower starts a fresh process a message. That loads torch, Flower and the rest anew, four seconds of CPU each time; a fork takes
milliseconds and computes the same. It lives as long as the SuperNode, whose child it is, and runs the installed app alone.
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

LOOK_S = 0.5  # between looks at whether the SuperNode lives
ENDED_LOOK_S = 0.05  # and, while a task runs, at whether it ended


def start_warming(state: Path, environment: Mapping[str, str]) -> None:
    """Start it as a child of this process, and have the program that Flower starts in this state folder's environment ask it."""
    path = Path(tempfile.mkdtemp(prefix="fl_rsna-")) / "warm"  # readable by this user alone, and short
    subprocess.Popen(
        [sys.executable, "-m", "fl_rsna.deployment.warm", str(path), str(os.getpid())], env=dict(environment)
    )
    asks = str(Path(ask_warm.__file__).resolve())
    write_program(state / PROGRAMS / ask_warm.PROGRAM, ["-I", "-S", asks, str(path)])


def serve(path: Path, act: Callable[[], Any], parent: int) -> None:
    """Do `act` in a fork for everyone who asks at `path`, until the parent is gone, be it while this was loading."""
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
    """The process id of the fork that does what came over `link`; 0 where nothing came."""
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


def do(act: Callable[[], Any], words: list[str], descriptors: list[int]) -> NoReturn:
    """In the fork: Flower's program with these words, its output going to whoever asked."""
    code = 1
    try:
        for place, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, place)
        sys.argv = [ask_warm.PROGRAM, *words]
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
    """Tell those whose fork has ended how; a fork whose asker was killed is ended, too."""
    for child, link in list(working.items()):
        if select.select([link], [], [], 0)[0]:  # it says nothing more: it is gone
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
