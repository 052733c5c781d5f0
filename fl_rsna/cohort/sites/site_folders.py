"""A cohort on disk: one self-contained folder a site, and cohort.json with its counts, hash and proof of disjointness."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import write_csv

from fl_rsna.cohort.partition.dealing import site_number
from fl_rsna.cohort.partition.partitioners import group_column
from fl_rsna.cohort.partition.split import PARTS, SitePatients, count_shared_ids, overlaps
from fl_rsna.cohort.prepared.index import Prepared, read_facts
from fl_rsna.cohort.sites.noise import SiteNoise, noise_record
from fl_rsna.cohort.sites.s0_layout import check_names, write_s0
from fl_rsna.common.atomic import build_whole, link_images, write_whole
from fl_rsna.common.hashes import table_sha256
from fl_rsna.common.reading import (
    build_damage_error,
    check_keys,
    dump_hashed_json,
    file_sha256,
    read_json,
    refuse_unreadable,
)
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE, Group, Layout
from fl_rsna.task import Task

ANEW = "copy the folder again, or partition again"
INDEX_SHA256 = "index_sha256"  # in site.json, of index.csv's bytes
KEYS = {"labels": list, "sites": dict, "size": int, "settings": dict, "disjoint": dict, "prepared": dict}
WHAT = ("task", "labels", "image", "size", "group")  # of a cohort, repeated in every site.json


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

    @property
    def ids(self) -> str | None:
        """How its patients' ids were made, by common/id_scheme.py; None where that is not written down."""
        said = self.facts.get("ids")
        return None if said is None else str(said)

    def site_folder(self, site: str) -> Path:
        return self.folder / site


def write_cohort(
    folder: Path,
    prepared: Prepared,
    sites: list[SitePatients],
    task: Task,
    settings: dict[str, Any],
    group: Group = Group.patient,
    noise: Mapping[str, SiteNoise] | None = None,
    layout: Layout = Layout.standard,
    unlabelled: pd.DataFrame | None = None,
) -> Cohort:
    """Write every site's index.csv and images (hard links where the file system allows) and, last, cohort.json.

    All or nothing: the folder appears under its name only when complete. `noise` of sites is recorded, and changes the
    cohort's hash but neither tables nor images. `unlabelled` is the index of slices without labels that the layout s0
    lists. Raises ValueError when the folder exists.
    """
    if os.path.lexists(folder):
        raise ValueError(
            f"partition.name: expected a new cohort folder, got the existing {folder}; delete it or choose another name"
        )
    if layout is Layout.s0:
        check_names(site.name for site in sites)
    in_two = overlaps(sites)
    assert not in_two, f"{group.plural} in two places: {in_two}"
    tables = site_tables(prepared.index, sites, group_column(group, task))
    facts = _cohort_facts(
        folder.name, prepared, sites, tables, task, settings, group, noise_record(noise or {}, tables)
    )
    with build_whole(folder) as building:
        for name, table in tables.items():
            write_site(building / name, table, prepared.folder / "images")
            write_site_facts(building / name, site_facts(name, facts))
        if layout is Layout.s0:
            write_s0(building, tables, prepared.index, unlabelled, task.labels)
        (building / "cohort.json").write_bytes(dump_hashed_json(facts))
    return read_cohort(folder)


def _cohort_facts(
    name: str,
    prepared: Prepared,
    sites: list[SitePatients],
    tables: dict[str, pd.DataFrame],
    task: Task,
    settings: dict[str, Any],
    group: Group,
    noise: dict[str, Any],
) -> dict[str, Any]:
    """What cohort.json holds."""
    noisy = {"noise": noise} if noise else {}
    what = dict(
        zip(WHAT, (task.name, list(task.labels), prepared.image.value, prepared.size, group.value), strict=True)
    )
    what["leaky"] = group is not Group.patient
    everyone = pd.concat([table.assign(site=site) for site, table in tables.items()])
    return {
        "name": name,
        **what,
        **noisy,
        "ids": prepared.ids,
        "prepared": {
            "folder": prepared.folder.name,
            "index_sha256": prepared.index_sha256,
            **_count_rejected(prepared.folder),
        },
        "settings": settings,
        "sites": {site: counts(table, task) for site, table in tables.items()},
        **_peculiarities(sites),
        "disjoint": _disjoint(everyone, task, group),
        "sha256": hashlib.sha256((json.dumps(what | noisy) + table_sha256(everyone)).encode()).hexdigest(),
    }


def site_facts(site: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What a site's site.json holds of its cohort's facts."""
    noise = facts.get("noise", {})
    return {
        "site": site,
        "cohort": facts["name"],
        "cohort_sha256": facts["sha256"],
        **{key: facts[key] for key in (*WHAT, "leaky")},
        "ids": facts.get("ids"),
        **({"noise": noise[site]} if site in noise else {}),
    }


def read_cohort(folder: Path) -> Cohort:
    """Read cohort.json; raises ValueError when the folder holds no finished cohort."""
    path = folder / "cohort.json"
    facts = read_facts(
        path, f"partition.name: no cohort at {folder}; run python -m fl_rsna.partition first", by_hand=True
    )
    check_keys(facts, path, {**dict.fromkeys(("name", "task", "image", "sha256"), str), **KEYS}, ANEW)
    with refuse_unreadable(path, "a cohort", ANEW):
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


def write_site_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a site's site.json, with the hash of its index.csv, which is there already."""
    said = {**facts, INDEX_SHA256: file_sha256(folder / "index.csv")}
    write_whole(folder / "site.json", dump_hashed_json(said))


def read_site_files(folder: Path, do: str = ANEW) -> tuple[dict[str, Any], bytes]:
    """A site's site.json and the bytes of its index.csv; raises ValueError when one is missing or cannot be read.

    One that is not as its hash says is a warning: people may change both by hand. A run that goes on refuses it.
    """
    for path in (folder / "site.json", folder / "index.csv"):
        if not path.is_file():
            raise ValueError(f"expected a site folder with site.json and index.csv, {path} is missing; {do}")
    path = folder / "index.csv"
    facts = read_json(
        folder / "site.json",
        f"{do}, unless it was changed on purpose",
        by_hand=True,
        keys={"site": str, "cohort_sha256": str, "task": str, "image": str, "labels": list},
    )
    with refuse_unreadable(path, "a CSV table", do):
        raw = path.read_bytes()
    if facts.get(INDEX_SHA256, hashed := hashlib.sha256(raw).hexdigest()) != hashed:
        warnings.warn(str(build_damage_error(path, f"{do}, unless it was changed on purpose")), stacklevel=2)
    return facts, raw


def cohort_files(cohort: Cohort) -> dict[str, str]:
    """Hashes of a cohort's tables and facts, as far as they are on this machine, by their places in its folder."""
    names = [
        "cohort.json",
        *(f"{site}/{name}" for site in (*cohort.sites, TEST_SITE) for name in ("site.json", "index.csv")),
    ]
    return {name: file_sha256(path) for name in names if (path := cohort.folder / name).is_file()}


def counts(table: pd.DataFrame, task: Task) -> dict[str, Any]:
    """Patients, slices and positive slices a label, by part (train, validation, test), of one site's table.

    None for a label that the site does not annotate. Where only some slices have a label, as in a pool of sites one of
    which does not annotate it, `known` says how many.
    """
    return {
        str(part): {
            "patients": int(rows[task.group_key].nunique()),
            "slices": len(rows),
            "positives": {label: _positives(rows, label) for label in task.labels},
            **_partly_known(rows, task),
        }
        for part, rows in table.groupby("split")
    }


def _positives(rows: pd.DataFrame, label: str) -> int | None:
    return int(rows[label].sum()) if label in rows and not rows[label].isna().all() else None


def _partly_known(rows: pd.DataFrame, task: Task) -> dict[str, dict[str, int]]:
    known = {label: int(rows[label].notna().sum()) for label in task.labels if label in rows}
    some = {label: count for label, count in known.items() if 0 < count < len(rows)}
    return {"known": some} if some else {}


def _peculiarities(sites: list[SitePatients]) -> dict[str, Any]:
    """What makes natural sites, what specialists lack, and how many patients none of them takes; only what there is."""
    made_of = {site.name: list(site.made_of) for site in sites if site.made_of}
    lacks = {site.name: list(site.lacks) for site in sites if site.lacks}
    unplaced = sum(len(site.unplaced) for site in sites)
    said = {"made_of": made_of, "lacks": lacks, "moved_to_test_site": unplaced}
    return {key: value for key, value in said.items() if value}


def _disjoint(everyone: pd.DataFrame, task: Task, group: Group) -> dict[str, Any]:
    """By what places were dealt, and how many patients any two of them share all the same."""
    by = {"by": group_column(group, task)}
    patients = everyone[task.group_key]
    if group is Group.patient:
        return {**by, "shared_patients": {}, "patients": patients.nunique()}
    places = everyone["site"] + "/" + everyone["split"]
    pairs = count_shared_ids({str(place): ids for place, ids in patients.groupby(places)})
    several = places.groupby(patients).nunique() > 1
    return {
        **by, "leaky": True, "shared_patients": pairs, "patients_in_two_places": int(several.sum()), "patients": len(several),
    }  # fmt: skip


def site_tables(index: pd.DataFrame, sites: list[SitePatients], key: str) -> dict[str, pd.DataFrame]:
    """The rows of each site, sorted by image, with the part each belongs to as the column `split`."""
    members = [getattr(site, part) for site in sites for part in PARTS]
    place_of = {id_: place for place, ids in enumerate(members) for id_ in ids}
    codes, ids = pd.factorize(index[key])
    places = np.array([place_of.get(id_, -1) for id_ in ids], dtype=np.int64)[codes]
    order = pc.sort_indices(pa.array(index["image_id"], pa.large_string())).to_numpy()
    order = order[np.argsort(places[order] // len(PARTS), kind="stable")]
    everyone, places = index.iloc[order], places[order]
    everyone.insert(1, "split", np.array(PARTS, dtype=object)[places % len(PARTS)])
    ends = np.searchsorted(places // len(PARTS), np.arange(len(sites) + 1))
    return {
        site.name: everyone.iloc[start:end].reset_index(drop=True)
        for site, start, end in zip(sites, ends, ends[1:], strict=False)
    }


def _count_rejected(folder: Path) -> dict[str, Any]:
    """Counts of the files that gave no slice, by reason, where prepare.json states them."""
    facts = folder / "prepare.json"
    return {"rejected": read_facts(facts, f"expected {facts}").get("rejected", {})} if facts.exists() else {}


def write_site(folder: Path, table: pd.DataFrame, images: Path) -> None:
    link_images(table["image_id"], images, folder / "images")
    write_csv(pa.Table.from_pandas(table, preserve_index=False), folder / "index.csv")  # floats to the last bit
