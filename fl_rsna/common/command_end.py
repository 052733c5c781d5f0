"""End every command in the same way: one sentence on stderr, an exit code, and the traceback in a file that the sentence names.

Exit code 0: done. 1: the run failed. 2: the request cannot be met. This module imports only the standard library, so that it works
before anything else is loaded.
"""

import atexit
import errno
import gc
import os
import re
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from opcode import opname
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from fl_rsna.common.console_log import note
from fl_rsna.common.screen import close_stderr, guard_screen
from fl_rsna.version import PACKAGE

T = TypeVar("T")

ERROR_LOG = "error.log"  # in a run's folder: the tracebacks of the errors that ended the run, each appended
SCRIPT = "fl-rsna"  # the console script; pyproject.toml
LONGEST = 600  # characters of a library's message that are shown

SIGNALS = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
    "SIGQUIT",
    "SIGUSR1",
    "SIGUSR2",
    "SIGXCPU",
)  # signals that ask a command to end
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAYS_FULL = ("no space left", "quota exceeded", "disk is full", "not enough free space", "file too large")
SAYS_MEMORY = ("out of memory", "allocate memory", "insufficient memory", "bad_alloc")
MENDABLE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY),
)  # errors that the user can mend: by another path, or by making this one readable
LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
OURS = str(PACKAGE.resolve())
REMOTE = re.compile(
    r'File "([^"]+)".*\n +raise '
)  # finds the frames that raised in the text of another process' traceback


class EndKind(StrEnum):
    """The reason why a command or run ended, as in the event `run_failed` and in summary.json."""

    refused = "refused"  # the request cannot be met; exit code 2, all others 1
    failed = "failed"  # a rule of the run was broken: too few sites replied, the model diverged, two results differ
    interrupted = "interrupted"  # by Ctrl-C (SIGINT)
    stopped = "stopped"  # by another signal, which the reason names
    disk_full = "disk_full"  # or a quota or the largest size of a file was reached
    out_of_memory = "out_of_memory"  # of this machine or of a GPU
    unexpected = "unexpected"  # anything else; the reason begins with the error's type


class RunFailed(Exception):
    """A run started and could not finish. The user reads its message; the exit code is 1."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; its only argument is the signal's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a command or run: its kind, and the reason in one line."""

    kind: EndKind
    reason: str

    @property
    def code(self) -> int:
        """The exit code: 2 for a refused request, 1 for everything else."""
        return 2 if self.kind is EndKind.refused else 1


@dataclass(slots=True)
class _Command:
    """The state of the current command that its end depends on."""

    goes_on: bool = False  # typed again, it continues what it has done so far
    run: Path | None = None  # the run folder it writes
    settings: tuple[str, ...] = ()  # the settings to add when it is typed again
    log: Path | None = None  # the file that holds the traceback already
    begun: list[Path] = field(default_factory=list)  # the run folders it has begun
    told: list[tuple[Path, BaseException]] = field(
        default_factory=list
    )  # run folders whose end is recorded, and the error
    open: list[Callable[[BaseException], None]] = field(
        default_factory=list
    )  # functions that record the end in open runs


@dataclass(slots=True)
class _Process:
    """The state of the process. It is `guarded` in a command's own process, not in a test's."""

    guarded: bool = False
    goes_on: bool = False  # the command, typed again, continues what it has done so far
    asked: Stopped | None = None  # the first signal that asked the process to end
    over: bool = False  # the last sentence was shown


now = _Command()
_process = _Process()


def begin_command(*, goes_on: bool = False) -> None:
    """Install the handlers by which this process ends as every command does. Call it before anything slow is imported.

    `goes_on` says that the command, typed again, continues what it has done so far. Until `end_command`, which starts the work, garbage is
    not collected: what is imported stays. On Windows itself, which lacks POSIX's file locks, signals and users, the process ends with code 2.
    """
    if sys.platform == "win32":
        sys.stderr.write(
            "error: fl_rsna needs Linux or macOS, got Windows; install WSL2 (wsl --install) and install fl_rsna inside it\n"
        )
        sys.exit(2)
    gc.disable()
    _process.guarded, _process.goes_on, now.goes_on = True, goes_on, goes_on
    guard_screen()
    sys.excepthook = lambda kind, error, trace: _leave(error)
    sys.unraisablehook = _again
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup, or behind &
            signal.signal(number, _stop)


def run_to_end(act: Callable[[], T]) -> T:
    """Run `act` and return its result; any error becomes one sentence on stderr and an exit code. SystemExit passes through."""
    global now
    now = _Command(goes_on=_process.goes_on)
    try:
        return act()
    except SystemExit:
        raise
    except BaseException as error:
        _leave(error)


def attempt(act: Callable[[], T]) -> tuple[T | None, str | None]:
    """Run `act` as one of several parts of a command. Returns (result, None), or (None, the sentence shown about the error).

    An interruption ends the other parts, too, so it is raised as KeyboardInterrupt. SystemExit passes through.
    """
    global now
    now = _Command()
    try:
        return act(), None
    except SystemExit:
        raise
    except BaseException as error:
        if end_of(error).kind in (EndKind.interrupted, EndKind.stopped):
            raise (_process.asked or KeyboardInterrupt()) from error
        return None, _say(error)
    finally:
        now = _Command()


def end_command(act: Callable[[], object]) -> NoReturn:
    """Run `act` as the whole command and exit, with the number that it returns or else 0.

    The garbage collector is told to pass over what is loaded by then, about a million objects: each of its full passes took 0.3 to 0.5 s.
    """
    gc.freeze()
    gc.enable()
    code = run_to_end(act)
    _process.over = True
    sys.exit(code if isinstance(code, int) else 0)


def goes_on_in(run: Path) -> None:
    """Record that the command, typed again with resume=true, continues the run in this folder."""
    now.goes_on, now.run = True, run


def goes_on_with(*settings: str) -> None:
    """Record that the command, typed again with these settings, continues what it has done so far."""
    now.goes_on, now.run, now.settings = True, None, settings


def end_of(error: BaseException) -> End:
    """Classify the error that ended a command or run.

    After a signal every error counts as that interruption, whatever a library turned it into.
    """
    error = _process.asked or error
    said = " ".join(_text(error).splitlines()).strip()
    match error:
        case Stopped() if error.args[0] != "SIGINT":
            return End(kind=EndKind.stopped, reason=f"stopped by {error.args[0]}")
        case KeyboardInterrupt():
            return End(kind=EndKind.interrupted, reason="interrupted")
        case RunFailed():
            return End(kind=EndKind.failed, reason=said)
        case ValueError() if (type(error) is ValueError or type(error).__module__.startswith("fl_rsna.")) and _is_ours(
            error
        ):
            return End(kind=EndKind.refused, reason=said)
        case UnicodeEncodeError():  # a path whose bytes are not UTF-8, in a place that needs it
            got = f"expected paths in UTF-8, got {error.object!r}"
            return End(kind=EndKind.refused, reason=f"{got}; rename that folder or file, or choose another")
        case FloatingPointError() if _is_ours(error):
            return End(kind=EndKind.failed, reason=said)
    for cause in _causes(error):
        if (isinstance(cause, OSError) and cause.errno in FULL) or _says(cause, SAYS_FULL):
            where = f" at {cause.filename}" if isinstance(cause, OSError) and cause.filename else ""
            return End(kind=EndKind.disk_full, reason=f"the disk is full{where}: {_short(cause)}")
        if isinstance(cause, MemoryError) or _says(cause, SAYS_MEMORY):
            return End(kind=EndKind.out_of_memory, reason=f"memory ran out: {_short(cause)}")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        reason = f"too many open files: {_short(error)}; allow more with ulimit -n, or lower engine.workers"
        return End(kind=EndKind.failed, reason=reason)
    if isinstance(error, OSError) and error.errno in MENDABLE and error.filename:
        return End(kind=EndKind.refused, reason=f"cannot read or write {error.filename}: {error.strerror}")
    return End(kind=EndKind.unexpected, reason=_short(error))


def traceback_of(error: BaseException) -> str:
    """Format an error with its traceback and causes, as Python prints them."""
    return "".join(traceback.format_exception(error))


def log_traceback(text: str, folder: Path | None) -> Path | None:
    """Append a traceback to error.log of `folder` and return its path.

    Without a folder, or where it cannot be written, the traceback goes to a new temporary file. Returns None where that fails, too.
    """
    entry = f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{text}\n"
    if folder is not None:
        try:
            with (folder / ERROR_LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(entry)
            return folder / ERROR_LOG
        except OSError:
            pass  # perhaps a full disk ended the run
    try:
        descriptor, name = tempfile.mkstemp(prefix="fl_rsna-error-", suffix=".log")  # for this user alone
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(entry)
    except OSError:
        return None
    return Path(name)


def command_again(*more: str) -> str:
    """Write the typed command for a shell, with the settings `more` in place of those with the same key."""
    arguments = sys.argv[1:]
    keys = {argument.partition("=")[0] for argument in more}
    kept = [argument for argument in arguments if argument.lstrip("+").partition("=")[0] not in keys]
    return shlex.join([*_find_program(), *kept, *more])


def _find_program() -> list[str]:
    """Find what was typed before a command's arguments: python -m fl_rsna.simulate, python -m fl_rsna simulate, or fl-rsna simulate."""
    typed = list(sys.orig_argv)
    for place, argument in enumerate(typed):
        if argument.startswith("fl_rsna.") and typed[place - 1] == "-m":
            return typed[: place + 1]
        if argument == "fl_rsna" and typed[place - 1] == "-m":
            return typed[: place + 2]
        if Path(argument).name == SCRIPT:
            return [SCRIPT if shutil.which(SCRIPT) == argument else argument, *typed[place + 1 : place + 2]]
    return ["python", "-m", f"fl_rsna.{Path(sys.argv[0]).stem}"]


def sentence_of(error: BaseException, log: Path | None) -> str:
    """Write the sentence that the user reads: what ended the command, where the traceback is, and how to continue."""
    end = end_of(error)
    match end.kind:
        case EndKind.refused:
            return end.reason
        case EndKind.failed:
            return end.reason + (_in_log(error, log) if error.__cause__ is not None else "")
        case EndKind.interrupted | EndKind.stopped:
            return end.reason + (f"; go on with: {_to_go_on()}" if now.goes_on else "")
        case EndKind.disk_full:
            return f"{end.reason}; make room" + (f" and go on with: {_to_go_on()}" if now.goes_on else "")
        case _:
            return ("unexpected " if end.kind is EndKind.unexpected else "") + end.reason + _in_log(error, log)


def _to_go_on() -> str:
    """Write the command that continues this one."""
    if now.run is None or not now.run.exists():
        return command_again(*now.settings)
    name = now.run.name
    plain = all(letter.isalnum() or letter in "-_.:%+" for letter in name)
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return command_again(f"run.name={name}" if plain else f"run.name='{quoted}'", "resume=true")


def _in_log(error: BaseException, log: Path | None) -> str:
    """Say where the traceback is; without a file, where it ends."""
    if log is not None:
        return f"; the traceback is in {log}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"; no traceback could be written, it ends at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _say(error: BaseException) -> str:
    """Print the sentence on stderr, write the traceback to a file where one is needed, and return the sentence."""
    end, log = end_of(error), now.log
    is_plain = end.kind in (EndKind.refused, EndKind.interrupted, EndKind.stopped)
    if log is None and not is_plain and (end.kind is not EndKind.failed or error.__cause__ is not None):
        log = log_traceback(traceback_of(error), None)
    sentence = sentence_of(error, log)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    note(f"error: {sentence}\n")
    return sentence


def _leave(error: BaseException) -> NoReturn:
    """Print the sentence and exit. A command's own process waits for no thread, and prints nothing after the sentence."""
    _say(error)
    code, _process.over = end_of(error).code, True
    if _process.guarded:
        sys.stdout.flush()
        close_stderr()
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        atexit._run_exitfuncs()  # ends worker processes
        os._exit(code)
    sys.exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: the first one raises Stopped, the second one ends the process at once."""
    if _process.over:
        os._exit(1)
    stopped = Stopped(signal.Signals(number).name)
    if _process.asked is None:
        _process.asked = stopped
        raise stopped
    for tell in reversed(now.open):
        tell(stopped)
    sentence = f"error: {sentence_of(stopped, None)}"
    print(sentence, file=sys.stderr, flush=True)
    note(f"{sentence}\n")
    os._exit(1)


def _again(unraisable: Any) -> None:
    """Send a signal again that came where Python could not raise it, such as in a destructor. Other errors are left to Python."""
    if isinstance(unraisable.exc_value, Stopped):
        _process.asked = None
        again = signal.Signals[unraisable.exc_value.args[0]]
        threading.Timer(0.02, os.kill, (os.getpid(), again)).start()
    else:
        sys.__unraisablehook__(unraisable)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then the errors that led to it."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    """Say whether an error's message has one of the phrases, in any case."""
    said = _text(error).lower()
    return any(phrase in said for phrase in phrases)


def _text(error: BaseException) -> str:
    """Return an error's message, or an empty text where str(error) fails."""
    try:
        return str(error)
    except Exception:
        return ""


def _short(error: BaseException) -> str:
    """Return an error's type and the beginning of its message, in one line."""
    said = " ".join(_text(error).split())
    return type(error).__name__ + (f": {said}" if said else "")[:LONGEST]


def _is_ours(error: BaseException) -> bool:
    """Say whether an error was raised by a `raise` statement outside the libraries, in this process or in a worker process."""
    trace = error.__traceback__
    if trace is None:
        return False
    if type(error.__cause__).__name__ == "_RemoteTraceback":
        raised = REMOTE.findall(str(error.__cause__))
        return bool(raised) and _is_own_file(raised[-1])
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return _is_own_file(code.co_filename) and opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _is_own_file(name: str) -> bool:
    """Say whether a source file belongs to fl_rsna or the user, and not to Python or an installed library."""
    path = str(Path(name).resolve())
    return path.startswith(OURS) or not (name.startswith("<") or path.startswith(LIBRARIES))
