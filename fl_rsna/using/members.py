"""The models of an ensemble, and what they said of the sites' validation slices where that is at hand.

A simulated site keeps what the final model said of its validation slices in the run's site_memory. Between real machines it
stays at the site, and weights are stated, not fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.hashed import read_table
from fl_rsna.federation.site_scoring import final_predictions
from fl_rsna.learning.operating import OperatingPoints
from fl_rsna.learning.predictions import labels_in, probabilities_in
from fl_rsna.learning.saturated import finite_logits
from fl_rsna.runs import COPY, RunFolder
from fl_rsna.task import LabelKind, Task
from fl_rsna.using.trained import Trained, trained_model

INSTEAD = "say weights=equal, or state them as weights=[0.6,0.4]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Validation slices of all sites that every model was asked about: labels [N, L], the models' logits [M, N, L]."""

    labels: NDArray[np.float32]
    logits: NDArray[np.float64]
    patients: NDArray[np.str_]
    series: NDArray[np.str_]


def read_members(words: Sequence[str]) -> list[Trained]:
    """The models, of one task of labels and one kind of images; raises ValueError for others."""
    members = [trained_model(word) for word in words]
    first = members[0].saved
    if first.task.kind is LabelKind.multi_class:
        raise ValueError(f"models: expected models of a task of labels, got one of classes in {first.path}")
    for member in members[1:]:
        saved = member.saved
        for what, one, other in (
            ("task", first.task.name, saved.task.name),
            ("images", first.image.value, saved.image.value),
        ):
            if one != other:
                raise ValueError(
                    f"models: expected models of one {what}, got {one} in {first.path} and {other} in {saved.path}"
                )
        if saved.sha256 == first.sha256:
            raise ValueError(
                f"models: expected different models, got the same weights in {first.path} and {saved.path}"
            )
    return members


def temperatures_of(member: Trained) -> NDArray[np.float64]:
    """The run's temperature of each label [L], 1 where it has none."""
    chosen = member.operating_points
    found = OperatingPoints.from_json(chosen).temperatures if chosen else {}
    return np.array([found.get(label) or 1.0 for label in member.saved.task.labels])


def logits_of(member: Trained, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits [N, L] of what a model says, at its run's temperatures."""
    return finite_logits(probabilities, temperatures_of(member))


def remembered(members: Sequence[Trained]) -> Remembered:
    """What the models' runs remember of the sites' validation slices; raises ValueError when that cannot be compared."""
    cohorts = {member.manifest.get("cohort_sha256") for member in members}
    if None in cohorts or len(cohorts) > 1:
        raise ValueError(f"models: weights cannot be fitted, since the runs are not of one cohort; {INSTEAD}")
    tables = [_of_run(member) for member in members]
    task = members[0].saved.task
    first = tables[0]
    for member, table in zip(members, tables, strict=True):
        if not same_slices(first, table, task):
            raise ValueError(
                f"models: weights cannot be fitted, since {member.run} was validated on other images than {members[0].run}; "
                f"{INSTEAD}"
            )
    return Remembered(
        labels=labels_in(first, task.labels),
        logits=np.stack([logits_of(m, probabilities_in(t, task.labels)) for m, t in zip(members, tables, strict=True)]),
        patients=first[task.group_key].to_numpy(str),
        series=first[task.exam_key].to_numpy(str),
    )


def same_slices(one: pd.DataFrame, other: pd.DataFrame, task: Task) -> bool:
    """Whether two tables hold the same slices with the same labels, whatever types their columns have."""
    if not np.array_equal(one["image_id"].to_numpy(str), other["image_id"].to_numpy(str)):
        return False
    return np.array_equal(labels_in(one, task.labels), labels_in(other, task.labels), equal_nan=True)


def _of_run(member: Trained) -> pd.DataFrame:
    run_id = member.summary.get("run_id")
    found = list[Path]()
    if member.run is not None and run_id:
        sites = sorted(RunFolder(member.run).site_memory.glob("*"))
        found = [path for site in sites if (path := final_predictions(site, str(run_id))).exists()]
    if not found:
        raise ValueError(
            f"models: weights cannot be fitted, since what the sites' validation images got is not at hand for {member.saved.path}: "
            f"it is kept by simulated sites beside the final model; {INSTEAD}"
        )
    tables = [
        read_table(path, COPY, {"run_id": str(run_id)}, hashed=False).assign(site=path.parents[1].name)
        for path in found
    ]
    return pd.concat(tables).sort_values(["site", "image_id"], ignore_index=True)


def plain_weights(labels: Sequence[str], weights: NDArray[np.float64]) -> dict[str, list[float]]:
    """Label -> a share for each model, as JSON has it."""
    return {label: [float(share) for share in weights[i]] for i, label in enumerate(labels)}


def weights_stated(said: Any, models: int, task: Task) -> NDArray[np.float64]:
    """Weights [L, M] as a user states them, the same for every label."""
    shares = np.array(said if isinstance(said, list) else [1 / models] * models, np.float64)
    return np.tile(shares, (len(task.labels), 1))
