"""Whose images a model had seen, as its file says it: a link a cohort, its own first, then those of every model it began with.

A link names its patients only by hashes under a public salt of its cohort's, and only where their ids were hashed under a secret
data.salt before: such a hash tells nothing to whoever lacks that salt. Of other ids it says why it names nobody.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.prepared.index import hash_id, read_facts
from fl_rsna.common.id_scheme import as_texts, is_secret
from fl_rsna.common.reading import read_csv
from fl_rsna.settings.partition import TEST_SITE

TRAIN, VALIDATION = "train", "validation"
OWN = "own"  # of the cohort that a model was trained on; other links are named by the word that gave them
AT_THE_SITES = "the sites kept their patients to themselves"
GUESSABLE = "ids that were not hashed under a random salt are not written into model files"
PUBLIC = "fl_rsna: patients of"  # and the cohort's hash: so that the same run gives the same file
SILENT = "the file does not say whose images trained it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One cohort of a chain: `train` and `validation` are patients' hashes under `salt`, None where `why` says why.

    `tested` stands for the patients of the test site of which the run's roll call found none at its sites.
    """

    by: str
    cohort_sha256: str | None = None
    ids: str | None = None
    tested: str | None = None
    salt: str = ""
    train: frozenset[str] | None = None
    validation: frozenset[str] | None = None
    why: str = ""

    def to_json(self, *, patients: bool = True) -> dict[str, Any]:
        """As plain values; without `patients` only how many."""

        def plain(hashes: frozenset[str] | None) -> Any:
            return None if hashes is None else sorted(hashes) if patients else len(hashes)

        parts = {TRAIN: plain(self.train), VALIDATION: plain(self.validation)}
        said = {"by": self.by, "cohort_sha256": self.cohort_sha256, "ids": self.ids, "tested": self.tested}
        return {**said, **({"salt": self.salt} if patients else {}), **parts, "why": self.why}


def link_from(said: Mapping[str, Any]) -> Link:
    """From what `to_json` gave with patients. Raises KeyError or TypeError for anything else."""
    hashes = {part: None if said[part] is None else frozenset(map(str, said[part])) for part in (TRAIN, VALIDATION)}
    texts = {name: None if said[name] is None else str(said[name]) for name in ("cohort_sha256", "ids", "tested")}
    return Link(
        by=str(said["by"]), salt=str(said["salt"]), train=hashes[TRAIN], validation=hashes[VALIDATION],
        why=str(said["why"]), **texts,
    )  # fmt: skip


def links_from(facts: Mapping[str, Any]) -> tuple[Link, ...] | None:
    """The chain that a model file's facts hold; None where they hold none that can be read."""
    said = facts.get("ancestry")
    try:
        return tuple(link_from(each) for each in said) if isinstance(said, list) and said else None
    except (KeyError, TypeError):
        return None


def own_link(cohort: Path, sha256: str, ids: str | None, tested: str | None) -> Link:
    """The link of a model trained on the cohort in a folder."""
    link = Link(by=OWN, cohort_sha256=sha256, ids=ids, tested=tested)
    table = patients_at(cohort)
    if table is None:
        return replace(link, why=AT_THE_SITES)
    if not is_secret(ids):
        return replace(link, why=GUESSABLE)
    salt = hashlib.sha256(f"{PUBLIC} {sha256}".encode()).hexdigest()[:16]
    train, validation = (frozenset(table.loc[table["split"] == part, "patient_id"]) for part in (TRAIN, VALIDATION))
    hashed = {
        part: frozenset(hash_id(id_, salt) for id_ in of) for part, of in ((TRAIN, train), (VALIDATION, validation))
    }
    return replace(link, salt=salt, train=hashed[TRAIN], validation=hashed[VALIDATION])


def attribute_links(by: str, links: Iterable[Link]) -> tuple[Link, ...]:
    """The chain of a model that the word `by` gave to a run."""
    return tuple(replace(link, by=by if link.by == OWN else f"{by}: {link.by}") for link in links)


def chain_links(own: Link, before: Sequence[Link]) -> tuple[Link, ...]:
    """A model's own link and those before it; one that says the same of the same patients goes."""
    known = own.train is not None
    return own, *(
        link
        for link in before
        if not (known and link.train is not None and link.cohort_sha256 == own.cohort_sha256 and link.ids == own.ids)
    )


def patients_sha256(patients: pd.Series, ids: str | None) -> str | None:
    """What stands for the patients of a test site; None where it is not written down how their ids were made."""
    if ids is None:
        return None
    return hashlib.sha256("\0".join([ids, *sorted(set(as_texts(patients)))]).encode()).hexdigest()


def patients_at(cohort: Path) -> pd.DataFrame | None:
    """image_id, patient_id and train or validation of every image of a cohort's training sites; None where one is not at hand."""
    facts = cohort / "cohort.json"
    sites = read_facts(facts, "", by_hand=True).get("sites", {}) if facts.is_file() else {}
    paths = [cohort / site / "index.csv" for site in sites if site != TEST_SITE]
    if not paths or not all(path.is_file() for path in paths):  # at a coordinator, whose sites keep theirs
        return None
    columns = ["image_id", "patient_id", "split"]
    tables = [read_csv(path, usecols=columns, dtype=str, keep_default_na=False) for path in paths]
    everyone = pd.concat(tables, ignore_index=True)
    return everyone.assign(split=everyone["split"].where(everyone["split"] == TRAIN, VALIDATION))
