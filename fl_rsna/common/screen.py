"""Make stdout and stderr survive failures: a reader that left, a full disk, a closed stream, a letter the terminal lacks.

Output that cannot be written is lost, and the program continues.
"""

import io
import os
import sys
from typing import Any

STREAMS = {1: "stdout", 2: "stderr"}

_lost: dict[str, str] = {}  # why a stream shows nothing any more, by its name


class _Forgiving(io.FileIO):
    """A raw stream that writes to a descriptor, and discards everything from the first failure on."""

    def write(self, content: Any) -> int:
        try:
            written = super().write(content)
        except OSError as error:
            _lost[STREAMS[self.fileno()]] = error.strerror or str(error)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(content).nbytes
        return memoryview(content).nbytes if written is None else written  # None: a full pipe


def guard_screen() -> None:
    """Replace sys.stdout and sys.stderr by streams that survive failures.

    Descriptors among 0, 1 and 2 that are closed are opened on os.devnull, in this process and those it starts. Otherwise a file opened
    later would get that number, and output would be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= max(STREAMS):
        os.set_inheritable(descriptor, True)
        if descriptor in STREAMS:
            _lost[STREAMS[descriptor]] = "it is closed"
    os.close(descriptor)
    for descriptor, name in STREAMS.items():
        stream = getattr(sys, name)
        raw = _Forgiving(descriptor, "wb", closefd=False)
        guarded = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=getattr(stream, "encoding", None) or "utf-8",
            errors="backslashreplace",
            line_buffering=name == "stderr" or raw.isatty(),
            write_through=bool(getattr(stream, "write_through", False)),
        )
        setattr(sys, name, guarded)


def explain_loss(stream: str) -> str | None:
    """Say why `stdout` or `stderr` shows nothing any more; None while it works."""
    return _lost.get(stream)


def close_stderr() -> None:
    """Discard everything that is written to stderr from now on. Called after the last sentence of a command."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
