"""Federated, pooled and alone under one budget and one seed, and the gaps between them on the same test slices."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.choices import Baseline
from fl_rsna.cohort.hashed import read_table
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.effects import Asked, without_effect
from fl_rsna.federation.baselines import matrix_entry
from fl_rsna.federation.site_scoring import final_predictions, read_final
from fl_rsna.learning.classes import compare_macro_aurocs
from fl_rsna.learning.metrics import compare_aurocs
from fl_rsna.learning.predictions import labels_in, probabilities_in
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.ownership import held, take_back
from fl_rsna.run_end import end_of_parts
from fl_rsna.runner import run_federation
from fl_rsna.runs import ALONE, COPY, PREDICTIONS, TABLES, Listener, RunFolder, kind_of, read_summary, take_folder
from fl_rsna.task import MACRO, LabelKind, Task, named_task

PARTS = {"federated": Baseline.none, "central": Baseline.central, "local": Baseline.local}
GLOBAL = "federated"  # the row of the global model in the matrix of models and sites


def run_gap(
    config: Config,
    cohort: Cohort,
    folder: Path,
    listeners: tuple[Listener, ...],
    without: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run all three into folders below `folder`, each resumable, and write summary.json with the gaps; returns it.

    All start from the same model, take as many passes over the same training slices, and are scored on the same test
    patients. Steps differ: a site alone takes its own, the pool the sum of all sites', one after the other. `without` are
    the settings without effect in any of the three, of which the first says so.
    """
    named = without_effect(Asked(config=config, image=cohort.image)) if without is None else without
    with held(folder), end_of_parts(folder, config):
        made = take_folder(folder, (kind_of(config),), resume=config.resume)
        try:
            for name, baseline in PARTS.items():
                part = copy.deepcopy(config)
                part.baseline = baseline
                part.resume = config.resume and (folder / name).exists()
                run_federation(part, cohort, folder / name, listeners, named if baseline is Baseline.none else {})
        except ValueError:
            if made is not None:
                take_back(folder, made, ())
            raise
        summary = _summary(folder, config)
        RunFolder(folder).write_json("summary.json", summary)
        return summary


def _summary(folder: Path, config: Config) -> dict[str, Any]:
    """That of the federation, with the gaps."""
    task = named_task(config.data.task)
    found = {name: [_predictions(path) for path in _model_folders(folder / name)] for name in PARTS}
    federated = read_summary(folder / "federated")
    against = {name: _gap(found["federated"][0], found[name], task, config.seed) for name in ("central", "local")}
    local = read_summary(folder / "local")
    matrix = {**local["matrix"], GLOBAL: {site: matrix_entry(card) for site, card in federated["sites"].items()}}
    joining = _joining(folder, federated, local, task, config.seed)
    federated.pop(TABLES, None)  # it is of that part's folder
    return {**federated, "baseline": Baseline.gap.value, "gap": against, "matrix": matrix, "joining": joining}


def _joining(
    folder: Path, federated: dict[str, Any], local: dict[str, Any], task: Task, seed: int
) -> dict[str, dict[str, Any]]:
    """What each site gains or loses by joining: the global model against its own, paired over its own validation patients.

    Read from what the simulated sites remember; between real machines each would compare by itself.
    """

    def remembered(part: str, site: str, run_id: str) -> Path:
        return final_predictions(RunFolder(folder / part).site_memory / site, run_id)

    found = {}
    for site, alone in local["alone"].items():
        paths = [
            remembered("federated", site, federated.get("run_id", "")),
            remembered("local", site, alone.get("run_id", "")),
        ]
        if all(path.exists() for path in paths):
            ours, own = (read_final(path, site) for path in paths)
            found[site] = _gap(ours, [own], task, derive_seed(seed, "joining", site))
    return found


def _gap(ours: pd.DataFrame, theirs: list[pd.DataFrame], task: Task, seed: int) -> dict[str, Any]:
    """By label: AUROC of the first minus and over the reference's, which is the mean over several models' AUROC; of classes also of their mean."""
    patients = ours[task.group_key].to_numpy()
    by_label = {
        label: asdict(
            compare_aurocs(
                np.nan_to_num(labels_in(ours, [label])[:, 0]),  # at a site that does not annotate it: no positives
                probabilities_in(ours, [label])[:, 0],
                [probabilities_in(table, [label])[:, 0] for table in theirs],
                patients,
                seed=derive_seed(seed, "bootstrap", label),
            )
        )
        for label in task.labels
    }
    if task.kind is not LabelKind.multi_class:
        return by_label
    truth, seed = labels_in(ours, task.labels), derive_seed(seed, "bootstrap", MACRO)
    scores, *others = (probabilities_in(table, task.labels) for table in (ours, *theirs))
    return {MACRO: asdict(compare_macro_aurocs(truth, scores, others, patients, seed=seed)), **by_label}


def _model_folders(part: Path) -> list[Path]:
    alone = sorted((part / ALONE).glob("*"))
    return alone or [part]


def _predictions(folder: Path) -> pd.DataFrame:
    return read_table(folder / PREDICTIONS, COPY)
