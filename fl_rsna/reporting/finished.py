"""A finished run with what it was scored on: its model, the test site's slices and the predictions about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.choices import Device
from fl_rsna.cohort.hashed import read_table
from fl_rsna.cohort.sites import read_cohort
from fl_rsna.config import TEST_SITE
from fl_rsna.imaging.store import Image, read_png
from fl_rsna.learning.crop import Square, squares, uncut
from fl_rsna.learning.dataset import SiteData, gather, open_for, writable_cache
from fl_rsna.learning.gradcam import CELLS, heat
from fl_rsna.learning.model import Classifier
from fl_rsna.learning.saved import read_saved
from fl_rsna.learning.train import choose_device
from fl_rsna.reading import read_json
from fl_rsna.reporting.picked import EVEN
from fl_rsna.runs import COPY, MANIFEST, MODEL, PREDICTIONS, RunFolder, is_finished, read_config, read_summary
from fl_rsna.task import Task

BATCH = 16


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
    cache = writable_cache(there, RunFolder(folder).packed(cohort.sha256))
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
