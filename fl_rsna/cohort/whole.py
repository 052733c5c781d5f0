"""Folders and files that appear under their names only when complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def built_whole(folder: Path) -> Iterator[Path]:
    """A folder to build in; it gets its name only when the body succeeds and is removed when it does not.

    Raises ValueError when another process is building it or has just done so.
    """
    with sole_maker(folder):
        if folder.exists():
            raise ValueError(f"{folder}: another process finished it just now; run the same command again to use it")
        building = folder.with_name(folder.name + ".part")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            os.replace(building, folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part, and none is left behind."""
    with written_whole(path) as part:
        part.write_bytes(content)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write a file under, which takes `path`'s place when the body succeeds."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def sole_maker(folder: Path) -> Iterator[None]:
    """Hold `<folder>.lock`, which the system frees when a process dies and which is deleted at the end.

    Raises ValueError when another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(folder.name + ".lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder}: another process is making it at this moment; wait for it or choose another name"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody else's is deleted
        lock.release()
