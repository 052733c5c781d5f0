"""Keep contents of messages in shared memory: each is written once for all its sites, and deleted when the phase ends."""

import contextlib
import fcntl
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fl_rsna.common.ownership import drop_folder, make_folder, what_is

MEMORY = Path("/dev/shm")
ROOM = 1_000_000_000  # bytes
PREFIX, UNOWNED = "fl_rsna_shared-", "fl_rsna_new-"
WHAT = "shared memory"  # the kind of folder, in owner.json


def memory_folder() -> Path:
    """Return the folder of shared memory if it has ROOM free (a container's has 64 MB), else the folder for temporary files."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM
    return MEMORY if roomy else Path(tempfile.gettempdir())


def leave(item: Any, path: Path) -> None:
    """Pickle an item over the file's old content, so that its memory is used again."""
    with path.open("r+b" if path.exists() else "wb") as file:
        pickle.dump(item, file, protocol=5)


def take(path: Path) -> Any:
    """Unpickle the item that was left there last."""
    with path.open("rb") as file:
        return pickle.load(file)


class SharedContents:
    """A folder of pickled contents, locked as long as its process lives."""

    def __init__(self, folder: Path | None = None) -> None:
        self._home = folder or memory_folder()

    def __enter__(self) -> "SharedContents":
        made = Path(tempfile.mkdtemp(prefix=UNOWNED, dir=self._home))
        make_folder(made, WHAT)
        self._lock = os.open(made, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._folder = made.with_name(made.name.replace(UNOWNED, PREFIX))
        os.rename(made, self._folder)  # locked before others look at it
        self._paths: dict[int, Path] = {}
        return self

    def __exit__(self, *_: object) -> None:
        drop_folder(self._folder)
        os.close(self._lock)

    def path(self, content: Any) -> Path:
        """Return the file of a content, which is written at the first call; the content must live as long as this object."""
        if id(content) not in self._paths:
            self._paths[id(content)] = self._folder / str(len(self._paths))
            leave(content, self._paths[id(content)])
        return self._paths[id(content)]

    def answer(self, worker: int) -> Path:
        """Return the file in which a worker leaves its answers, one after the other."""
        return self._folder / f"answer-{worker}"


def forget_killed(folder: Path | None = None) -> None:
    """Delete folders that killed runs of this user left in shared memory: those with this user's record and without a lock."""
    for left in (folder or memory_folder()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # somebody else's, or gone by now
        try:
            with contextlib.suppress(BlockingIOError):  # a run that lives holds it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if what_is(left) == WHAT:
                    drop_folder(left)
        finally:
            os.close(lock)
