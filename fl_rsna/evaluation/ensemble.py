"""Score the same slices by several models, and combine their logits by convex weights, label by label.

Weights are fitted on each model's predictions for the sites' validation slices, which a simulated site keeps in the run's site_memory.
Between real machines these predictions stay at the site, so the user states the weights.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.cohort.sites.provenance import find_image_roles
from fl_rsna.common.atomic import build_whole
from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.hashes import read_table
from fl_rsna.common.ownership import drop_folder
from fl_rsna.evaluation.evaluate import (
    Verdict,
    apply_temperatures,
    model_of,
    warnings_of,
    warnings_of_seen,
    write_evaluation,
)
from fl_rsna.evaluation.inputs import Progress, Scored, score
from fl_rsna.evaluation.label_shift import Lines, readings
from fl_rsna.evaluation.load_model import Trained, as_json, read_named_model
from fl_rsna.evaluation.settings import EnsembleConfig, EvaluateConfig, ScansConfig, as_evaluate, check_ensemble
from fl_rsna.evaluation.worklist import write_worklist
from fl_rsna.federation.site.scoring import final_predictions
from fl_rsna.learning.inference.ensemble_weights import combine_logits, convex_weights, out_of_fold, sums_at
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.metrics.operating_points import OperatingPoints, Platt, choose, choose_platt, site_sums
from fl_rsna.learning.metrics.saturation import finite_logits
from fl_rsna.learning.training.train import choose_device, settle_process
from fl_rsna.run_folder.run_folder import COPY, RunFolder, default_run_name
from fl_rsna.task import LabelKind, Task

INSTEAD = "say weights=equal, or state them as weights=[0.6,0.4]"
ENSEMBLE = "ensemble.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The validation slices of all sites, which every model scored: labels [N, L] and the models' logits [M, N, L]."""

    labels: NDArray[np.float32]
    logits: NDArray[np.float64]
    patients: NDArray[np.str_]
    series: NDArray[np.str_]


def read_members(named: Sequence[str]) -> list[Trained]:
    """Read the models; raises ValueError unless they differ and have one task of labels and one kind of images."""
    members = [read_named_model(name) for name in named]
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


def logits_of(member: Trained, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn a model's probabilities [N, L] into logits [N, L] at its run's temperatures; a label without one has 1."""
    chosen = member.run_points
    found = OperatingPoints.from_json(chosen).temperatures if chosen else {}
    return finite_logits(probabilities, np.array([found.get(label) or 1.0 for label in member.saved.task.labels]))


def read_validation(members: Sequence[Trained]) -> Remembered:
    """Read the predictions for the sites' validation slices that the models' runs kept.

    Raises ValueError when they are missing, or when the runs differ in their cohort or their validation slices.
    """
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
    """Check whether two tables hold the same slices with the same labels, whatever types their columns have."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Weights [L, M]; where they were fitted also the operating points and Platt lines of the combined probabilities."""

    weights: NDArray[np.float64]
    points: OperatingPoints | None
    lines: Lines
    fitted: dict[str, Any] | None  # log losses on the validation slices, for ensemble.json


def ensemble(asked: EnsembleConfig, progress: Progress) -> Path:
    """Score the slices that `asked` names with all models, and write a new folder: all that evaluate writes, and ensemble.json.

    Raises ValueError for a request that cannot be met, RunFailed for a model that diverged.
    """
    check_ensemble(asked)
    device = choose_device(asked.train.device)
    settle_process()
    members = read_members(asked.models)
    combination = combination_of(asked, members)
    out = Path(asked.out) if asked.out else Path("ensembles") / default_run_name()
    if os.path.lexists(out):
        raise ValueError(f"out: expected a new folder, got the existing {out}; choose another or delete it")
    with build_whole(out) as building:
        try:
            scored = [
                score(_again(as_evaluate(asked), number, building), member, device, building, progress)
                for number, member in enumerate(members)
            ]
        except FloatingPointError as error:
            raise RunFailed(str(error)) from None
        made = _verdict(members, scored, combination, asked)
        write_evaluation(building, made)
        record = {
            "models": [{"file": str(member.saved.path), "sha256": member.saved.sha256} for member in members],
            "weights": dict(zip(members[0].saved.task.labels, combination.weights.tolist(), strict=True)),
            "combined": "logits at each run's temperatures",
            "fitted_on_validation": combination.fitted,
        }
        (building / ENSEMBLE).write_bytes(as_json(record))
        models = [member.saved for member in members]
        write_worklist(building, made.scored, models, made.settings, asked.page, device, progress)
        drop_folder(building / "prepared")
    return out


def combination_of(asked: EnsembleConfig, members: list[Trained]) -> Combination:
    """Take the weights as stated, the same for every label, or fit them on the predictions that the sites kept. Raises ValueError."""
    task = members[0].saved.task
    if asked.weights is not None:
        if asked.shift:
            raise ValueError(
                "shift: expected weights that are fitted on validation images, which also say how honest the ensemble is, "
                f"got weights={asked.weights}; leave one of them out"
            )
        shares = asked.weights if isinstance(asked.weights, list) else [1 / len(members)] * len(members)
        weights = np.tile(np.array(shares, np.float64), (len(task.labels), 1))
        return Combination(weights=weights, points=None, lines={}, fitted=None)
    known = read_validation(members)
    combination = fit(known, task, asked.seed)
    if asked.shift and not any(combination.lines.values()):
        raise ValueError(
            "shift: expected enough positive and negative exams among the sites' validation images, got too few for any "
            "label; leave shift out"
        )
    return combination


def fit(known: Remembered, task: Task, seed: int) -> Combination:
    """Fit the convex weights of least log loss by label.

    Operating points and Platt lines come from out-of-fold predictions: their weights were fitted without the patient.
    """
    weights = convex_weights(
        lambda at: sums_at(known.labels, known.logits, at), models=len(known.logits), labels=len(task.labels)
    )
    honest = expit(out_of_fold(known.labels, known.logits, known.patients, seed=seed))
    sums = site_sums(known.labels, honest, known.patients, known.series, task)
    fitted = {
        "slices": len(known.labels),
        "patients": len(np.unique(known.patients)),
        "log_loss_of_each": [log_loss(known.labels, expit(one), task) for one in known.logits],
        "log_loss": log_loss(known.labels, expit(combine_logits(known.logits, weights)), task),
        "log_loss_cross_validated": log_loss(known.labels, honest, task),
    }
    lines: dict[str, Platt | None] = choose_platt(sums, task)
    return Combination(weights=weights, points=choose(sums, task), lines=lines, fitted=fitted)


def _again(asked: EvaluateConfig, number: int, building: Path) -> EvaluateConfig:
    """Have the second and later models score the slices that were prepared for the first."""
    if number == 0 or asked.data.dicom is None:
        return asked
    place = Path(asked.paths.prepared) / asked.data.name if asked.data.name else building / "prepared"
    paths = replace(asked.paths, prepared=str(place.parent))
    return replace(asked, data=ScansConfig(name=place.name), paths=paths)


def _verdict(members: list[Trained], scored: list[Scored], made: Combination, asked: EnsembleConfig) -> Verdict:
    first, task = scored[0], members[0].saved.task
    logits = np.stack([logits_of(member, one.found) for member, one in zip(members, scored, strict=True)])
    together = replace(first, found=expit(combine_logits(logits, made.weights)))
    both = None
    if asked.shift:
        after = apply_temperatures(together, task, made.points)
        both = readings(together.found, after, together.index, made.lines, task, asked.seed)
    seen = find_image_roles(first.whose, [member.chain for member in members])
    said = [line for member in members for line in warnings_of(first, member)] + warnings_of_seen(seen, task)
    return Verdict(
        scored=together,
        task=task,
        settings=made.points,
        model={"ensemble": [model_of(member) for member in members]},
        seen=seen,
        warnings=list(dict.fromkeys(said)),
        readings=both,
        seed=asked.seed,
    )
