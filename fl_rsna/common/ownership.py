"""Lock, make, build and remove folders. A command deletes or overwrites only what it can prove that it made.

The proof is owner.json in the folder: it says what the folder is and holds a random token of the command that made it. It is read again
while the folder's lock is held. A folder that is being built has a random name, so that it is never somebody else's. A folder or file
without proof is refused and left as it is.
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

RECORD = "owner.json"  # in a folder that fl_rsna made: what the folder is, and the token of the command that made it
BUILDING = "building"  # the kind of a folder that does not have its final name yet
# Seconds to wait for another process that makes the same folder. The system frees the lock of a process that died.
WAIT_S = 24 * 3600.0
LOOK_S = 0.2  # seconds between two tries to get a lock
LOCKED = b"fl_rsna holds this while it writes what lies beside it; it may be deleted when no command runs\n"
LONGEST = 180  # bytes of a name from which others are made

_held: dict[Path, int] = {}  # locks that this process holds, with their file descriptors


@contextmanager
def hold_lock(path: Path, *, wait_s: float = 0.0, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a folder or file, which need not exist. The system frees it when the process dies.

    A nested call for the same path does nothing. While another process holds the lock, this one waits up to `wait_s` seconds; it says
    so once and calls `on_wait` once. Raises ValueError when the lock is still held then.
    """
    real = Path(os.path.realpath(path))  # one lock, whether the path is relative, absolute or through a link
    lock = real.with_name(f".{short_name(real)}.fl_rsna.lock")
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
            lock.unlink(missing_ok=True)  # while it is held, so that no other process' lock is deleted
        os.close(descriptor)


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Read owner.json of a folder; None where there is none that fl_rsna wrote."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("fl_rsna"), str) and "token" in found else None


def what_is(folder: Path) -> str | None:
    """Read what a folder is from its owner.json; None where there is none that fl_rsna wrote."""
    record = read_owner(folder)
    return None if record is None else str(record["fl_rsna"])


def make_folder(folder: Path, what: str, token: str | None = None) -> str:
    """Make a folder, or take an empty one, and write owner.json into it. Returns the token in owner.json.

    The caller holds the folder's lock. Raises FileExistsError where something else is there.
    """
    found = holds_nothing(folder)
    if not found:
        folder.mkdir(parents=True)
    token = token or secrets.token_hex(16)
    record = {"fl_rsna": what, "token": token, **({"found_empty": True} if found else {})}
    with contextlib.suppress(FileNotFoundError):
        (folder / RECORD).unlink()  # an empty one, of a command that was killed before it wrote it: see holds_nothing
    with (folder / RECORD).open("x") as file:
        file.write(json.dumps(record) + "\n")
    return token


def holds_nothing(folder: Path) -> bool:
    """Say whether a folder exists and is empty, an empty owner.json aside."""
    if not folder.is_dir():
        return False
    names = os.listdir(folder)
    return not names or (names == [RECORD] and (folder / RECORD).lstat().st_size == 0)


def take_back(folder: Path, token: str, patterns: Iterable[str], *, wait_s: float = 10.0) -> None:
    """Remove a folder that this command made with `token`: the files that match `patterns`, then folders that are empty.

    Other files stay, and with them the folder; a folder that existed before stays, too. Does nothing where owner.json does not hold
    the token, or another process holds the lock.
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
    """Delete the files that match `patterns` in a folder of fl_rsna's, then the folders in it that are empty now."""
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    for path in found:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    emptied = {path for path in found if path.is_dir() and not path.is_symlink()}
    emptied |= {above for path in found for above in path.parents if folder in above.parents}
    for path in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # not empty: it holds somebody else's files
            path.rmdir()


def clear_folder(folder: Path, files: Iterable[Path]) -> None:
    """Delete these files of a folder, which the caller knows to be fl_rsna's, then the folder if it is empty."""
    for path in list(files):
        drop(path)
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextmanager
def build_beside(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, with a random name, to build in; what is left of it at the end is removed.

    The lock of `target` is held meanwhile. Folders that killed commands left of the same target are removed first, by their owner.json.
    """
    with hold_lock(target):
        clear_killed(target)
        folder = target.with_name(f".{short_name(target)}.{secrets.token_hex(8)}.part")
        token = secrets.token_hex(16)
        folder.mkdir()
        (folder / RECORD).write_text(json.dumps({"fl_rsna": BUILDING, "of": target.name, "token": token}) + "\n")
        try:
            yield folder
        finally:
            record = read_owner(folder)
            if record is not None and record["token"] == token:
                shutil.rmtree(folder, ignore_errors=True)


def give_name(building: Path, target: Path) -> None:
    """Rename a folder of `build_beside` to `target`. Raises ValueError where something of that name exists by now."""
    if os.path.lexists(target):
        raise ValueError(f"{target}: expected no such folder, somebody made it just now; choose another name")
    os.rename(building, target)
    drop(target / RECORD)  # last, so that the folder of a command that is killed before can be recognised


def move_strangers(folder: Path, to: Path, ours: Iterable[str]) -> None:
    """Move what lies in `folder` under other names than `ours` into `to`, where it keeps its name unless that is taken."""
    for name in sorted(set(os.listdir(folder)) - set(ours)):
        if not os.path.lexists(to / name):
            os.rename(folder / name, to / name)


def take_place(built: Path, target: Path) -> None:
    """Replace `target` by the folder `built`.

    The caller knows that `target` is fl_rsna's and has moved other people's files out of it. The old folder is removed as a whole; its
    files are not written to, since its images may be linked elsewhere. A command that is killed between the two renames leaves all of
    `built`, which the next command renames.
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
    """Say whether no killed command left a folder beside `target` in which it was building or replacing it."""
    return not any(_find_killed(target))


def refuse_stranger(path: Path, is_ours: Callable[[bytes], bool]) -> None:
    """Raise ValueError for an existing file that, by `is_ours` of its content, fl_rsna did not write and must not overwrite."""
    if path.is_file() and not is_ours(path.read_bytes()):
        raise ValueError(
            f"{path}: expected no such file or one that fl_rsna wrote, got another; move it or choose another name"
        )


def drop(path: Path) -> None:
    """Delete a file, which may be gone already. The caller made it, or only fl_rsna gives files of its folder such a name."""
    path.unlink(missing_ok=True)


def drop_folder(folder: Path) -> None:
    """Delete a folder and its content. The caller made it inside a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)


def clear_killed(target: Path) -> None:
    """Delete the folders that killed commands left beside `target`. The caller holds the lock of `target`."""
    for left in _find_killed(target):
        shutil.rmtree(left, ignore_errors=True)


def _find_killed(target: Path) -> Iterator[Path]:
    """Yield the folders in which killed commands were building `target`, by their names and owner.json.

    Nobody else may be building it: the caller holds the lock of `target`.
    """
    like = re.compile(re.escape(f".{short_name(target)}.") + r"[0-9a-f]{16}\.part")
    for name in os.listdir(target.parent):
        left = target.with_name(name)
        if like.fullmatch(name) and not left.is_symlink():
            record = read_owner(left)
            if record is not None and (record["fl_rsna"], record.get("of")) == (BUILDING, target.name):
                yield left


def short_name(path: Path) -> str:
    """Return a path's name, or a hash of it where the names made from it would be too long for the system."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST:
        return path.name
    return hashlib.sha256(name).hexdigest()[:32]


def _acquire_lock(lock: Path, path: Path, wait_s: float, on_wait: Callable[[], None] | None) -> tuple[int, bool]:
    """Lock a file and return its descriptor, and whether fl_rsna made the file and so deletes it in the end."""
    end, told = time.monotonic() + wait_s, False
    while True:
        descriptor, ours = _open_lock(lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held the lock before may have deleted the file and another one made it again.
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
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed
                print(f"waiting for another process, which is making {path}", file=sys.stderr, flush=True)
            if on_wait is not None:
                on_wait()
        time.sleep(LOOK_S)


def _open_lock(lock: Path) -> tuple[int, bool]:
    """Open the lock's file. Returns its descriptor, and whether it was made just now."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(lock, flags), False


def _is_there_still(descriptor: int, lock: Path) -> bool:
    """Say whether the open file is still the one of that name."""
    try:
        there = os.lstat(lock)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
