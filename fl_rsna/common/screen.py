"""stdout and stderr that may fail: a reader who left, a full disk, a closed stream or a terminal without the letter.

What cannot be shown is lost, and whoever wrote it goes on.
"""

import io
import os
import sys
from typing import Any

STREAMS = {1: "stdout", 2: "stderr"}

_lost: dict[str, str] = {}  # by stream, why


class _Forgiving(io.FileIO):
    """Writes to a descriptor; from the first failure on, to nowhere."""

    def write(self, content: Any) -> int:
        try:
            written = super().write(content)
        except OSError as error:
            _lost[STREAMS[self.fileno()]] = error.strerror or str(error)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(content).nbytes
        return memoryview(content).nbytes if written is None else written  # None: a reader who does not keep up


def guard_screen() -> None:
    """Have this process, and those it starts, write to stdout and stderr whatever becomes of them."""
    _open_closed()
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


def _open_closed() -> None:
    """Lead closed descriptors among 0, 1 and 2 to nowhere: a file opened later would get such a number, and what is shown would be in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= max(STREAMS):
        os.set_inheritable(descriptor, True)
        if descriptor in STREAMS:
            _lost[STREAMS[descriptor]] = "it is closed"
    os.close(descriptor)


def explain_loss(stream: str) -> str | None:
    """Why `stdout` or `stderr` shows nothing any more; None while it does."""
    return _lost.get(stream)


def close_stderr() -> None:
    """Nothing that ends after the last sentence has a word more to say."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
