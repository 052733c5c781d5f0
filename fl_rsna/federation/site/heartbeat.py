"""Write and read the progress of sites in their batches: a small file for each site, for displays.

The file holds counts alone. Nothing waits for it, no result depends on it, and it is deleted when the site is done. Sites of a
simulation write it into the run's folder; deployed sites do not.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fl_rsna.common.ownership import clear_folder, drop

FOLDER = "heartbeat"
EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A site's progress: `batch` of its `batches` in a round, or, before the first round, `batch` of `batches` packed images."""

    round: int
    batch: int
    batches: int
    packing: bool = False


@contextlib.contextmanager
def keep_heartbeat(
    folder: Path | None, site: str, round_: int, *, packing: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call after every batch, or packed image: it writes at most every EVERY_S seconds.

    It ignores errors of the disk, and does nothing without a folder.
    """
    if folder is None:
        yield lambda batch, batches: None
        return
    path, last = folder / site, float("-inf")

    def on_batch(batch: int, batches: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            _write(path, Beat(round=round_, batch=batch, batches=batches, packing=packing))

    try:
        yield on_batch
    finally:
        with contextlib.suppress(OSError):
            drop(path)


def _write(path: Path, beat: Beat) -> None:
    """Write a beat without waiting for the disk, because no run goes on from it."""
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps({key: value for key, value in asdict(beat).items() if value or key != "packing"}))
        os.replace(part, path)


def read_beats(run: Path) -> dict[str, Beat]:
    """Read by site the last beat of those that train at this moment; empty where none do."""
    return {path.name: beat for path, beat in _beats_in(run) if not path.name.startswith(".")}


def _beats_in(run: Path) -> Iterator[tuple[Path, Beat]]:
    with contextlib.suppress(OSError):
        for path in (run / FOLDER).iterdir():
            with contextlib.suppress(OSError, ValueError, TypeError):  # deleted by now, or another program's
                yield path, Beat(**json.loads(path.read_bytes()))


@contextlib.contextmanager
def no_old_beats(run: Path) -> Iterator[None]:
    """Delete beats before and after the body, because those of a killed run are out of date."""
    _drop_beats(run)
    try:
        yield
    finally:
        _drop_beats(run)


def _drop_beats(run: Path) -> None:
    """Delete the files of a run that are beats, or the beginning of one, and their folder where nothing else is in it."""
    with contextlib.suppress(OSError):
        parts = [path for path in (run / FOLDER).glob(".*.part") if b'{"round"'.startswith(path.read_bytes()[:8])]
        clear_folder(run / FOLDER, [*parts, *(path for path, _ in _beats_in(run))])
