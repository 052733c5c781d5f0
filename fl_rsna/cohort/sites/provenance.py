"""Whose images had a part in a model: none of these patients, N of them, or unknown and why.

Read from the cohorts it was made on, where they are at hand, and otherwise from what its file says of its ancestry.
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
    """An index to ask about: image_id, patient_id, and split where it is of a site of the cohort `cohort_sha256`."""

    index: pd.DataFrame
    ids: str | None
    cohort_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What each image was to a model: train, validation, neither or unknown; `why` says what nobody could find out."""

    roles: pd.Series
    why: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Images of patients who trained it, who helped to choose it, and the others: in neither part, or unknown."""
        others = UNKNOWN if self.why else NEITHER
        return {part: int((self.roles == part).sum()) for part in (TRAIN, VALIDATION, others)}

    @property
    def images(self) -> int:
        """Images of patients who had a part in it."""
        return int(self.roles.isin([TRAIN, VALIDATION]).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A model's links, and the cohorts of them that are at hand, by their hash."""

    links: tuple[Link, ...]
    at_hand: Mapping[str, Path]


def chain_of(facts: Mapping[str, Any] | None, file: Path) -> Chain:
    """The chain of a model from its file's facts, None of a file that is not ours, and from the runs that it lies in."""
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


def before(word: str, chain: Chain) -> Chain:
    """The chain as it goes on in a run that the word gave the model to."""
    return replace(chain, links=attribute_links(word, chain.links))


def find_image_roles(patients: Patients, chains: Sequence[Chain]) -> Seen:
    """What every image of an index was to a model, or to any of several.

    An image counts as its patient does: another one of a patient who trained the model is no new patient. Patients are
    compared by their ids, as texts, where both were made alike, and by shared images. A model that began with another
    counts with that one.
    """
    index, own = patients.index, pd.Series(np.nan, index=patients.index.index, dtype=object)
    reasons: dict[str, None] = {}
    for chain in chains:
        for link in chain.links:
            apart = _nobody(patients, link)
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
    """Whether a roll call has found that none of these patients of a test site is of the link's cohort."""
    if link.tested is not None:
        return link.tested == patients_sha256(patients, ids)
    return link.cohort_sha256 is not None and link.cohort_sha256 == cohort_sha256


def _nobody(patients: Patients, link: Link) -> NDArray[np.bool_]:
    """Which images have a placeholder for a patient that another cohort may have given to somebody else."""
    same = link.cohort_sha256 is not None and link.cohort_sha256 == patients.cohort_sha256
    return are_placeholders(patients.index) & (not same)


def _find_link_roles(
    patients: Patients, link: Link, cohort: Path | None, apart: NDArray[np.bool_]
) -> tuple[pd.Series, str]:
    """train, validation or missing for each image, and why that is not all; by the image alone where it is `apart`."""
    who = as_texts(patients.index["patient_id"]).mask(apart)
    index, own, why = patients.index, pd.Series(np.nan, index=patients.index.index, dtype=object), ""
    table = None if cohort is None else patients_at(cohort)
    if table is not None and cohort is not None:
        own, why = _by_table(patients, who, table, facts_of(cohort / "cohort.json").get("ids", link.ids))
    if link.train is not None and link.validation is not None and why_unlike(link.ids, patients.ids) is None:
        return own.fillna(_by_hashes(who, link, link.train, link.validation)), why
    if table is not None:
        return own, why
    if link.cohort_sha256 is not None and link.cohort_sha256 == patients.cohort_sha256 and "split" in index:
        return index["split"].where(index["split"].isin([TRAIN, VALIDATION])).astype(object), ""
    if link.tested is not None and link.tested == patients_sha256(index["patient_id"], patients.ids):
        return own, ""
    unlike = None if link.train is None else why_unlike(link.ids, patients.ids)
    return own, unlike or link.why or NOT_AT_HAND


def _by_hashes(who: pd.Series, link: Link, train: frozenset[str], validation: frozenset[str]) -> pd.Series:
    hashes = who.map(lambda id_: hash_id(id_, link.salt), na_action="ignore")
    none = pd.Series(np.nan, index=who.index, dtype=object)
    return none.mask(hashes.isin(validation), VALIDATION).mask(hashes.isin(train), TRAIN)


def _by_table(patients: Patients, who: pd.Series, table: pd.DataFrame, ids: str | None) -> tuple[pd.Series, str]:
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
    """The folder of the run that a model file lies in, as its final model or below it; None for a file by itself."""
    return next((place for place in (file.parent, file.parent.parent) if (place / "config.yaml").is_file()), None)


def cohort_sha256_of(run: Path) -> str | None:
    found = facts_of(run / "manifest.json").get("cohort_sha256")
    return None if found is None else str(found)


def _link_of(run: Path, by: str) -> Link:
    """The link of a run whose model file says nothing."""
    cohort = cohort_of(run)
    ids = None if cohort is None else facts_of(cohort / "cohort.json").get("ids")
    return Link(by=by, cohort_sha256=cohort_sha256_of(run), ids=ids, why=NOT_AT_HAND)


def _runs_of(run: Path, by: str, seen: frozenset[Path] = frozenset()) -> Iterator[tuple[Path | None, str]]:
    """The run, and those whose models it began with or stands on, with the words that named them; None is not at hand."""
    if run.resolve() in seen:
        return
    yield run, by
    config = read_yaml(run / "config.yaml")
    given = {
        "start": (facts_of(run / "manifest.json").get("start") or {}).get("file"),
        "sequence.encoder": (config.get("sequence") or {}).get("encoder"),
        "model.weights": (config.get("model") or {}).get("weights"),
    }
    for word, path in given.items():
        earlier = None if path is None else _run_at(Path(path))
        if earlier is not None:
            yield from _runs_of(earlier, word, seen | {run.resolve()})
        elif path is not None:
            yield None, word


def _run_at(given: Path) -> Path | None:
    return given if (given / "config.yaml").is_file() else run_of(given)


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
    return read_facts(path, "", by_hand=path.name == "cohort.json") if path.is_file() else {}
