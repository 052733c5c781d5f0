"""Write and read a cohort on disk: a self-contained folder for each site, and cohort.json with counts, hash and proof of disjointness."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import write_csv

from fl_rsna.cohort.partition.partitioners import group_column
from fl_rsna.cohort.partition.split import PARTS, SitePatients, count_shared_ids, overlaps
from fl_rsna.cohort.partition.training_sites import site_number
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

COPY_AGAIN = "copy the folder again, or partition again"
INDEX_SHA256 = "index_sha256"  # key of the hash of index.csv in site.json
KEYS = {"labels": list, "sites": dict, "size": int, "settings": dict, "disjoint": dict, "prepared": dict}
WHAT = ("task", "labels", "image", "size", "group")  # facts of a cohort that every site.json repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A cohort as cohort.json describes it; `sites` are the training sites, sorted by number."""

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
        """The scheme by which the patients' ids were made (common/id_scheme.py); None where that is not written down."""
        said = self.facts.get("ids")
        return None if said is None else str(said)

    def site_folder(self, site: str) -> Path:
        """Return the folder of a site."""
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
    """Write every site's index.csv and images (hard links where the file system has them) and, last, cohort.json.

    The folder appears under its name only when complete. `noise`, the simulated errors of sites, is recorded and changes the cohort's
    hash, but neither tables nor images. `unlabelled` is the index of slices without labels, which the layout s0 lists. Raises ValueError
    when the folder exists.
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
    """Build the content of cohort.json."""
    noisy = {"noise": noise} if noise else {}
    what = dict(
        zip(WHAT, (task.name, list(task.labels), prepared.image.value, prepared.size, group.value), strict=True)
    )
    what["leaky"] = group is not Group.patient
    everyone = pd.concat([table.assign(site=site) for site, table in tables.items()])
    prepare = prepared.folder / "prepare.json"
    rejected = read_facts(prepare, f"expected {prepare}").get("rejected", {}) if prepare.exists() else None
    return {
        "name": name,
        **what,
        **noisy,
        "ids": prepared.ids,
        "prepared": {
            "folder": prepared.folder.name,
            "index_sha256": prepared.index_sha256,
            **({} if rejected is None else {"rejected": rejected}),
        },
        "settings": settings,
        "sites": {site: counts(table, task) for site, table in tables.items()},
        **_peculiarities(sites),
        "disjoint": _disjoint(everyone, task, group),
        "sha256": hashlib.sha256((json.dumps(what | noisy) + table_sha256(everyone)).encode()).hexdigest(),
    }


def site_facts(site: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Choose the facts of a cohort that a site's site.json holds."""
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
    """Read cohort.json. Raises ValueError when the folder holds no finished cohort."""
    path = folder / "cohort.json"
    facts = read_facts(
        path, f"partition.name: no cohort at {folder}; run python -m fl_rsna.partition first", by_hand=True
    )
    check_keys(facts, path, {**dict.fromkeys(("name", "task", "image", "sha256"), str), **KEYS}, COPY_AGAIN)
    with refuse_unreadable(path, "a cohort", COPY_AGAIN):
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
    """Write a site's site.json, with the hash of its index.csv, which must exist."""
    said = {**facts, INDEX_SHA256: file_sha256(folder / "index.csv")}
    write_whole(folder / "site.json", dump_hashed_json(said))


def read_site_ids(path: Path) -> str | None:
    """Read from a site's site.json how its ids were made; None where it does not say or does not exist."""
    ids = read_facts(path, "", by_hand=True).get("ids") if path.is_file() else None
    return None if ids is None else str(ids)


def read_site_files(folder: Path, do: str = COPY_AGAIN) -> tuple[dict[str, Any], bytes]:
    """Read a site's site.json, and the bytes of its index.csv. Raises ValueError when one is missing or cannot be read.

    A wrong hash is only a warning here, since people may change both files by hand. A run that is resumed refuses it.
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
    """Hash the tables and JSON files of a cohort that are on this machine, by their paths in its folder."""
    names = [
        "cohort.json",
        *(f"{site}/{name}" for site in (*cohort.sites, TEST_SITE) for name in ("site.json", "index.csv")),
    ]
    return {name: file_sha256(path) for name in names if (path := cohort.folder / name).is_file()}


class PartCounts(TypedDict):
    """Counts of one part (train, validation or test) of a site's data; None is withheld, or of a label the site does not annotate.

    `positives` holds positive slices by label. `known` holds, for labels that only some slices have, how many have them.
    """

    patients: int | None
    slices: int
    positives: dict[str, int | None]
    known: NotRequired[dict[str, int]]


def counts(table: pd.DataFrame, task: Task) -> dict[str, PartCounts]:
    """Count patients, slices and, by label, positive slices of each part of one site's table.

    A count is None for a label that the site does not annotate. Only some slices have a label in a pool of sites of which one does
    not annotate it: then `known` says how many.
    """
    found = dict[str, PartCounts]()
    for part, rows in table.groupby("split"):
        found[str(part)] = {
            "patients": int(rows[task.group_key].nunique()),
            "slices": len(rows),
            "positives": {label: _positives(rows, label) for label in task.labels},
        }
        known = {label: int(rows[label].notna().sum()) for label in task.labels if label in rows}
        some = {label: count for label, count in known.items() if 0 < count < len(rows)}
        if some:
            found[str(part)]["known"] = some
    return found


def _positives(rows: pd.DataFrame, label: str) -> int | None:
    return int(rows[label].sum()) if label in rows and not rows[label].isna().all() else None


def _peculiarities(sites: list[SitePatients]) -> dict[str, Any]:
    """Collect, where there are any: the headers that make sites, the labels that sites lack, and patients moved to the test site."""
    made_of = {site.name: list(site.made_of) for site in sites if site.made_of}
    lacks = {site.name: list(site.lacks) for site in sites if site.lacks}
    unplaced = sum(len(site.unplaced) for site in sites)
    said = {"made_of": made_of, "lacks": lacks, "moved_to_test_site": unplaced}
    return {key: value for key, value in said.items() if value}


def _disjoint(everyone: pd.DataFrame, task: Task, group: Group) -> dict[str, Any]:
    """Build the proof of disjointness: the column by which patients were assigned, and the patients that any two places share nevertheless."""
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
    """Divide the index into the tables of the sites, sorted by image, with the part of each row in the column `split`.

    `key` is the column by which they were assigned.
    """
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


def write_site(folder: Path, table: pd.DataFrame, images: Path) -> None:
    """Write a site's index.csv, and link its images from the folder `images`."""
    link_images(table["image_id"], images, folder / "images")
    write_csv(
        pa.Table.from_pandas(table, preserve_index=False), folder / "index.csv"
    )  # Arrow writes floats to the last bit
