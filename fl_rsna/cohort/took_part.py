"""Whose images had a part in the model of an earlier run: read from the cohorts it was made on, where they are at hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fl_rsna.cohort.index import read_facts

TRAIN, VALIDATION, NEITHER, TEST = "train", "validation", "neither", "test"


def run_of(file: Path) -> Path | None:
    """The folder of the run that a model file lies in, as its final model or below it; None for a file by itself."""
    return next((place for place in (file.parent, file.parent.parent) if (place / "config.yaml").is_file()), None)


def cohort_sha256_of(run: Path) -> str | None:
    found = facts_of(run / "manifest.json").get("cohort_sha256")
    return None if found is None else str(found)


def roles(index: pd.DataFrame, run: Path) -> pd.Series | None:
    """What each image of an index was to a run's model: train, validation or neither; None where nobody can tell.

    An image counts as its patient does: another one of a patient who trained the model is no new patient. Patients are
    compared by their ids as both indices have them, so hashed with the same salt, and by shared images. A run that began
    with the model of another counts with that one.
    """
    parts = [_took_part(each) for each in _with_those_before(run)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    part = pd.concat(known, ignore_index=True)
    by_image, by_patient = (part.groupby(key)["split"].min() for key in ("image_id", "patient_id"))  # train comes first
    own = index["image_id"].map(by_image).fillna(index["patient_id"].map(by_patient))
    of_patient = own.groupby(index["patient_id"]).transform("min")
    return of_patient.fillna(NEITHER)


def _with_those_before(run: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The run, and those whose models it began with or stands on."""
    if run.resolve() in seen:
        return
    yield run
    config = yaml.safe_load((run / "config.yaml").read_text()) or {}
    start = (facts_of(run / "manifest.json").get("start") or {}).get("file")
    for given in (start, (config.get("sequence") or {}).get("encoder")):
        before = None if given is None else _run_at(Path(given))
        if before is not None:
            yield from _with_those_before(before, seen | {run.resolve()})


def _run_at(given: Path) -> Path | None:
    return given if (given / "config.yaml").is_file() else run_of(given)


def _took_part(run: Path) -> pd.DataFrame | None:
    """image_id, patient_id and train or validation of every image of its training sites; None where one is not at hand."""
    folder = cohort_of(run)
    if folder is None:
        return None
    sites = facts_of(folder / "cohort.json").get("sites", {})
    paths = [folder / site / "index.csv" for site, parts in sites.items() if set(parts) != {TEST}]
    if not all(path.is_file() for path in paths):  # at a coordinator, whose sites keep theirs
        return None
    tables = [pd.read_csv(path, usecols=["image_id", "patient_id", "split"], dtype=str) for path in paths]
    everyone = pd.concat(tables, ignore_index=True)
    return everyone.assign(split=everyone["split"].where(everyone["split"] == TRAIN, VALIDATION))


def cohort_of(run: Path) -> Path | None:
    """The cohort a run was made on, where it is at hand: it counts only with the hash in the manifest."""
    manifest = facts_of(run / "manifest.json")
    named, sha256 = manifest.get("cohort"), manifest.get("cohort_sha256")
    if named is None or sha256 is None:
        return None
    places = [
        Path(named),
        *(above / named for above in run.absolute().parents[:4]),
    ]  # as typed then, and beside its runs
    return next((place for place in places if facts_of(place / "cohort.json").get("sha256") == sha256), None)


def facts_of(path: Path) -> dict[str, Any]:
    """A JSON file of a run or a cohort; empty where there is none."""
    return read_facts(path, "") if path.is_file() else {}
