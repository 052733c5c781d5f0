"""Images under a second name: hard links, which cost no space, where the file system allows them; else copies."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fl_rsna.ownership import drop


def link_images(image_ids: Iterable[str], images: Path, folder: Path) -> None:
    """`<id>.png` of `images` into the new `folder`; raises ValueError naming the first that is not there."""
    folder.mkdir(parents=True)
    here, there = os.fspath(images), os.fspath(folder)
    for image_id in image_ids:
        _link(f"{here}/{image_id}.png", f"{there}/{image_id}.png")


def link_kept(image_ids: Iterable[str], images: Path, folder: Path) -> None:
    """The same into a folder of the caller's that may hold other images under these names, which go."""
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
