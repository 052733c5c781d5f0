"""Open a site's slices as one memory-mapped array, packed once from its PNGs and read without worker processes."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import IDS, LOCAL_ID, PLACEHOLDER
from fl_rsna.cohort.sites.noise import PIXEL_SIZE, SiteNoise, read_noise
from fl_rsna.cohort.sites.site_folders import read_site_files
from fl_rsna.common.hashes import array_written, is_whole, map_array
from fl_rsna.common.ownership import WAIT_S, build_beside, hold_lock
from fl_rsna.common.reading import numbers, parse_csv, refuse_unreadable
from fl_rsna.imaging.png_store import Image, fit_square, read_png
from fl_rsna.learning.data.crop import Square, cut, squares
from fl_rsna.learning.data.series import Stacked, join_tables, neighbour_table
from fl_rsna.learning.data.site_noise import Scan, scan_of, with_label_noise
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import Crop, ModelConfig
from fl_rsna.task import find_task

PNG_SHA256 = "png_sha256"  # column of an index: the first digits of the hash of an image's file
POOLED = "pooled"  # name of the one site of a pooled cohort
OnPacked = Callable[[int, int], None]  # (images packed so far, images in all)


def unheard(done: int, images: int) -> None:
    """Ignore the progress of packing."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The packed slices of several sites, one site after the other, without a copy of them."""

    parts: tuple[NDArray[np.generic], ...]

    def take(self, rows: NDArray[np.intp], axis: int = 0) -> NDArray[np.generic]:
        """Return a copy of the slices at the positions `rows`, in the order of `rows`."""
        first = self.parts[0]
        found, start = np.empty((len(rows), *first.shape[1:]), first.dtype), 0
        for part in self.parts:
            here = (rows >= start) & (rows < start + len(part))
            found[here] = part[rows[here] - start]
            start += len(part)
        return found


Packed = NDArray[np.generic] | Joined | Stacked


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """One site's packed slices, in the order of its index.

    `images` is a read-only memory map: uint16 [N, S, S] (HU + 1024, or grey) or uint8 [N, S, S, 3]. It is several of them where
    sites are pooled, and stacks of neighbouring slices where the model sees neighbours. `labels` is float32 [N, L] in the task's
    order; the column `split` of `index` holds train, validation or test. At a noisy site, `images` include its scanner's
    effects, and `labels` and `index` its wrong training labels, and NaN for a label that the site does not annotate.
    """

    name: str
    cohort_sha256: str
    task: str
    label_names: tuple[str, ...]
    image: ImageKind
    images: Packed
    labels: NDArray[np.float32]
    index: pd.DataFrame
    ids: str | None = None  # how patients' ids were made (common/id_scheme.py)

    @property
    def unknown_labels(self) -> tuple[str, ...]:
        """The labels that are unknown (NaN) for every slice."""
        return tuple(np.array(self.label_names)[np.isnan(self.labels).all(axis=0)].tolist())

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the positions of the slices of one part: train, validation or test."""
        return np.flatnonzero(self.index["split"].to_numpy() == split)


def open_site(
    folder: Path,
    *,
    image_size: int,
    neighbours: int = 0,
    crop: Crop = Crop.none,
    cache: Path | None = None,
    on_packed: OnPacked = unheard,
) -> SiteData:
    """Open a site folder; pack its PNGs at `image_size` on first use or after its index changed.

    `neighbours` and `crop` are settings of the model: the slices on each side that it also sees, and the part of an image that
    it sees. The pack lies in `cache` (default: `packed/` inside the folder). One process makes it; others wait for it and use it.
    Packs of an earlier index stay, as another process may use them; they can be deleted while no run is active. `on_packed` is
    called after each image. Raises ValueError when the folder is not a site's, has no slices or lacks an image.
    """
    facts, raw_index, index, noise = read_site(folder)
    labels = list(facts["labels"])
    of = f"{image_size} {facts['image']} {facts['cohort_sha256']}{noise if noise.of_scanner else ''}"
    of += "" if crop is Crop.none else f" {crop.value}"
    key = hashlib.sha256(raw_index + of.encode()).hexdigest()[:16]
    kind = f"{image_size}-" if crop is Crop.none else f"{crop.value}-{image_size}-"
    packed = (cache or folder / "packed") / f"{kind}{key}.npy"
    if not is_whole(packed):
        with hold_lock(packed, wait_s=WAIT_S):
            if not is_whole(packed):  # another process may have made it while this one waited
                if packed.exists():
                    said = "is not as it was written, by its hash, and is made again; is the disk sound?"
                    warnings.warn(f"{packed} {said}", stacklevel=2)
                scan, shown = scan_of(noise, facts["site"]), squares(index, crop)
                _pack(folder / "images", index, scan, shown, image_size, packed, on_packed)
    images = map_array(packed)
    return SiteData(
        name=facts["site"],
        cohort_sha256=facts["cohort_sha256"],
        task=facts["task"],
        label_names=tuple(labels),
        image=ImageKind(facts["image"]),
        images=Stacked(images, neighbour_table(index, neighbours)) if neighbours else images,
        labels=index[labels].to_numpy(np.float32),
        index=index,
        ids=facts.get("ids"),
    )


def read_site(folder: Path) -> tuple[dict[str, Any], bytes, pd.DataFrame, SiteNoise]:
    """Read a site's site.json, the bytes of its index.csv, the index as a table, and the site's noise.

    The table holds the labels that the site trains on: wrong ones are among them at a site with label noise. Raises ValueError
    when the folder is not a site's or has no slices.
    """
    facts, raw_index = read_site_files(folder)
    with refuse_unreadable(folder / "site.json", "a known task, kind of images and noise"):
        noise, _ = read_noise(facts), ImageKind(facts["image"])
        task = find_task(facts["task"])
    path, known = folder / "index.csv", [label for label in facts["labels"] if label not in noise.unannotated]
    ids = dict.fromkeys(("image_id", *IDS, LOCAL_ID, PLACEHOLDER), str)
    index = parse_csv(
        path, raw_index, columns=("image_id", "patient_id", "split", *known), dtype=ids, keep_default_na=False, na_values=[""],
    )  # an id may read NA  # fmt: skip
    if index.empty:
        raise ValueError(
            f"expected images at site {facts['site']}, got an empty {folder / 'index.csv'}; partition again with fewer sites"
        )
    for instead in ("study_id", "image_id"):  # an empty id groups nothing
        if task.exam_key in index and instead in index:
            index[task.exam_key] = index[task.exam_key].fillna(index[instead])
    numbers(index, known, path)
    if noise.of_labels:
        index = with_label_noise(index, noise, facts["site"], task)
    return facts, raw_index, index, noise


def open_for(model: ModelConfig, folder: Path, *, cache: Path | None = None, on_packed: OnPacked = unheard) -> SiteData:
    """Open a site folder with the image size, neighbours and crop of a model; see `open_site`."""
    return open_site(
        folder,
        image_size=model.image_size,
        neighbours=model.neighbours,
        crop=model.crop,
        cache=cache,
        on_packed=on_packed,
    )


def writable_cache(folder: Path, otherwise: Path) -> Path:
    """Return the place for a site folder's pack: inside the folder, or `otherwise` where the folder is not writable.

    A folder without any write permission counts as not writable also for root, whom permissions do not stop.
    """
    inside = folder / "packed"
    place = inside if inside.is_dir() else folder
    writable = os.access(place, os.W_OK) and place.stat().st_mode & 0o222
    return inside if writable or not folder.is_dir() else otherwise


def open_pooled(model: ModelConfig, folders: Sequence[Path], *, on_packed: OnPacked = unheard) -> SiteData:
    """Open several sites of one cohort as one site, `pooled`; every slice keeps its site's noise and its part."""
    sites = [open_for(replace(model, neighbours=0), folder, on_packed=on_packed) for folder in folders]
    images = Joined(tuple(part for site in sites if isinstance(part := site.images, np.ndarray)))
    tables = [neighbour_table(site.index, model.neighbours) for site in sites] if model.neighbours else []
    return replace(
        sites[0],
        name=POOLED,
        ids=sites[0].ids if len({site.ids for site in sites}) == 1 else None,
        images=Stacked(images, join_tables(tables)) if tables else images,
        labels=np.concatenate([site.labels for site in sites]),
        index=pd.concat([site.index for site in sites], ignore_index=True),
    )


def train_batches(rows: NDArray[np.intp], batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield one epoch of shuffled batches; sizes differ by at most one, and none is of one slice, too small for BatchNorm.

    Rows inside a batch are sorted, so that slices that are neighbours in the file are read together.
    """
    for batch in np.array_split(rng.permutation(rows), count_batches(len(rows), batch_size)):
        yield np.sort(batch)


def count_batches(slices: int, batch_size: int) -> int:
    """Return the number of batches in one epoch; no batch has a single slice unless `batch_size` or `slices` is 1."""
    most = slices // min(2, batch_size)
    return max(1, min(round(slices / batch_size), most))


def gather(images: Packed, rows: NDArray[np.intp], device: torch.device) -> torch.Tensor:
    """Return the slices at `rows` as float32 [B, C, S, S] of stored values (HU + 1024, or grey levels), where 0 is air.

    C is 1, or 3 for windowed images, times the slices of a stack. The channels of one slice stay together, the lowest slice first.
    """
    batch = np.take(images, rows, axis=0) if isinstance(images, np.ndarray) else images.take(rows)
    # As stored, slices are [B, S, S(, 3)] and stacks [B, n, S, S(, 3)].
    if batch.dtype == np.uint16:
        values = torch.from_numpy(batch).to(device).float()
        return values.unsqueeze(1) if values.ndim == 3 else values
    return torch.from_numpy(batch).to(device).movedim(-1, -3).flatten(1, -3).float()


def _pack(
    images: Path,
    index: pd.DataFrame,
    scan: Scan,
    shown: Sequence[Square],
    image_size: int,
    target: Path,
    on_packed: OnPacked,
) -> None:
    """Write every image of the index to one array file: with the scanner's effects, cut to its square, at `image_size`."""

    def read_row(row: Mapping[Any, Any], square: Square) -> Image:
        stated = row.get(PNG_SHA256)
        image = read_png(images / f"{row['image_id']}.png", stated if isinstance(stated, str) else None)
        return fit_square(cut(scan(image, row), square), image_size)

    rows = index[["image_id", *(name for name in (*PIXEL_SIZE, PNG_SHA256) if name in index)]].to_dict("records")
    with build_beside(target) as building:
        part, first = building / "pack.npy", read_row(rows[0], shown[0])
        with array_written(part, first.dtype, (len(rows), *first.shape)) as array:
            for place, (row, square) in enumerate(zip(rows, shown, strict=True)):
                image = read_row(row, square)
                if image.shape != first.shape or image.dtype != first.dtype:
                    raise ValueError(
                        f"{images / str(row['image_id'])}.png is {image.dtype} {image.shape}, the first image {first.dtype} "
                        f"{first.shape}; prepare the data again"
                    )
                array[place] = image
                on_packed(place + 1, len(rows))
        os.rename(part, target)
