"""Find which of given images had a part in a model: by training, by validation, not at all, or unknown and why.

This is read from the cohorts that the model was trained on, where their folders exist, else from the chain of links in its file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import hash_id, read_facts
from fl_rsna.cohort.prepared.patients import are_placeholders
from fl_rsna.cohort.sites.ancestry import (
    OWN,
    SILENT,
    TRAIN,
    VALIDATION,
    Link,
    attribute_links,
    links_from,
    patients_at,
    patients_sha256,
)
from fl_rsna.common.id_scheme import PLAIN, alike, as_texts, why_unlike
from fl_rsna.common.reading import read_yaml

NEITHER, UNKNOWN = "neither", "unknown"
NOT_AT_HAND = "its cohort is not at hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """The images to ask about: an index with image_id, patient_id, and split where it is of a site of the cohort `cohort_sha256`.

    `ids` names how the ids were made, None where that is not written down.
    """

    index: pd.DataFrame
    ids: str | None
    cohort_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The role of each image in a model: train, validation, neither or unknown; `why` has the reasons for unknown ones."""

    roles: pd.Series
    why: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Count the images of patients in training, in validation, and of the others: in neither, or unknown."""
        others = UNKNOWN if self.why else NEITHER
        return {part: int((self.roles == part).sum()) for part in (TRAIN, VALIDATION, others)}

    @property
    def images(self) -> int:
        """The number of images of patients in training or validation."""
        return int(self.roles.isin([TRAIN, VALIDATION]).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A model's links, and the folders of their cohorts that exist here, by the cohort's hash."""

    links: tuple[Link, ...]
    at_hand: Mapping[str, Path]


def chain_of(facts: Mapping[str, Any] | None, file: Path) -> Chain:
    """Read the chain of a model from its file's facts (None for another program's file) and from the run folders it lies in."""
    run = run_of(file)
    runs = [] if run is None else list(_runs_of(run, OWN))
    known = [(each, cohort_sha256_of(each), cohort_of(each)) for each, _ in runs if each is not None]
    cohorts = {sha256: cohort for _, sha256, cohort in known if sha256 is not None and cohort is not None}
    said = None if facts is None else links_from(facts)
    links = (
        said
        if said is not None
        else tuple(_link_of(each, by) if each else Link(by=by, why=SILENT) for each, by in runs)
    )
    return Chain(links=links or (Link(by=OWN, why=SILENT),), at_hand=cohorts)


def before(key: str, chain: Chain) -> Chain:
    """Rename the links of a chain for a run to which the setting `key` gave the model."""
    return replace(chain, links=attribute_links(key, chain.links))


def find_image_roles(patients: Patients, chains: Sequence[Chain]) -> Seen:
    """Find the role of every image of an index in a model, or in any of several.

    An image has the role of its patient: another image of a training patient is not new to the model. Patients are compared by their ids,
    as texts, where both were made in the same way, and by shared images. A model that started from another one includes that one's
    patients. A placeholder may be another patient in another cohort, so its images are compared by image alone.
    """
    index, own = patients.index, pd.Series(np.nan, index=patients.index.index, dtype=object)
    reasons: dict[str, None] = {}
    for chain in chains:
        for link in chain.links:
            same = link.cohort_sha256 is not None and link.cohort_sha256 == patients.cohort_sha256
            apart = are_placeholders(index) & (not same)
            found, why = _find_link_roles(patients, link, chain.at_hand.get(link.cohort_sha256 or ""), apart)
            if apart.any():
                nobody = f"{int(apart.sum())} images have a patient id that stands for nobody, such as ANONYMOUS"
                why = f"{why}; {nobody}" if why else nobody
            own = found.where(found == TRAIN, own.where(own.notna(), found))
            if why:
                reasons[why if link.by == OWN else f"{link.by}: {why}"] = None
    of_patient = own.groupby(as_texts(index["patient_id"])).transform("min")  # train comes first
    return Seen(roles=of_patient.fillna(UNKNOWN if reasons else NEITHER), why=tuple(reasons))


def is_clear(link: Link, patients: pd.Series, ids: str | None, cohort_sha256: str | None) -> bool:
    """Say whether a roll call found that none of these patients of a test site is in the link's cohort."""
    if link.tested is not None:
        return link.tested == patients_sha256(patients, ids)
    return link.cohort_sha256 is not None and link.cohort_sha256 == cohort_sha256


def _find_link_roles(
    patients: Patients, link: Link, cohort: Path | None, apart: NDArray[np.bool_]
) -> tuple[pd.Series, str]:
    """Find the role of each image in one link: train, validation or missing, and why some are unknown.

    Images that are `apart` are compared by image alone, not by patient.
    """
    who = as_texts(patients.index["patient_id"]).mask(apart)
    index, own, why = patients.index, pd.Series(np.nan, index=patients.index.index, dtype=object), ""
    table = None if cohort is None else patients_at(cohort)
    if table is not None and cohort is not None:
        own, why = _by_table(patients, who, table, facts_of(cohort / "cohort.json").get("ids", link.ids))
    if link.train is not None and link.validation is not None and why_unlike(link.ids, patients.ids) is None:
        hashes = who.map(lambda id_: hash_id(id_, link.salt), na_action="ignore")
        none = pd.Series(np.nan, index=who.index, dtype=object)
        by_hash: pd.Series = none.mask(hashes.isin(link.validation), VALIDATION).mask(hashes.isin(link.train), TRAIN)
        return own.fillna(by_hash), why
    if table is not None:
        return own, why
    if link.cohort_sha256 is not None and link.cohort_sha256 == patients.cohort_sha256 and "split" in index:
        return index["split"].where(index["split"].isin([TRAIN, VALIDATION])).astype(object), ""
    if link.tested is not None and link.tested == patients_sha256(index["patient_id"], patients.ids):
        return own, ""
    unlike = None if link.train is None else why_unlike(link.ids, patients.ids)
    return own, unlike or link.why or NOT_AT_HAND


def _by_table(patients: Patients, who: pd.Series, table: pd.DataFrame, ids: str | None) -> tuple[pd.Series, str]:
    """Find the role of each image by the table of a cohort's images, whose ids were made as `ids` says, and why some are unknown."""
    index = patients.index
    by_image, by_patient = (table.groupby(key)["split"].min() for key in ("image_id", "patient_id"))
    own = as_texts(index["image_id"]).map(by_image).astype(object)
    why = why_unlike(ids, patients.ids)
    if why:
        return own, why
    close = int(who[alike(who, table["patient_id"])].nunique()) if ids == PLAIN else 0
    why = f"{close} ids are those of patients who took part but for case, blanks or leading zeros" if close else ""
    return own.fillna(who.map(by_patient)), why


def run_of(file: Path) -> Path | None:
    """Find the run folder that a model file is in, as its final model or one folder below; None for a file outside of runs."""
    return next((place for place in (file.parent, file.parent.parent) if (place / "config.yaml").is_file()), None)


def cohort_sha256_of(run: Path) -> str | None:
    """Read the hash of a run's cohort from its manifest; None without one."""
    found = facts_of(run / "manifest.json").get("cohort_sha256")
    return None if found is None else str(found)


def _link_of(run: Path, by: str) -> Link:
    """Build the link of a run whose model file holds no chain."""
    cohort = cohort_of(run)
    ids = None if cohort is None else facts_of(cohort / "cohort.json").get("ids")
    return Link(by=by, cohort_sha256=cohort_sha256_of(run), ids=ids, why=NOT_AT_HAND)


def _runs_of(run: Path, by: str, seen: frozenset[Path] = frozenset()) -> Iterator[tuple[Path | None, str]]:
    """Yield the run and, recursively, the runs whose models it started from or builds on, each with the setting that named it.

    A run whose folder does not exist here is None.
    """
    if run.resolve() in seen:
        return
    yield run, by
    config = read_yaml(run / "config.yaml")
    given = {
        "start": (facts_of(run / "manifest.json").get("start") or {}).get("file"),
        "sequence.encoder": (config.get("sequence") or {}).get("encoder"),
        "model.weights": (config.get("model") or {}).get("weights"),
    }
    for key, path in given.items():
        earlier = None if path is None else _run_at(Path(path))
        if earlier is not None:
            yield from _runs_of(earlier, key, seen | {run.resolve()})
        elif path is not None:
            yield None, key


def _run_at(given: Path) -> Path | None:
    """Return the run folder that a setting names, itself or by a model file in it."""
    return given if (given / "config.yaml").is_file() else run_of(given)


def cohort_of(run: Path) -> Path | None:
    """Find the folder of a run's cohort; None where none with the hash of the manifest exists here."""
    manifest = facts_of(run / "manifest.json")
    named, sha256 = manifest.get("cohort"), manifest.get("cohort_sha256")
    if named is None or sha256 is None:
        return None
    above = run.absolute().parents[:4]
    places = [
        Path(named),
        *(folder / named for folder in above),
    ]  # the path as it was typed, and relative to the folders above the run
    return next((place for place in places if facts_of(place / "cohort.json").get("sha256") == sha256), None)


def facts_of(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run or cohort; empty where there is no such file."""
    return read_facts(path, "", by_hand=path.name == "cohort.json") if path.is_file() else {}
