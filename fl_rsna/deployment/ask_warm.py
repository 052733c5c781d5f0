"""Ask a site's warm process (warm.py) to do a ClientApp's task in a fork. Flower starts this program once a task.

The program uses the standard library alone, so that it starts at once (python -I -S). Where no warm process answers, it replaces
itself by Flower's own program, which loads everything first.
"""

import json
import os
import socket
import sys

PROGRAM = "flwr-clientapp"


def ask(path: str, arguments: list[str]) -> int:
    """Have the warm process at the socket `path` do the task `arguments`; return its exit code.

    The task writes to this process' standard output and error. Raises OSError where no warm process answers.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        told = json.dumps(arguments).encode()
        socket.send_fds(link, [len(told).to_bytes(4, "big")], [1, 2])
        link.sendall(told)
        answer = link.recv(1)
    return answer[0] if answer else 1  # closed without an answer: the warm process ended


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    try:
        code = ask(path, arguments)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", "fl_rsna.deployment.known_app", PROGRAM, *arguments])
    sys.exit(code)
