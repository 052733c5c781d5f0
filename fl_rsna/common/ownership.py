"""Who owns a folder: every command locks, makes, builds and removes folders through this module.

A command deletes or overwrites only what it can prove that it made. The proof of a folder is owner.json, which says what the folder
is and holds a random token of the command that made it; it is read again while the folder's lock is held. What is being built has a
random name, so that it is never somebody else's. A folder or file without proof is refused and left as it is.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECORD = "owner.json"  # in a folder that fl_rsna made: what it is, and the token of the command that made it
BUILDING = "building"  # what a folder is before it has its name
WAIT_S = (
    24 * 3600.0
)  # for another process that makes what this one wants, too; the system frees the lock of one that died
LOOK_S = 0.2
LOCKED = b"fl_rsna holds this while it writes what lies beside it; it may be deleted when no command runs\n"
LONGEST = 180  # bytes of a name that others are made of

_held: dict[Path, int] = {}  # locks of this process


@contextmanager
def hold_lock(path: Path, *, wait_s: float = 0.0, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a folder or file, there or not yet; the system frees it when the process dies. Nested calls are one.

    While another process holds it: waits for up to `wait_s` seconds, once saying so and calling `on_wait`. Raises ValueError
    when it is still held then.
    """
    lock = _lock_of(path)
    if lock in _held:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    _held[lock], ours = _acquire_lock(lock, path, wait_s, on_wait)
    try:
        yield
    finally:
        descriptor = _held.pop(lock)
        if ours:
            lock.unlink(missing_ok=True)  # while it is held, so that nobody else's is deleted
        os.close(descriptor)


def read_owner(folder: Path) -> dict[str, Any] | None:
    """What owner.json of a folder says; None where there is none of fl_rsna's."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("fl_rsna"), str) and "token" in found else None


def what_is(folder: Path) -> str | None:
    """What owner.json says that a folder is; None where there is none of fl_rsna's."""
    record = read_owner(folder)
    return None if record is None else str(record["fl_rsna"])


def make_folder(folder: Path, what: str, token: str | None = None) -> str:
    """Make a folder, or take one that is empty, and write down in it what it is; returns the token that proves it.

    The folder's lock is held by the caller. Raises FileExistsError where something lies there.
    """
    found = holds_nothing(folder)
    if not found:
        folder.mkdir(parents=True)
    token = token or secrets.token_hex(16)
    record = {"fl_rsna": what, "token": token, **({"found_empty": True} if found else {})}
    with contextlib.suppress(FileNotFoundError):
        (folder / RECORD).unlink()  # of a command that was killed before it wrote a word, see holds_nothing
    with (folder / RECORD).open("x") as file:
        file.write(json.dumps(record) + "\n")
    return token


def holds_nothing(folder: Path) -> bool:
    """Whether there is a folder and nothing in it, but for a record without a word."""
    if not folder.is_dir():
        return False
    names = os.listdir(folder)
    return not names or (names == [RECORD] and (folder / RECORD).lstat().st_size == 0)


def take_back(folder: Path, token: str, patterns: Iterable[str], *, wait_s: float = 10.0) -> None:
    """Remove a folder that a command made with `token` and now does not want: the files of these patterns, and folders left empty.

    Anything else that lies in it stays, and so does the folder then; one that was found empty stays, too. Does nothing where
    owner.json does not hold the token or another process holds the lock.
    """
    with contextlib.suppress(ValueError), hold_lock(folder, wait_s=wait_s):
        record = read_owner(folder)
        if record is None or record["token"] != token:
            return
        clear(folder, patterns)
        if os.listdir(folder) == [RECORD]:
            (folder / RECORD).unlink()
            if not record.get("found_empty"):
                folder.rmdir()


def clear(folder: Path, patterns: Iterable[str]) -> None:
    """Delete the files of these patterns in a folder that is fl_rsna's, then the folders they were in, where nothing else is there."""
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    for path in found:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    emptied = {path for path in found if path.is_dir() and not path.is_symlink()}
    emptied |= {above for path in found for above in path.parents if folder in above.parents}
    for path in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # not empty: not all of it is ours
            path.rmdir()


def clear_folder(folder: Path, files: Iterable[Path]) -> None:
    """Delete these files of a folder, which the caller knows for fl_rsna's, and the folder where nothing else is in it."""
    for path in list(files):
        drop(path)
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextmanager
def build_beside(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, under a name that nobody has, to build in; what is left of it at the end is removed.

    Holds the lock of `target`. What earlier commands that were killed left of the same target goes, by its record.
    """
    with hold_lock(target):
        clear_killed(target)
        folder = target.with_name(f".{short_name(target)}.{secrets.token_hex(8)}.part")
        token = _make_building(folder, target)
        try:
            yield folder
        finally:
            record = read_owner(folder)
            if record is not None and record["token"] == token:
                shutil.rmtree(folder, ignore_errors=True)


def give_name(building: Path, target: Path) -> None:
    """What was built in a folder of `build_beside` becomes `target`. Raises ValueError where something lies there by now."""
    if os.path.lexists(target):
        raise ValueError(f"{target}: expected no such folder, somebody made it just now; choose another name")
    os.rename(building, target)
    drop(target / RECORD)  # last: until then a killed command's work can be told from other folders


def move_strangers(folder: Path, to: Path, ours: Iterable[str]) -> None:
    """Move what lies in `folder` under other names than `ours` into `to`, where it keeps its name unless that is taken."""
    for name in sorted(set(os.listdir(folder)) - set(ours)):
        if not os.path.lexists(to / name):
            os.rename(folder / name, to / name)


def take_place(built: Path, target: Path) -> None:
    """What was built becomes `target`, which the caller knows for fl_rsna's and of which all that others wrote was moved.

    What was there goes as a whole, and no file of it is written to: its images may have other names elsewhere. A command that is killed
    between the two steps leaves all of `built`, which the next one only has to give its name.
    """
    with build_beside(target) as aside:
        os.rename(target, aside / "replaced")
        try:
            os.rename(built, target)
        except OSError:
            os.rename(aside / "replaced", target)
            raise
        drop(target / RECORD)


def is_clear(target: Path) -> bool:
    """Whether no killed command left a folder beside `target` in which it built it or that it was replacing."""
    return not any(_find_killed(target))


def refuse_stranger(path: Path, is_ours: Callable[[bytes], bool]) -> None:
    """Raise ValueError for a file that a command would write anew and that, by its content, fl_rsna did not write."""
    if path.is_file() and not is_ours(path.read_bytes()):
        raise ValueError(
            f"{path}: expected no such file or one that fl_rsna wrote, got another; move it or choose another name"
        )


def drop(path: Path) -> None:
    """Delete a file that the caller made, or that lies in a folder of fl_rsna's under a name that only it gives; gone is fine, too."""
    path.unlink(missing_ok=True)


def drop_folder(folder: Path) -> None:
    """Delete a folder that the caller made inside one of its own."""
    shutil.rmtree(folder, ignore_errors=True)


def _make_building(folder: Path, target: Path) -> str:
    token = secrets.token_hex(16)
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"fl_rsna": BUILDING, "of": target.name, "token": token}) + "\n")
    return token


def clear_killed(target: Path) -> None:
    """Delete what a killed command left beside `target`, see is_clear; its lock is held by the caller."""
    for left in _find_killed(target):
        shutil.rmtree(left, ignore_errors=True)


def _find_killed(target: Path) -> Iterator[Path]:
    """What was being built of `target` when its command was killed: its name and its record say so, and nobody holds the lock."""
    like = re.compile(re.escape(f".{short_name(target)}.") + r"[0-9a-f]{16}\.part")
    for name in os.listdir(target.parent):
        left = target.with_name(name)
        if like.fullmatch(name) and not left.is_symlink():
            record = read_owner(left)
            if record is not None and (record["fl_rsna"], record.get("of")) == (BUILDING, target.name):
                yield left


def _lock_of(path: Path) -> Path:
    """Beside what it locks, however that is written: relative, absolute or through a link."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{short_name(real)}.fl_rsna.lock")


def short_name(path: Path) -> str:
    """A name to make others of: shortened where the system would refuse those as too long."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST:
        return path.name
    return hashlib.sha256(name).hexdigest()[:32]


def _acquire_lock(lock: Path, path: Path, wait_s: float, on_wait: Callable[[], None] | None) -> tuple[int, bool]:
    """The lock's descriptor, and whether its file is fl_rsna's, to be deleted."""
    end, told = time.monotonic() + wait_s, False
    while True:
        descriptor, ours = _open_lock(lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there_still(descriptor, lock):
                if ours:
                    os.write(descriptor, LOCKED)
                return descriptor, ours or os.pread(descriptor, len(LOCKED) + 1, 0) == LOCKED
            os.close(descriptor)
            continue
        except BlockingIOError:
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if time.monotonic() >= end:
            raise ValueError(f"{path}: another process is making it at this moment; wait for it or choose another name")
        if not told:
            told = True
            _say(f"waiting for another process, which is making {path}")
            if on_wait is not None:
                on_wait()
        time.sleep(LOOK_S)


def _open_lock(lock: Path) -> tuple[int, bool]:
    """The file, and whether it was made just now."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(lock, flags), False


def _is_there_still(descriptor: int, lock: Path) -> bool:
    """Whether the locked file is the one of that name: who held it before may have deleted it."""
    try:
        there = os.lstat(lock)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)
