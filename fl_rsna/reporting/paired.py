"""Runs on the same test slices, compared slice by slice: differences in AUROC with paired patient-bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.cohort.hashed import read_table
from fl_rsna.learning.classes import compare_macro_aurocs
from fl_rsna.learning.metrics import compare_aurocs
from fl_rsna.learning.predictions import labels_in, probabilities_in
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.reporting.provenance import flat
from fl_rsna.reporting.tables import RunRecord, area_of
from fl_rsna.runs import ALONE, COPY
from fl_rsna.task import MACRO


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finished run with its predictions, sorted by image; several tables where every site has a model of its own."""

    run: RunRecord
    tables: Sequence[pd.DataFrame]

    @property
    def baseline(self) -> str:
        return str(self.run.config["baseline"])

    def auroc(self, label: str) -> dict[str, Any]:
        """The run's AUROC, of MACRO the mean over classes; of sites alone the mean of their models', which has no interval."""
        if self.run.test_site is not None:
            return area_of(self.run.test_site, label)
        found = [area_of(of["test_site"], label) for of in (self.run.summary or {})["alone"].values()]
        values = [area["value"] for area in found if area["value"] is not None]
        return {**found[0], "value": float(np.mean(values)) if values else None, "low": None, "high": None}


def scored(run: RunRecord) -> Scored | None:
    """None for a run that is not finished or left no predictions."""
    if not run.finished:
        return None
    alone = sorted((run.folder / ALONE).glob("*/predictions.parquet"))
    paths = alone or [path for path in [run.folder / "predictions.parquet"] if path.exists()]
    tables = [read_table(path, COPY, hashed=False).sort_values("image_id", ignore_index=True) for path in paths]
    return Scored(run=run, tables=tables) if tables else None


def same_slices(one: Scored, other: Scored) -> bool:
    """Whether two runs were scored on the same images with the same labels."""
    mine, theirs = one.tables[0], other.tables[0]
    names = ["image_id", *(name for name in mine.columns if name.startswith("label_"))]
    return set(names) <= set(theirs.columns) and len(mine) == len(theirs) and bool(mine[names].equals(theirs[names]))


def difference(one: Scored, other: Scored, label: str) -> dict[str, Any]:
    """AUROC of `one` minus that of `other`: paired with an interval on the same slices, else only the number."""
    if not same_slices(one, other):
        ours, theirs = one.auroc(label), other.auroc(label)
        known = ours["value"] is not None and theirs["value"] is not None
        return {
            **ours,
            "value": ours["value"] - theirs["value"] if known else None,
            "low": None,
            "high": None,
            "paired": False,
        }
    table, task, seed = one.tables[0], one.run.task, derive_seed(0, "bootstrap", label)
    patients = table[task.group_key].to_numpy()
    if label == MACRO:
        scores, *references = (probabilities_in(of, task.labels) for of in (table, *other.tables))
        found = compare_macro_aurocs(labels_in(table, task.labels), scores, references, patients, seed=seed)
    else:
        own, *others = (probabilities_in(of, [label])[:, 0] for of in (table, *other.tables))
        found = compare_aurocs(labels_in(table, [label])[:, 0], own, others, patients, seed=seed)
    return {**asdict(found.difference), "paired": True}


def baseline_of(one: Scored, runs: Sequence[Scored], kind: str) -> Scored | None:
    """Of the runs with that baseline, on the same slices if there are such, the one whose settings are nearest to this run's."""
    found = [other for other in runs if other.baseline == kind and other is not one]
    near = [other for other in found if same_slices(one, other)] or found
    return min(near, key=lambda other: _apart(one.run.config, other.run.config), default=None)


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    mine, theirs = flat(one), flat(other)
    return sum(mine.get(name) != theirs.get(name) for name in mine.keys() | theirs.keys())
