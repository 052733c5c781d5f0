"""Keep a site's memory from round to round: a few vectors in its own folder, one file for each round, never sent."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_rsna.common.hashes import read_vectors, write_vectors
from fl_rsna.common.ownership import drop

Memory = dict[str, NDArray[np.float32]]

GONE = "the site cannot go on from it: bring it back from a copy, or start again under another run.name"
NAME = re.compile(r"round-(\d{5,})\.safetensors")


def recall(folder: Path, round_: int, site: str) -> Memory:
    """Read the memory of `site` after its last accepted round, `round_`, of the run that `folder` is named after; empty without one.

    Files of rounds that were lost, refused or repeated are not read. Raises ValueError when the file was changed, or is of another
    run, site or round.
    """
    path = _path(folder, round_)
    return read_vectors(path, GONE, _facts(folder, round_, site))[0] if path.exists() else {}


def remember(folder: Path, round_: int, memory: Memory, site: str, *, accepted: int, keep_all: bool) -> None:
    """Write the memory after `round_`, and delete those older than the last accepted round unless `keep_all`."""
    if not memory:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_vectors(_path(folder, round_), memory, _facts(folder, round_, site))
    for path in () if keep_all else list(folder.glob("round-*")):
        found = NAME.fullmatch(path.name)
        if found and int(found[1]) < accepted:
            drop(_path(folder, int(found[1])))


def check_memories(folder: Path, run_id: str, accepted: Mapping[str, int]) -> None:
    """Refuse to go on where a site's memory of its last accepted round, below `folder`/<site>, was changed; raises ValueError.

    A simulation checks this before it goes on: later it would be a failure of one site, and the run would go on without the site.
    """
    for site, round_ in accepted.items():
        recall(folder / site / run_id, round_, site)


def _facts(folder: Path, round_: int, site: str) -> dict[str, str | int]:
    return {"run_id": folder.name, "site": site, "round": round_}


def _path(folder: Path, round_: int) -> Path:
    return folder / f"round-{round_:05d}.safetensors"
