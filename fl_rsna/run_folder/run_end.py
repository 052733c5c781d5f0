"""Write how a run ended to its folder: the traceback in error.log, the event `run_failed`, and summary.json with status failed."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fl_rsna.common import command_end
from fl_rsna.common.command_end import EndKind, RunFailed, end_of, log_traceback, traceback_of
from fl_rsna.run_folder.run_folder import SUMMARY, RunFolder, is_finished
from fl_rsna.settings.config import Config

Describe = Callable[[BaseException], tuple[str, str]]  # error -> its reason in one line, and its traceback


def whole(error: BaseException) -> tuple[str, str]:
    """Return an error's full reason and traceback, for a machine that holds all data anyway."""
    return end_of(error).reason, traceback_of(error)


@contextlib.contextmanager
def end_in_folder(run: RunFolder, config: Config, describe: Describe = whole) -> Iterator[None]:
    """Write whatever ends the run in the body to its folder, and raise it again; SystemExit passes unrecorded."""
    now = command_end.now
    now.begun.append(run.folder)

    def tell(error: BaseException) -> None:
        _tell(run, config, error, describe)

    now.open.append(tell)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        tell(error)
        raise
    finally:
        now.open[:] = [other for other in now.open if other is not tell]


@contextlib.contextmanager
def end_of_parts(folder: Path, config: Config) -> Iterator[None]:
    """Write what ends a command between its parts to the folder around them, and raise it again.

    The parts are runs; what ends one of them is in its own folder already.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        now = command_end.now
        if _inside(now.begun, folder) and not _inside([told for told, _ in now.told], folder):
            _tell(RunFolder(folder), config, error, whole)
        raise


@contextlib.contextmanager
def guard_report(folder: Path, describe: Describe = whole) -> Iterator[None]:
    """Raise RunFailed when the report of a finished run cannot be written or shown; the run stays finished."""
    try:
        yield
    except Exception as error:
        reason, text = describe(error)
        command_end.now.log = log_traceback(text, folder)
        raise RunFailed(
            f"the run is finished, but not its report ({reason}); "
            f"write it with: python -m fl_rsna.report {shlex.quote(str(folder))}"
        ) from error


def _inside(folders: list[Path], whole: Path) -> bool:
    return any(folder.is_relative_to(whole) for folder in folders)


def _tell(run: RunFolder, config: Config, error: BaseException, describe: Describe) -> None:
    """Write how the run ended, once. An OSError is ignored, because a full disk may be what ended the run."""
    kind, now = end_of(error).kind, command_end.now
    if any(folder == run.folder and told is error for folder, told in now.told):
        return
    if kind is EndKind.refused and _is_finished(run.folder):
        return  # a refusal leaves a finished run as it is
    reason, text = describe(error)
    now.told.append((run.folder, error))
    if not run.is_over and not _is_finished(run.folder):
        with contextlib.suppress(OSError):
            run.event("run_failed", kind=kind.value, reason=reason)
        # summary.json says how an earlier try ended
        is_older = kind is EndKind.refused and (run.folder / SUMMARY).exists()
        failed: dict[str, Any] = {"status": "failed", "kind": kind.value, "reason": reason, "rounds": config.rounds}
        with contextlib.suppress(OSError):
            if not is_older:
                with contextlib.suppress(OSError, ValueError):  # a damaged manifest, or a folder of several runs
                    failed["without_effect"] = run.without_effect
                run.write_json(SUMMARY, failed)
    log = log_traceback(text, run.folder)
    now.log = now.log or log


def _is_finished(folder: Path) -> bool:
    try:
        return is_finished(folder)
    except ValueError:  # a damaged summary.json says nothing of an end
        return False
