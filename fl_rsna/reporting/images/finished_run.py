"""A finished run with what it was scored on: its model, the test site's slices and the predictions about them.

Of the slices, those explain a model where it is surest and right, and where it is furthest from right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.common.hashes import read_table
from fl_rsna.common.reading import read_json
from fl_rsna.imaging.png_store import Image, read_png
from fl_rsna.learning.data.crop import Square, squares, uncut
from fl_rsna.learning.data.dataset import SiteData, gather, open_for, writable_cache
from fl_rsna.learning.inference.gradcam import CELLS, heat
from fl_rsna.learning.models.classifier import Classifier
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.learning.training.train import choose_device
from fl_rsna.run_folder.run_folder import (
    COPY,
    MANIFEST,
    MODEL,
    PREDICTIONS,
    RunFolder,
    is_finished,
    read_config,
    read_summary,
)
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.training import Device
from fl_rsna.task import Task

EVEN = 0.5  # the threshold of a run that chose none
BATCH = 16


class Kind(StrEnum):
    """What became of a slice at the threshold."""

    true_positive = "true positive"
    false_positive = "false positive"
    false_negative = "false negative"
    true_negative = "true negative"


OF_HEADLINE = dict.fromkeys(Kind, 4)  # slices a kind, each of another patient
OF_OTHERS = {Kind.true_positive: 2, Kind.false_positive: 1, Kind.false_negative: 1}


def pick(
    table: pd.DataFrame, task: Task, thresholds: Mapping[str, float], brain_share: NDArray[np.float64]
) -> list[tuple[str, Kind, int]]:
    """(label, kind, row of the predictions) by label, the headline first, and kind, the surest or worst first.

    Labels without a positive slice are left out. True negatives are of the half of slices that show the most brain:
    the surest of all are caps of bone, and explain nothing.
    """
    brainy = brain_share >= np.median(brain_share)
    picked = []
    for label in (task.headline, *(name for name in task.labels if name != task.headline)):
        if not table[f"label_{label}"].any():
            continue
        for kind, most in (OF_HEADLINE if label == task.headline else OF_OTHERS).items():
            rows = extreme(table, label, kind, thresholds[label])
            rows = rows[brainy[rows]] if kind is Kind.true_negative else rows
            fresh = ~pd.Series(table[task.group_key].array[rows]).duplicated().to_numpy()
            picked += [(label, kind, int(row)) for row in rows[fresh][:most]]
    return picked


def extreme(table: pd.DataFrame, label: str, kind: Kind, threshold: float) -> NDArray[np.intp]:
    """Rows of a kind: positives from the highest probability down, negatives from the lowest up."""
    probability = table[f"probability_{label}"].to_numpy(np.float64)
    truth, called = table[f"label_{label}"].to_numpy() == 1, probability >= threshold
    match kind:
        case Kind.true_positive:
            where = truth & called
        case Kind.false_positive:
            where = ~truth & called
        case Kind.false_negative:
            where = truth & ~called
        case Kind.true_negative:
            where = ~truth & ~called
    falling = kind in (Kind.true_positive, Kind.false_positive)
    rows = np.flatnonzero(where)
    return rows[np.argsort(-probability[rows] if falling else probability[rows], kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """`table` has a row a test slice, as in predictions.parquet; `demo` are the phantom's settings if it drew the data."""

    task: Task
    network: Classifier
    data: SiteData
    shown: list[Square]  # what the model sees of each slice of `data`
    table: pd.DataFrame
    thresholds: dict[str, float]
    threshold_from: str
    images: Path
    side: int  # pixels of the stored images
    demo: dict[str, int] | None

    def heat(self, rows: list[int], label: str, size: int, cells: int = CELLS) -> NDArray[np.float32]:
        """Heat of one label on these rows of `table`, [len(rows), size, size] of the whole slice: none outside a crop."""
        device, number = choose_device(Device.auto), self.task.labels.index(label)
        places = pd.Index(self.data.index["image_id"]).get_indexer(self.table["image_id"].iloc[rows])
        assert (places >= 0).all(), "the run was scored on this cohort, by its hash"
        batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
        network = self.network.to(device)
        parts = [
            heat(network, gather(self.data.images, batch, device), number, size=size, cells=cells) for batch in batches
        ]
        found = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, size, size), np.float32)
        for seen, place in zip(found, places, strict=True):
            seen[:] = uncut(seen, self.shown[place])
        return found

    def brain_share(self) -> NDArray[np.float64]:
        """Share of each row's slice that is brain; all alike where the index does not tell."""
        index = self.data.index.set_index("image_id").loc[self.table["image_id"]]
        return index["brain_share"].to_numpy(np.float64) if "brain_share" in index else np.ones(len(index))

    def image(self, image_id: str) -> Image:
        return read_png(self.images / f"{image_id}.png")


def read_finished(folder: Path) -> Finished:
    """Raises ValueError when the run is not finished, or its cohort is no longer where it was."""
    needed = ["config.yaml", "manifest.json", "summary.json", MODEL, PREDICTIONS]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing or not is_finished(folder):
        what = f"no {missing[0]}" if missing else "one that failed"
        raise ValueError(f"expected a finished run in {folder}, found {what}; let it finish with resume=true")
    manifest = read_json(folder / MANIFEST, COPY, keys={"cohort": str, "cohort_sha256": str})
    summary, config = read_summary(folder), read_config(folder)
    cohort = read_cohort(Path(manifest["cohort"]))
    if cohort.sha256 != manifest["cohort_sha256"]:
        raise ValueError(
            f"expected the cohort of {folder}, got another one in {cohort.folder}; deal the run's own again"
        )
    saved, there = read_saved(folder / MODEL), cohort.site_folder(TEST_SITE)
    cache = writable_cache(there, RunFolder(folder).cache_folder(cohort.sha256))
    thresholds, threshold_from = _thresholds(summary, saved.task)
    data = open_for(saved.config, there, cache=cache)
    return Finished(
        task=saved.task,
        network=saved.network,
        data=data,
        shown=squares(data.index, saved.config.crop),
        table=read_table(folder / PREDICTIONS, COPY, hashed=False),
        thresholds=thresholds,
        threshold_from=threshold_from,
        images=there / "images",
        side=cohort.size,
        demo=_demo(config, saved.task),
    )


def _demo(config: dict[str, Any], task: Task) -> dict[str, int] | None:
    """What the phantom was asked for, if the run's data are its and all of it is stated."""
    stated = {name: config.get("demo", {}).get(name) for name in ("patients", "seed", "size", "slices_per_series")}
    return None if config["data"]["name"] != task.demo or None in stated.values() else stated


def _thresholds(summary: dict[str, Any], task: Task) -> tuple[dict[str, float], str]:
    """Of each label, the one at Youden's index where the run chose it, and in words where they are from."""
    points = summary.get("operating_points") or {}
    chosen = {label: (points.get("slice", {}).get(label) or {}).get("youden") for label in task.labels}
    thresholds = {label: EVEN if value is None else float(value) for label, value in chosen.items()}
    lacking = [label for label, value in chosen.items() if value is None]
    if len(lacking) == len(chosen):
        return thresholds, f"{EVEN}: the run chose no operating points"
    said = f"Youden's index, chosen on {points.get('chosen_on', 'validation parts of the sites')}"
    return thresholds, said + (f"; {EVEN} for {', '.join(lacking)}" if lacking else "")
