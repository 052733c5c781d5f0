"""A model that is given to a run must never have seen the test site's patients: what it says of them would be no test."""

from pathlib import Path

import pandas as pd

from fl_rsna.cohort.sites import Cohort
from fl_rsna.cohort.took_part import NEITHER, cohort_sha256_of, roles, run_of
from fl_rsna.config import Config
from fl_rsna.runs import MODEL


def given_models(config: Config) -> dict[str, Path]:
    """The files of models that the words of a run name, by the word."""
    found = {
        "start": config.start,
        "sequence.encoder": config.sequence.encoder,
        "model.weights": config.model.weights,
    }
    paths = {word: Path(given) for word, given in found.items() if given is not None}
    return {word: path / MODEL if path.is_dir() else path for word, path in paths.items()}


def check_unseen(config: Config, cohort: Cohort, test: pd.DataFrame) -> list[str]:
    """Refuse a model that patients of the index `test` trained or helped to choose; return what nobody could find out.

    One made on this very cohort is taken: the roll call compares its patients with the test site's. Nothing is said of
    weights that are in no run, such as ImageNet's.
    """
    unknown = []
    for word, file in given_models(config).items():
        run = run_of(file)
        if run is not None and cohort_sha256_of(run) == cohort.sha256:
            continue
        found = None if run is None else roles(test, run)
        if found is None:
            if word != "model.weights" or run is not None:
                unknown.append(
                    f"{word}: nobody checked whether {file} saw the test site's patients: its cohort is not at hand"
                )
            continue
        seen = int((found != NEITHER).sum())
        if seen:
            raise ValueError(
                f"{word}: expected a model that never saw the test site's patients, got {file}: {seen} of their {len(test)} images are "
                "of patients who trained it or helped to choose it; take a model of this cohort, or deal as that one was dealt"
            )
    return unknown
