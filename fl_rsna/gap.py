"""Federated, pooled and alone under one budget and one seed, and the gaps between them on the same test slices."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.choices import Baseline
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.federation.baselines import ALONE
from fl_rsna.learning.metrics import compare_aurocs
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.runner import run_federation
from fl_rsna.runs import Listener, RunFolder
from fl_rsna.task import Task, named_task

PARTS = {"federated": Baseline.none, "central": Baseline.central, "local": Baseline.local}


def run_gap(config: Config, cohort: Cohort, folder: Path, listeners: tuple[Listener, ...]) -> dict[str, Any]:
    """Run all three into folders below `folder`, each resumable, and write summary.json with the gaps; returns it.

    All start from the same model, take as many passes over the same training slices, and are scored on the same test
    patients. Steps differ: a site alone takes its own, the pool the sum of all sites', one after the other.
    """
    for name, baseline in PARTS.items():
        part = copy.deepcopy(config)
        part.baseline = baseline
        part.resume = config.resume and (folder / name).exists()
        run_federation(part, cohort, folder / name, listeners)
    task = named_task(config.data.task)
    found = {name: [_predictions(path) for path in _model_folders(folder / name)] for name in PARTS}
    federated = json.loads((folder / "federated" / "summary.json").read_text())
    against = {name: _gap(found["federated"][0], found[name], task, config.seed) for name in ("central", "local")}
    summary = {**federated, "baseline": Baseline.gap.value, "gap": against}
    RunFolder(folder).write_json("summary.json", summary)
    return summary


def _gap(ours: pd.DataFrame, theirs: list[pd.DataFrame], task: Task, seed: int) -> dict[str, Any]:
    """By label: AUROC federated minus and over the reference's, which is the mean over several models' AUROC."""
    patients = ours[task.group_key].to_numpy()
    return {
        label: asdict(
            compare_aurocs(
                ours[f"label_{label}"].to_numpy(np.float32),
                _column(ours, label),
                [_column(table, label) for table in theirs],
                patients,
                seed=derive_seed(seed, "bootstrap", label),
            )
        )
        for label in task.labels
    }


def _column(table: pd.DataFrame, label: str) -> NDArray[np.float32]:
    return table[f"probability_{label}"].to_numpy(np.float32)


def _model_folders(part: Path) -> list[Path]:
    alone = sorted((part / ALONE).glob("*"))
    return alone or [part]


def _predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")
