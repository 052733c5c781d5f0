"""The end of a run, told in its folder: the traceback in error.log, the event `run_failed` with its kind, summary.json with status failed."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from fl_rsna.common import command_end
from fl_rsna.common.command_end import EndKind, RunFailed, end_of, log_traceback, traceback_of
from fl_rsna.run_folder.run_folder import SUMMARY, RunFolder, is_finished
from fl_rsna.settings.config import Config

Words = Callable[[BaseException], tuple[str, str]]  # an error's reason in one line, and its traceback


def whole(error: BaseException) -> tuple[str, str]:
    """All there is: for a machine that holds all data anyway."""
    return end_of(error).reason, traceback_of(error)


@contextlib.contextmanager
def end_in_folder(run: RunFolder, config: Config, words: Words = whole) -> Iterator[None]:
    """Whatever ends the run while the body lasts stands in its folder before it goes on its way. SystemExit passes."""
    now = command_end.now
    now.begun.append(run.folder)

    def tell(error: BaseException) -> None:
        _tell(run, config, error, words)

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
    """Of a folder whose parts are runs: what ends it between or after them stands in it; what ends a part stands in the part."""
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
def guard_report(folder: Path, words: Words = whole) -> Iterator[None]:
    """The report of a run that is finished, and stays so when its report cannot be written or shown."""
    try:
        yield
    except Exception as error:
        reason, text = words(error)
        command_end.now.log = log_traceback(text, folder)
        raise RunFailed(
            f"the run is finished, but not its report ({reason}); "
            f"write it with: python -m fl_rsna.report {shlex.quote(str(folder))}"
        ) from error


def _inside(folders: list[Path], whole: Path) -> bool:
    return any(folder.is_relative_to(whole) for folder in folders)


def _tell(run: RunFolder, config: Config, error: BaseException, words: Words) -> None:
    """Raises nothing that a disk can bring about: it is perhaps what ended the run."""
    kind, now = end_of(error).kind, command_end.now
    if any(folder == run.folder and told is error for folder, told in now.told):
        return
    if kind is EndKind.refused and _is_finished(run.folder):
        return  # it stays as it is
    reason, text = words(error)
    now.told.append((run.folder, error))
    if not run.is_over and not _is_finished(run.folder):
        with contextlib.suppress(OSError):
            run.event("run_failed", kind=kind.value, reason=reason)
        is_older = kind is EndKind.refused and (run.folder / SUMMARY).exists()  # how an earlier try ended
        failed = {"status": "failed", "kind": kind.value, "reason": reason, "rounds": config.rounds}
        with contextlib.suppress(OSError):
            if not is_older:
                run.write_json(SUMMARY, {**failed, **_without_effect(run)})
    log = log_traceback(text, run.folder)
    now.log = now.log or log


def _without_effect(run: RunFolder) -> dict[str, dict[str, str]]:
    """The settings without effect, as the manifest names them; nothing of a folder of several runs, and of a damaged one."""
    with contextlib.suppress(OSError, ValueError):
        return {"without_effect": run.without_effect}
    return {}


def _is_finished(folder: Path) -> bool:
    try:
        return is_finished(folder)
    except ValueError:  # a damaged summary.json is of no end
        return False
