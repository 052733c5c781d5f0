"""Copies of a process that has loaded its libraries: each does one thing and may be killed at it, without a start's seconds of imports."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BEGIN = "import json, os, signal, sys, traceback\n"
SERVE = """
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            print(act(*json.loads(line)), flush=True)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(f"exit {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
"""
Copy = Callable[..., tuple[int, str]]


@contextmanager
def copies_of(code: str) -> Iterator[Copy]:
    """Of a process that has run `code`, which defines `act`: calls act(*arguments) in a copy; its exit code, and what it returned or raised."""
    arguments = [sys.executable, "-c", BEGIN + code + SERVE]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def call(*given: object) -> tuple[int, str]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([str(argument) for argument in given]), file=process.stdin, flush=True)
            said = []
            for line in process.stdout:
                if line.startswith("exit "):
                    return int(line.removeprefix("exit ")), "".join(said).strip()
                said.append(line)
            raise AssertionError("the process that is copied has ended")

        yield call
