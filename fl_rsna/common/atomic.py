"""Write files and folders that appear under their names only when complete, and link images into other folders.

A hard link takes no space. Where the file system has no hard links, the image is copied.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_rsna.common.ownership import build_beside, drop, give_name, hold_lock, short_name


def link_images(image_ids: Iterable[str], images: Path, folder: Path) -> None:
    """Link `<id>.png` of the folder `images` into `folder`, which must not exist yet. Raises ValueError that names the first missing image."""
    folder.mkdir(parents=True)
    here, there = os.fspath(images), os.fspath(folder)
    for image_id in image_ids:
        _link(f"{here}/{image_id}.png", f"{there}/{image_id}.png")


def link_kept(image_ids: Iterable[str], images: Path, folder: Path) -> None:
    """Link `<id>.png` of the folder `images` into a `folder` of the caller's, replacing other images of these names.

    Raises ValueError that names the first missing image.
    """
    for image_id in image_ids:
        source, target = images / f"{image_id}.png", folder / f"{image_id}.png"
        if os.path.lexists(target):
            if os.path.samefile(source, target):
                continue
            drop(target)
        _link(os.fspath(source), os.fspath(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise ValueError(
            f"expected {source}, which index.parquet names, got no such file; prepare the data again"
        ) from None
    except OSError:  # another file system, one without hard links, or too many links to one file
        shutil.copyfile(source, target)


@contextmanager
def build_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to build in; it is renamed to `folder` when the body succeeds and removed when it fails.

    Raises ValueError when another process is building the folder, or something of that name exists.
    """
    with hold_lock(folder):
        if os.path.lexists(folder):
            raise ValueError(f"{folder}: another process finished it just now; run the same command again to use it")
        with build_beside(folder) as building:
            yield building
            give_name(building, folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once: a reader finds the old content or the new one, never a part, and no temporary file stays behind."""
    with replace_whole(path) as part:
        part.write_bytes(content)


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yield the path of a new, empty file beside `path`; it replaces `path` when the body succeeds and is deleted when it fails.

    The result has the permissions of any new file, even where a library writes its own file in that place.
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
