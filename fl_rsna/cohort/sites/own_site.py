"""Make a cohort without a partition step: every hospital makes its own site's folder from its own data, the coordinator the test site.

The hospitals agree on the cohort's name, the task with its labels, the kind and size of images, and that patients are not divided. The
cohort's sha256 is computed from this agreement and from no data, so each hospital computes it alone, and the roll call finds a site that
does not keep to it. The scheme of ids is recorded beside it, and the roll call compares it, too.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_rsna.cohort.partition.partitioners import group_column, rarest_labels, take_stratified
from fl_rsna.cohort.partition.split import SitePatients
from fl_rsna.cohort.partition.training_sites import MIN_PATIENTS
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.site_folders import (
    WHAT,
    Cohort,
    counts,
    read_cohort,
    read_site_ids,
    site_facts,
    site_tables,
    write_site,
    write_site_facts,
)
from fl_rsna.common.atomic import build_whole, write_whole
from fl_rsna.common.id_scheme import is_weak, unlike_places
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.settings.partition import SITE_NAME, TEST_SITE, UNANNOTATED, Group
from fl_rsna.task import Task, restrict_task

COHORT = "cohort.json"


def build_agreement(cohort: str, prepared: Prepared, task: Task) -> dict[str, Any]:
    """Build the agreement of the hospitals, with its sha256. Raises ValueError for a `cohort` that is no folder name."""
    _check_name("--cohort", cohort)
    values = (task.name, list(task.labels), prepared.image.value, prepared.size, Group.patient.value)
    what = {"name": cohort, **dict(zip(WHAT, values, strict=True)), "leaky": False}
    return {**what, "sha256": hashlib.sha256(json.dumps(what).encode()).hexdigest(), "ids": prepared.ids}


def write_own_site(
    folder: Path,
    prepared: Prepared,
    task: Task,
    site: str,
    *,
    validation: float,
    seed: int,
    unannotated: Sequence[str] = (),
    allow_unknown: bool = False,
) -> dict[str, Any]:
    """Write the folder `folder`/<site> with all patients of the prepared data. Returns the content of its site.json, and its counts.

    `validation` is the share of patients for validation. `unannotated` labels, which the prepared data lack, are learned from the other
    sites. The folder appears only when complete. Raises ValueError for a wrong name, a folder that exists, too few patients, a salt that
    can be guessed and, unless `allow_unknown`, ids made in another way than those of a site beside it.
    """
    _check_name("--site", site)
    _check_ids(folder, prepared, site, allow_unknown)
    if site == TEST_SITE:
        raise ValueError(
            f"--site: expected a hospital's name, got {TEST_SITE}; the coordinator says --hospitals instead"
        )
    known = restrict_task(task, unannotated)
    rarest = rarest_labels(_require_labels(prepared, known), known)
    if len(rarest) < MIN_PATIENTS:
        raise ValueError(
            f"--prepared: expected {MIN_PATIENTS} patients or more in {prepared.folder}, got {len(rarest)}; add data"
        )
    apart, train = take_stratified(rarest, validation, np.random.default_rng(seed))
    patients = SitePatients(name=site, train=tuple(train), validation=tuple(apart))
    return _write(folder, prepared, task, patients, unannotated)


def write_own_test_site(
    folder: Path,
    prepared: Prepared,
    task: Task,
    hospitals: Sequence[str],
    settings: dict[str, Any],
    *,
    allow_unknown: bool = False,
) -> Cohort:
    """Write `folder`/test-site with all patients of the coordinator's data, and cohort.json, which names the hospitals.

    Raises ValueError as `write_own_site` does, and where cohort.json exists already.
    """
    for name in hospitals:
        _check_name("--hospitals", name)
    if len({name.lower() for name in (*hospitals, TEST_SITE)}) <= len(hospitals):
        raise ValueError(f"--hospitals: expected each name once and none called {TEST_SITE}, got {' '.join(hospitals)}")
    if os.path.lexists(folder / COHORT):
        raise ValueError(f"{folder / COHORT}: expected no such file; choose another --cohort, or move it away")
    _check_ids(folder, prepared, TEST_SITE, allow_unknown)
    index = _require_labels(prepared, task)
    patients = SitePatients(name=TEST_SITE, test=tuple(sorted(index[task.group_key].unique())))
    held = _write(folder, prepared, task, patients)["counts"]
    facts = {
        **build_agreement(folder.name, prepared, task),
        "prepared": {"folder": prepared.folder.name, "index_sha256": prepared.index_sha256},
        "settings": settings,
        "sites": {**{name: {} for name in hospitals}, TEST_SITE: held},  # the roll call asks hospitals for their counts
        "disjoint": {"by": group_column(Group.patient, task), "shared_patients": {}, "patients": len(patients.test)},
    }
    write_whole(folder / COHORT, dump_hashed_json(facts))
    return read_cohort(folder)


def _write(
    folder: Path, prepared: Prepared, task: Task, patients: SitePatients, unannotated: Sequence[str] = ()
) -> dict[str, Any]:
    """Write the folder of one site. Returns the content of its site.json, and its counts."""
    facts, place = site_facts(patients.name, build_agreement(folder.name, prepared, task)), folder / patients.name
    facts |= {"noise": {UNANNOTATED: list(unannotated)}} if unannotated else {}
    if os.path.lexists(place):
        raise ValueError(f"{place}: expected no such folder; delete it to make it again")
    [table] = site_tables(prepared.index, [patients], group_column(Group.patient, task)).values()
    with build_whole(place) as building:
        write_site(building, table, prepared.folder / "images")
        write_site_facts(building, facts)
    return {**facts, "counts": counts(table, task)}


def _check_ids(folder: Path, prepared: Prepared, site: str, allow_unknown: bool) -> None:
    """Raise ValueError for a salt that can be guessed, and for ids that cannot be compared with those of the sites in the same folder."""
    if is_weak(prepared.ids):
        raise ValueError(
            f"--prepared: expected ids hashed under 128 random bits, got ids in {prepared.folder} whose data.salt can be guessed from its "
            "fingerprint; make a salt for all hospitals by python -m fl_rsna.salt and prepare again"
        )
    beside = [(path.parent.name, read_site_ids(path)) for path in sorted(folder.glob("*/site.json"))]
    written = [(name, ids) for name, ids in [*beside, (site, prepared.ids)] if ids is not None]
    unknown = unlike_places(written) if written else None
    if unknown is not None and not allow_unknown:
        raise ValueError(f"--prepared: {unknown}; prepare all with the same data.salt, or say --allow-unknown-patients")


def _require_labels(prepared: Prepared, task: Task) -> Any:
    """Return the index of prepared data. Raises ValueError when it lacks a label of the task."""
    missing = [label for label in task.labels if label not in prepared.index]
    if missing:
        raise ValueError(
            f"--prepared: expected labelled data, got {prepared.folder} without {', '.join(missing)}; prepare it with data.labels"
        )
    return prepared.index


def _check_name(option: str, name: str) -> None:
    """Raise ValueError for a name of a site or cohort that is no plain folder name; `option` is the option that gave it."""
    if not SITE_NAME.fullmatch(name):
        raise ValueError(f"{option}: expected letters, digits, blanks, dots and dashes, 60 at most, got {name!r}")
