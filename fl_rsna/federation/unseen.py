"""A model that is given to a run must never have seen the test site's patients: what it says of them would be no test."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fl_rsna.cohort.ancestry import Link, chained, link_from, own_link, patients_sha256
from fl_rsna.cohort.sites import Cohort
from fl_rsna.cohort.took_part import Chain, Patients, before, chain_of, is_clear, seen_by
from fl_rsna.config import Config
from fl_rsna.learning.saved import facts_in
from fl_rsna.runs import ANCESTRY, MANIFEST, MODEL, RunFolder


def given_models(config: Config) -> dict[str, Path]:
    """The files of models that the words of a run name, by the word."""
    found = {
        "start": config.start,
        "sequence.encoder": config.sequence.encoder,
        "model.weights": config.model.weights,
    }
    paths = {word: Path(given) for word, given in found.items() if given is not None}
    return {word: path / MODEL if path.is_dir() else path for word, path in paths.items()}


def given_chains(config: Config) -> dict[str, Chain]:
    """What is known of the models that a run is given, by the word."""
    return {word: before(word, chain_of(facts_in(file), file)) for word, file in given_models(config).items()}


def check_unseen(config: Config, cohort: Cohort, test: pd.DataFrame, chains: dict[str, Chain]) -> list[str]:
    """Refuse a model that patients of the index `test` trained or helped to choose; return what nobody could find out.

    That is refused, too, unless config.allow_unknown_patients. A cohort of which a roll call has found that none of these
    patients is of it is taken: this very cohort, or another with the same test site.
    """
    unknown, files, key = [], given_models(config), "patient_id"
    patients = Patients(index=test, ids=cohort.ids, cohort_sha256=cohort.sha256)
    for word, chain in chains.items():
        links = tuple(link for link in chain.links if not is_clear(link, test[key], cohort.ids, cohort.sha256))
        seen = seen_by(patients, [replace(chain, links=links)])
        if seen.images:
            raise ValueError(
                f"{word}: expected a model that never saw the test site's patients, got {files[word]}: {seen.images} of their {len(test)} images "
                "are of patients who trained it or helped to choose it; take a model of this cohort, or deal as that one was dealt"
            )
        if seen.why:
            said = f"{word}: unknown whether {files[word]} saw the test site's patients ({'; '.join(seen.why)})"
            if not config.allow_unknown_patients:
                raise ValueError(f"{said}; give a model of which that is known, or say allow_unknown_patients=true")
            unknown.append(said)
    return unknown


def read_ancestry(run: RunFolder) -> tuple[Link, ...] | None:
    """The links that a run which goes on wrote down; None of one that begins."""
    if not (run.folder / ANCESTRY).exists():
        return None
    return tuple(link_from(said) for said in run.read_json(ANCESTRY)["links"])


def write_ancestry(
    run: RunFolder, cohort: Cohort, test: pd.DataFrame, chains: Sequence[Chain], *, compared: bool
) -> tuple[Link, ...]:
    """The links of a run's models, which it writes down; `compared` says that its roll call could compare patients."""
    told = compared and not cohort.facts.get("leaky", False)
    own = own_link(
        cohort.folder, cohort.sha256, cohort.ids, patients_sha256(test["patient_id"], cohort.ids) if told else None
    )
    links = chained(own, [link for chain in chains for link in chain.links])
    run.write_json(ANCESTRY, {"links": [link.to_json() for link in links]})
    manifest = run.read_json(MANIFEST)
    run.write_json(MANIFEST, {**manifest, "ancestry": [link.to_json(patients=False) for link in links]})
    return links
