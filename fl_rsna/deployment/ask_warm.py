"""What Flower starts for a ClientApp's task at a warm site: asks the process that has everything loaded to do it, in a fork of its own.

The standard library alone, so that it starts at once (python -I -S). Where nobody answers, it becomes the cold program.
"""

import json
import os
import socket
import sys

PROGRAM = "flwr-clientapp"


def ask(path: str, words: list[str]) -> int:
    """The exit code of the task, whose output goes where ours does. Raises OSError where nobody answers."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        told = json.dumps(words).encode()
        socket.send_fds(link, [len(told).to_bytes(4, "big")], [1, 2])
        link.sendall(told)
        answer = link.recv(1)
    return answer[0] if answer else 1  # closed without an answer: the warm process ended


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    try:
        code = ask(path, words)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", "fl_rsna.deployment.known_app", PROGRAM, *words])
    sys.exit(code)
