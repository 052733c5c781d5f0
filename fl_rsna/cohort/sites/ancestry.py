"""Record whose images a model was trained on, in its file: a link for each cohort, its own first, then those of every model it started from.

A link holds its patients only as hashes under a public salt of its cohort, and only where their ids were hashed under a secret data.salt
before: such a hash tells nothing to anybody without that salt. For other ids the link holds no patients, and says why.
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
OWN = "own"  # name of the link of the model's own cohort; other links have the name of the setting that gave the model
AT_THE_SITES = "the sites kept their patients to themselves"
GUESSABLE = "ids that were not hashed under a random salt are not written into model files"
PUBLIC = "fl_rsna: patients of"  # hashed with the cohort's hash to a salt, so that the same run gives the same file
SILENT = "the file does not say whose images trained it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One cohort of a chain. `train` and `validation` are patients' hashes under `salt`; where they are None, `why` says why.

    `tested` is the hash of the patients of a test site: the roll call of the run found none of them at its sites.
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
        """Convert the link to plain values. Without `patients` the hashes are replaced by their numbers."""

        def plain(hashes: frozenset[str] | None) -> Any:
            return None if hashes is None else sorted(hashes) if patients else len(hashes)

        parts = {TRAIN: plain(self.train), VALIDATION: plain(self.validation)}
        said = {"by": self.by, "cohort_sha256": self.cohort_sha256, "ids": self.ids, "tested": self.tested}
        return {**said, **({"salt": self.salt} if patients else {}), **parts, "why": self.why}


def link_from(said: Mapping[str, Any]) -> Link:
    """Build a link from the values of `to_json` with patients. Raises KeyError or TypeError for anything else."""
    hashes = {part: None if said[part] is None else frozenset(map(str, said[part])) for part in (TRAIN, VALIDATION)}
    texts = {name: None if said[name] is None else str(said[name]) for name in ("cohort_sha256", "ids", "tested")}
    return Link(
        by=str(said["by"]), salt=str(said["salt"]), train=hashes[TRAIN], validation=hashes[VALIDATION],
        why=str(said["why"]), **texts,
    )  # fmt: skip


def links_from(facts: Mapping[str, Any]) -> tuple[Link, ...] | None:
    """Read the chain in a model file's facts; None where there is none that can be read."""
    said = facts.get("ancestry")
    try:
        return tuple(link_from(each) for each in said) if isinstance(said, list) and said else None
    except (KeyError, TypeError):
        return None


def own_link(cohort: Path, sha256: str, ids: str | None, tested: str | None) -> Link:
    """Build the link of a model that is trained on the cohort in the folder `cohort`."""
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
    """Rename the chain of a model that the setting `by` gave to a run."""
    return tuple(replace(link, by=by if link.by == OWN else f"{by}: {link.by}") for link in links)


def chain_links(own: Link, before: Sequence[Link]) -> tuple[Link, ...]:
    """Join a model's own link and those before it, without earlier links that hold the same patients of the same cohort."""
    known = own.train is not None
    return own, *(
        link
        for link in before
        if not (known and link.train is not None and link.cohort_sha256 == own.cohort_sha256 and link.ids == own.ids)
    )


def patients_sha256(patients: pd.Series, ids: str | None) -> str | None:
    """Hash the patients of a test site; None where it is not written down how their ids were made."""
    if ids is None:
        return None
    return hashlib.sha256("\0".join([ids, *sorted(set(as_texts(patients)))]).encode()).hexdigest()


def patients_at(cohort: Path) -> pd.DataFrame | None:
    """Read image_id, patient_id and split (train or validation) of every image of a cohort's training sites.

    Returns None where the folder of a site is missing.
    """
    facts = cohort / "cohort.json"
    sites = read_facts(facts, "", by_hand=True).get("sites", {}) if facts.is_file() else {}
    paths = [cohort / site / "index.csv" for site in sites if site != TEST_SITE]
    if not paths or not all(path.is_file() for path in paths):  # as at a coordinator, whose sites keep their tables
        return None
    columns = ["image_id", "patient_id", "split"]
    tables = [read_csv(path, usecols=columns, dtype=str, keep_default_na=False) for path in paths]
    everyone = pd.concat(tables, ignore_index=True)
    return everyone.assign(split=everyone["split"].where(everyone["split"] == TRAIN, VALIDATION))
