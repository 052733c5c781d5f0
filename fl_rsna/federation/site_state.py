"""What a site remembers from round to round: a few vectors in its own folder, one file a round, never sent."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from fl_rsna.cohort.whole import write_whole
from fl_rsna.ownership import drop

Memory = dict[str, NDArray[np.float32]]

NAME = re.compile(r"round-(\d{5,})\.safetensors")


def recall(folder: Path, round_: int) -> Memory:
    """What the site knew after its last accepted round, `round_`; nothing before there was one.

    A round that was lost, refused or repeated may have left another file; it does not count.
    """
    path = _path(folder, round_)
    return load_file(path) if path.exists() else {}


def remember(folder: Path, round_: int, memory: Memory, *, accepted: int, keep_all: bool) -> None:
    """Write the memory after `round_`, and forget what is older than the last accepted round."""
    if not memory:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(_path(folder, round_), save({name: np.ascontiguousarray(value) for name, value in memory.items()}))
    for old in () if keep_all else _rounds(folder):
        if old < accepted:
            drop(_path(folder, old))


def _rounds(folder: Path) -> list[int]:
    return [int(found[1]) for path in folder.glob("round-*") if (found := NAME.fullmatch(path.name))]


def _path(folder: Path, round_: int) -> Path:
    return folder / f"round-{round_:05d}.safetensors"
