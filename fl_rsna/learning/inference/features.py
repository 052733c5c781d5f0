"""Compute a frozen encoder's features and logits of a site's slices once, and keep them beside the packed images.

Features are of every slice without augmentation, and of training slices also in augmented copies. Files are named after the pack from
which they were computed, the encoder and the augmentation, so that they are never confused and later runs find them.
"""

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fl_rsna.common.hashes import array_written, is_whole, map_array
from fl_rsna.common.ownership import WAIT_S, hold_lock, make_folder, read_owner, take_back, what_is
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.data.augment import augment
from fl_rsna.learning.data.dataset import Joined, SiteData, gather
from fl_rsna.learning.data.series import Stacked
from fl_rsna.learning.models.classifier import Classifier
from fl_rsna.learning.models.tta import mean_probabilities
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import RunModel
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import LabelKind, Task

FIRST_SETTINGS = (  # settings of a model that are hashed first, in this order; the others follow as they are declared
    "name",
    "pretrained",
    "image_size",
    "norm",
    "norm_momentum",
    "recalibrate",
    "dropout",
    "kept_negatives",
    "class_weights",
)
BATCH = 64  # slices in a batch
CLIP = 1e-6  # distance that mean probabilities keep from 0 and 1, so that their logits are finite
KEPT = 4  # most recent encoders, whose features a site keeps
UNUSED_S = 24 * 3600.0  # features opened within a day are kept, too, as a run may resume with them
WHAT = "features"  # kind of folder, in owner.json
AUGMENTED_BY = ("flip", "rotate_deg", "zoom", "shift", "hu_shift", "hu_noise", "brightness", "contrast", "cutout")

OnBatch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Identify features: by the encoder, the number of copies, and the augmentation of the copies."""

    encoder_id: str
    copies: int  # copy 0 is not augmented and of all slices, the others are of training slices
    augmentation: str  # hash of the settings of augmentation

    def name(self, copy: int) -> str:
        """Return the part of the file names that stands for a copy."""
        return "0" if copy == 0 else f"{copy}-{self.augmentation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Features float16 [N, F] and logits float32 [N, L] of each copy: of every slice in copy 0, of training slices in the others."""

    features: tuple[Joined, ...]
    logits: tuple[NDArray[np.float32], ...]
    train: NDArray[np.intp]  # rows of the training slices

    @property
    def copies(self) -> int:
        """The number of copies, with that of all slices."""
        return len(self.logits)

    def take(self, copy: int, rows: NDArray[np.intp]) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Return the features and logits of `rows` in one copy; `rows` are training slices except in copy 0."""
        at = rows if copy == 0 else np.searchsorted(self.train, rows)
        return self.features[copy].take(at), self.logits[copy][at]


def encoder_id(model_sha256: str, config: RunModel, task: str, image: ImageKind) -> str:
    """Hash everything on which an encoder's output depends; the order of settings is fixed, as augmentation draws by this hash."""
    settings = asdict(config)
    first = {name: settings[name] for name in FIRST_SETTINGS}
    said = json.dumps([model_sha256, {**first, **settings}, task, image.value])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def views_of(encoder: str, copies: int, config: TrainConfig) -> Views:
    """Return the identity of an encoder's features of so many copies, augmented by the training settings."""
    said = json.dumps({name: getattr(config, name) for name in AUGMENTED_BY})
    return Views(encoder_id=encoder, copies=copies, augmentation=hashlib.sha256(said.encode()).hexdigest()[:8])


def is_encoded(data: SiteData, views: Views) -> bool:
    """Return whether all features of `views` exist, and mark them as used now, so that no other run deletes them."""
    folders = [folder for folder, _ in _parts(data, views)]
    for folder in folders:
        with contextlib.suppress(OSError):
            os.utime(folder)
    return not any(_find_missing_copies(folder, views) for folder in folders)


def open_encoded(data: SiteData, views: Views) -> Encoded:
    """Open the features of a site from its disk; raises ValueError when some are missing."""
    parts = _parts(data, views)
    if not is_encoded(data, views):
        raise ValueError(
            f"expected features of encoder {views.encoder_id[:12]} at site {data.name}, found none; "
            "go on with the run by resume=true, which makes them"
        )
    names = [views.name(copy) for copy in range(views.copies)]
    features = [Joined(tuple(map_array(folder / f"features-{name}.npy") for folder, _ in parts)) for name in names]
    logits = [np.concatenate([map_array(folder / f"logits-{name}.npy") for folder, _ in parts]) for name in names]
    return Encoded(features=tuple(features), logits=tuple(logits), train=data.rows("train"))


def encode_site(
    network: Classifier,
    data: SiteData,
    views: Views,
    task: Task,
    config: TrainConfig,
    device: torch.device,
    on_batch: OnBatch,
) -> int:
    """Compute the features that are missing, delete old ones, and return the number of slices that were encoded.

    Features that another process computes at the same time are waited for. Features of packs that are gone are deleted, and those of all
    but the most recent encoders.
    """
    network.to(device).eval()
    wanted = [
        (folder, copy, rows if copy == 0 else np.intersect1d(rows, data.rows("train")))
        for folder, rows in _parts(data, views)
        for copy in _find_missing_copies(folder, views)
    ]
    total, done = sum(-(-len(rows) // BATCH) for _, _, rows in wanted), 0
    made = 0
    for folder, copy, rows in wanted:
        draws = torch.Generator().manual_seed(derive_seed(0, "encode", folder.name, copy))

        def load_batch(batch: NDArray[np.intp], copy: int = copy, draws: torch.Generator = draws) -> torch.Tensor:
            images = gather(data.images, batch, device)
            return augment(images, config, image=data.image, generator=draws) if copy else images

        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        with hold_lock(folder, wait_s=WAIT_S):
            if copy not in _find_missing_copies(folder, views):  # another process made it while this one waited
                done += len(batches)
                continue
            if what_is(folder) != WHAT:
                make_folder(folder, WHAT)
            features = (encode(network, load_batch(batch), task) for batch in batches)
            for _ in _write_copy(folder, views.name(copy), len(rows), features):
                on_batch(done := done + 1, total)
            made += len(rows)
    for folder, _ in _parts(data, views):
        _forget(folder)
    return made


@torch.inference_mode()
def encode(network: Classifier, images: torch.Tensor, task: Task) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Compute features [B, F] of the images, rounded to float16 as they are stored, and the network's logits [B, L].

    With several views the logits are those of the mean probability. Raises FloatingPointError when either is not finite.
    """
    assert task.kind is LabelKind.multi_label
    drawn, features = network.with_features(images)
    logits = network.correction(drawn)
    if network.views > 1:
        logits = torch.logit(mean_probabilities(network, images, task), eps=CLIP)
    rounded = features.float().cpu().numpy().astype(np.float16)
    found = logits.float().cpu().numpy()
    if not np.isfinite(rounded).all() or not np.isfinite(found).all():
        raise FloatingPointError("the encoder's features are not finite in float16; take another encoder")
    return rounded, found


def encode_batches(network: Classifier, batches: Iterable[torch.Tensor], task: Task) -> Encoded:
    """Encode images that belong to no site's folder, in their order and in memory; there must be at least one batch."""
    features, logits = zip(*(encode(network, images, task) for images in batches), strict=True)
    return Encoded(
        features=(Joined((np.concatenate(features),)),), logits=(np.concatenate(logits),), train=np.zeros(0, np.intp)
    )


def _write_copy(
    folder: Path, name: str, count: int, batches: Iterator[tuple[NDArray[np.float16], NDArray[np.float32]]]
) -> Iterator[int]:
    """Write one copy batch by batch, and yield the number of slices that are done."""
    first = next(batches, None)
    assert first is not None, "a site without training slices is refused at the roll call"
    widths, done = [part.shape[1] for part in first], 0
    with (
        array_written(folder / f"features-{name}.npy", np.float16, (count, widths[0])) as features,
        array_written(folder / f"logits-{name}.npy", np.float32, (count, widths[1])) as logits,
    ):
        for seen, found in itertools.chain([first], batches):
            features[done : done + len(seen)], logits[done : done + len(seen)] = seen, found
            done += len(seen)
            yield done


def _parts(data: SiteData, views: Views) -> list[tuple[Path, NDArray[np.intp]]]:
    """Return the folder of features and the rows of every pack of `data`."""
    images = data.images.images if isinstance(data.images, Stacked) else data.images
    packs, found, start = images.parts if isinstance(images, Joined) else (images,), [], 0
    for pack in packs:
        assert isinstance(pack, np.memmap)
        assert pack.filename is not None
        path = Path(pack.filename)
        folder = path.with_name(f"features-{path.stem}-{views.encoder_id[:16]}")
        found.append((folder, np.arange(start, start + len(pack))))
        start += len(pack)
    return found


def _find_missing_copies(folder: Path, views: Views) -> list[int]:
    """Return the copies that are missing, or were changed or damaged according to their hashes."""
    return [
        copy
        for copy in range(views.copies)
        if not all(is_whole(folder / f"{what}-{views.name(copy)}.npy") for what in ("features", "logits"))
    ]


def _forget(folder: Path) -> None:
    """Delete features of packs that are gone, and of all but the last KEPT encoders, where no run opened them for UNUSED_S."""
    beside = sorted(folder.parent.glob("features-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    of_pack = folder.name.rpartition("-")[0]
    same = [path for path in beside if path.name.rpartition("-")[0] == of_pack and path != folder]
    pack_of = {path: path.name.removeprefix("features-").rpartition("-")[0] + ".npy" for path in beside}
    gone = [path for path in beside if not folder.with_name(pack_of[path]).exists()]
    for path in {*gone, *same[KEPT - 1 :]}:
        record = read_owner(path)
        if record is not None and what_is(path) == WHAT and path.stat().st_mtime < time.time() - UNUSED_S:
            take_back(path, record["token"], ("features-*.npy", "logits-*.npy"), wait_s=0.0)
