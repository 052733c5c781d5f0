"""A cohort small enough to train on in a second: 32-pixel slices in which blood is a bright square."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort, write_site_facts
from fl_rsna.cohort.steps import partition_settings
from fl_rsna.common.hashes import table_sha256
from fl_rsna.common.id_scheme import PLAIN
from fl_rsna.imaging.png_store import write_png
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.settings.runtime import EngineName
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import COVID_CXR, ICH, LabelKind, Rendering, Task

SIZE = 32
LITE0: dict[str, Any] = {"model__name": ModelName.efficientnet_lite0, "model__pretrained": True}  # of `tiny_config`

CHEST = replace(COVID_CXR, name="chest", rendering=Rendering.hounsfield, modalities=("CT",))  # classes, on slices


def tiny_index(task: Task = ICH, patients: int = 18, slices: int = 4) -> pd.DataFrame:
    """Patients 0, 1, 2, ... in turn have each specific label, or none, on their middle slices."""
    rows = []
    kinds = [*task.specific_labels] if task.kind is LabelKind.multi_class else [*task.specific_labels, None]
    for patient in range(patients):
        found = kinds[patient % len(kinds)]
        for rank in range(slices):
            labels = dict.fromkeys(task.labels, 0)
            if found and (task.kind is LabelKind.multi_class or 0 < rank < slices - 1):
                labels[found] = 1
                labels |= {task.union: 1} if task.union else {}
            place: dict[str, object] = {"rank": rank, "relative_position": rank / (slices - 1)}
            match task.rendering:
                case Rendering.hounsfield:
                    place["brain_hu_mean"] = 30.0 + 5 * max(labels.values())
                case Rendering.radiograph:
                    box = [] if found == task.labels[0] else [[8, 8, 12, 12]]
                    place |= {"view": "PA", "grey_mean": 0.4, "rows": SIZE, "columns": SIZE, "boxes": json.dumps(box)}
            ids = {"image_id": f"p{patient:02d}s{rank}", "patient_id": f"p{patient:02d}", "study_id": f"t{patient:02d}"}
            rows.append({**ids, "series_id": f"e{patient:02d}", **place, **labels})
    return pd.DataFrame(rows)


def tiny_prepared(folder: Path, task: Task = ICH, image: ImageKind = ImageKind.hu, **counts: int) -> Prepared:
    """A prepared folder with images for `tiny_index`."""
    index = tiny_index(task, **counts)
    (folder / "images").mkdir(parents=True)
    for number, row in enumerate(index.itertuples()):
        hu = np.full((SIZE, SIZE), 30.0) + np.random.default_rng(number).normal(0, 5, (SIZE, SIZE))
        if any(getattr(row, label) for label in task.specific_labels):
            hu[8:20, 8:20] += 40
        grey = np.clip(hu * 255 / 80, 0, 255).astype(np.uint8)
        match image:
            case ImageKind.hu:
                pixels = (hu + 1024).astype(np.uint16)
            case ImageKind.windows:
                pixels = np.stack([grey] * 3, 2)
            case ImageKind.grey:
                pixels = grey.astype(np.uint16) * 257
        write_png(folder / "images" / f"{row.image_id}.png", pixels)
    return Prepared(
        folder=folder,
        task=task.name,
        labels=task.labels,
        image=image,
        size=SIZE,
        index_sha256=table_sha256(index),
        index=index,
        ids=PLAIN,
    )


def with_facts(prepared: Prepared, rejected: list[dict[str, str]] | None = None, **changes: Any) -> Prepared:
    """Write prepare.json and rejected.csv for a tiny prepared folder."""
    rejected = rejected or []
    columns = ["path", "image_id", "reason", "tag", "detail"]
    pd.DataFrame(rejected, columns=columns).fillna("").to_csv(prepared.folder / "rejected.csv", index=False)
    reasons = pd.Series([row["reason"] for row in rejected], dtype=str).value_counts().to_dict()
    facts = {
        "task": prepared.task,
        "labels": list(prepared.labels),
        "image": prepared.image,
        "size": prepared.size,
        "slices": len(prepared.index),
        "series": int(prepared.index["series_id"].nunique()),
        "patients": int(prepared.index["patient_id"].nunique()),
        "rejected": {str(reason): int(count) for reason, count in reasons.items()},
        "labels_without_image": 0,
        "index_sha256": prepared.index_sha256,
        "request": {"hash_ids": True},
        **changes,
    }
    (prepared.folder / "prepare.json").write_text(json.dumps(facts))
    return prepared


def tiny_cohort(
    folder: Path, task: Task = ICH, image: ImageKind = ImageKind.hu, num_sites: int = 3, ids: str = PLAIN, **counts: int
) -> Cohort:
    """A cohort of `num_sites` sites and a test site in `folder`/sites, whose ids are said to be made as `ids` says."""
    prepared, config = replace(tiny_prepared(folder / "prepared", task, image, **counts), ids=ids), Config()
    config.data.name, config.partition.num_sites = "tiny", num_sites
    sites = split_patients(
        prepared.index, task, PartitionConfig(num_sites=num_sites, alpha=1.0, test=0.2, validation=0.2, seed=0)
    )
    return write_cohort(folder / "sites", prepared, sites, task, partition_settings(config))


def rewrite_site(folder: Path, table: pd.DataFrame | None = None, **facts: object) -> None:
    """Another index.csv, or other facts in site.json, of a site, as if it had been partitioned so."""
    if table is not None:
        table.to_csv(folder / "index.csv", index=False)
    said = json.loads((folder / "site.json").read_text())
    write_site_facts(folder, {**said, **facts})


def tiny_config(**changes: object) -> Config:
    """Two rounds of `tiny_network` at 32 px in this process, the final model as its round left it; `**LITE0` for the default network."""
    config = Config(rounds=2)
    config.model.name, config.model.pretrained = "tiny", False
    config.model.image_size, config.model.recalibrate = SIZE, False
    config.engine.name, config.engine.workers, config.train.batch_size = EngineName.local, 0, 8
    if "strategy__name" in changes:
        config.strategy = STRATEGIES[str(changes.pop("strategy__name"))].settings()
    for path, value in changes.items():
        group, _, key = path.rpartition("__")
        setattr(getattr(config, group) if group else config, key, value)
    return config
