"""Keep what a command prints for a run as plain text in console.log of the run's folder.

Lines wait in memory until the run has its folder. Each is then appended at once, so that the log is whole whatever ends the command. A
resumed run appends to its log. This module imports only the standard library: command_end.py writes the last sentence through it.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CONSOLE_LOG = "console.log"
SECRETS = ("salt", "mlflow_uri")  # last parts of the keys whose values are not written


@dataclass(slots=True)
class _Log:
    """The log of this process: `lines` until it has a file, `descriptor` from then on."""

    records: bool = False
    lines: list[str] = field(default_factory=list)
    descriptor: int | None = None


_log = _Log()


@contextlib.contextmanager
def console_log() -> Iterator[None]:
    """Record what is printed in the body. After an error the log stays open for the sentence about it, until end_log or the next log."""
    end_log()
    _log.records = True
    yield
    end_log()


def keep_log(folder: Path) -> None:
    """Write what was printed so far to console.log of a folder, and from now on each line. A log that has a file already keeps it."""
    if not _log.records or _log.descriptor is not None:
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        _log.descriptor = os.open(folder / CONSOLE_LOG, flags, 0o666)
        lines, _log.lines = [f"--- {datetime.now(UTC).isoformat(timespec='seconds')}\n", *_log.lines], []
        for line in lines:
            _append(line)


def note(text: str) -> None:
    """Add printed text to the log, without the secrets of the command line; nothing while no log is kept."""
    if not _log.records:
        return
    text = _hide_secrets(text)
    if _log.descriptor is None:
        _log.lines.append(text)
    else:
        _append(text)


def is_recording() -> bool:
    """Say whether text that is printed now belongs in a log."""
    return _log.records


def end_log() -> None:
    """Close the log; what is printed later is not written."""
    if _log.descriptor is not None:
        os.close(_log.descriptor)
    _log.records, _log.lines, _log.descriptor = False, [], None


def _append(text: str) -> None:
    """Append text to the file. What cannot be written is lost: a log must not end a run."""
    assert _log.descriptor is not None
    with contextlib.suppress(OSError):
        os.write(_log.descriptor, text.encode("utf-8", "backslashreplace"))


def _hide_secrets(text: str) -> str:
    """Replace the values of secret settings, as they were typed, by three asterisks."""
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if value and key.rpartition(".")[2] in SECRETS:
            for form in (shlex.quote(argument), argument):
                text = text.replace(form, f"{key}=***")
            text = text.replace(value, "***") if len(value) >= 8 else text
    return text
