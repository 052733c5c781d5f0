"""A cohort on disk: one self-contained folder a site, and cohort.json with its counts, hash and proof of disjointness."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.index import Prepared, read_facts, table_sha256
from fl_rsna.cohort.split import TEST_SITE, SitePatients, overlaps
from fl_rsna.cohort.whole import built_whole
from fl_rsna.imaging.store import ImageKind
from fl_rsna.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """What cohort.json says; `sites` are the training sites, sorted by number."""

    folder: Path
    name: str
    task: str
    labels: tuple[str, ...]
    image: ImageKind
    size: int
    sha256: str
    sites: tuple[str, ...]
    facts: dict[str, Any]

    def site_folder(self, site: str) -> Path:
        return self.folder / site


def write_cohort(
    folder: Path, prepared: Prepared, sites: list[SitePatients], task: Task, settings: dict[str, Any]
) -> Cohort:
    """Write every site's index.csv and images (hard links where the file system allows) and, last, cohort.json.

    All or nothing: the folder appears under its name only when complete. Raises ValueError when it exists.
    """
    if folder.exists():
        raise ValueError(
            f"partition.name: expected a new cohort folder, got the existing {folder}; delete it or choose another name"
        )
    shared = overlaps(sites)
    assert not shared, f"patients in two places: {shared}"
    tables = {site.name: _site_table(prepared.index, site, task) for site in sites}
    what = {"task": task.name, "labels": list(task.labels), "image": prepared.image.value, "size": prepared.size}
    everyone = pd.concat([table.assign(site=name) for name, table in tables.items()])
    sha256 = hashlib.sha256((json.dumps(what) + table_sha256(everyone)).encode()).hexdigest()
    cohort_facts = {
        "name": folder.name,
        **what,
        "prepared": {"folder": prepared.folder.name, "index_sha256": prepared.index_sha256},
        "settings": settings,
        "sites": {name: counts(table, task) for name, table in tables.items()},
        "disjoint": {"by": task.group_key, "shared_patients": shared, "patients": sum(len(site.all) for site in sites)},
        "sha256": sha256,
    }
    with built_whole(folder) as building:
        for name, table in tables.items():
            _write_site(building / name, table, prepared.folder / "images")
            site_facts = {"site": name, "cohort": folder.name, "cohort_sha256": sha256, **what}
            (building / name / "site.json").write_text(json.dumps(site_facts, indent=2) + "\n")
        (building / "cohort.json").write_text(json.dumps(cohort_facts, indent=2) + "\n")
    return read_cohort(folder)


def read_cohort(folder: Path) -> Cohort:
    """Read cohort.json; raises ValueError when the folder holds no finished cohort."""
    facts = read_facts(
        folder / "cohort.json", f"partition.name: no cohort at {folder}; run python -m fl_rsna.partition first"
    )
    sites = sorted((name for name in facts["sites"] if name != TEST_SITE), key=site_number)
    return Cohort(
        folder=folder,
        name=facts["name"],
        task=facts["task"],
        labels=tuple(facts["labels"]),
        image=ImageKind(facts["image"]),
        size=facts["size"],
        sha256=facts["sha256"],
        sites=tuple(sites),
        facts=facts,
    )


def counts(table: pd.DataFrame, task: Task) -> dict[str, Any]:
    """Patients, slices and positive slices a label, by part (train, validation, test), of one site's table."""
    return {
        str(part): {
            "patients": int(rows[task.group_key].nunique()),
            "slices": len(rows),
            "positives": {label: int(rows[label].sum()) for label in task.labels},
        }
        for part, rows in table.groupby("split")
    }


def _site_table(index: pd.DataFrame, site: SitePatients, task: Task) -> pd.DataFrame:
    part_of = {patient: part for part in ("train", "validation", "test") for patient in getattr(site, part)}
    table = index[index[task.group_key].isin(list(part_of))].copy()
    table.insert(1, "split", table[task.group_key].map(part_of))
    return table.sort_values("image_id").reset_index(drop=True)


def _write_site(folder: Path, table: pd.DataFrame, images: Path) -> None:
    (folder / "images").mkdir(parents=True)
    table.to_csv(folder / "index.csv", index=False)
    for image_id in table["image_id"]:
        source, target = images / f"{image_id}.png", folder / "images" / f"{image_id}.png"
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise ValueError(
                f"expected {source}, which index.parquet names, got no such file; prepare the data again"
            ) from None
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)


def site_number(name: str) -> tuple[int, str]:
    """Sort key of site names: site-2 comes before site-10."""
    suffix = name.rpartition("-")[2]
    return (int(suffix) if suffix.isdigit() else 0, name)
