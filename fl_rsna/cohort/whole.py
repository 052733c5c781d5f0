"""Folders and files that appear under their names only when complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_rsna.ownership import building_beside, drop, give_name, held, short_name


@contextmanager
def built_whole(folder: Path) -> Iterator[Path]:
    """A folder to build in; it gets its name only when the body succeeds and is removed when it does not.

    Raises ValueError when another process is building it or something has the name.
    """
    with held(folder):
        if os.path.lexists(folder):
            raise ValueError(f"{folder}: another process finished it just now; run the same command again to use it")
        with building_beside(folder) as building:
            yield building
            give_name(building, folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part, and none is left behind."""
    with written_whole(path) as part:
        part.write_bytes(content)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name that nobody has to write a file under, which takes `path`'s place when the body succeeds.

    It is there, empty, with the permissions that any new file gets; it keeps them whatever a library makes in its place.
    """
    part = path.with_name(f"{short_name(path)}.{secrets.token_hex(8)}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        os.replace(part, path)
    finally:
        drop(part)
