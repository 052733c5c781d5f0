"""The story of ensemble: several models score the same slices, and their logits are combined at convex weights by label."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.cohort.took_part import seen_by
from fl_rsna.cohort.whole import built_whole
from fl_rsna.command_end import RunFailed
from fl_rsna.learning.convex import combined, convex_weights, out_of_fold, sums_at
from fl_rsna.learning.metrics import log_loss
from fl_rsna.learning.operating import OperatingPoints
from fl_rsna.learning.platt import Platt
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.train import choose_device
from fl_rsna.learning.validation import choose, choose_platt, site_sums
from fl_rsna.ownership import drop_folder
from fl_rsna.runs import default_run_name
from fl_rsna.task import Task
from fl_rsna.using.ensemble_words import EnsembleConfig, as_evaluate, check_ensemble
from fl_rsna.using.evaluate_words import EvaluateConfig, ScansConfig
from fl_rsna.using.evaluation import Verdict, calibrated, model_of, warnings_of, warnings_of_seen, write_evaluation
from fl_rsna.using.members import Remembered, logits_of, plain_weights, read_members, remembered, weights_stated
from fl_rsna.using.scans import Progress, Scored, score
from fl_rsna.using.shifted import Lines, readings
from fl_rsna.using.trained import Trained, as_json

ENSEMBLE = "ensemble.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Weights [L, M], and where they were fitted also operating points and lines of the combined probabilities."""

    weights: NDArray[np.float64]
    points: OperatingPoints | None
    lines: Lines
    fitted: dict[str, Any] | None  # log losses on the validation slices, for ensemble.json


def ensemble(asked: EnsembleConfig, progress: Progress) -> Path:
    """Score what the words name with all models, into a new folder as evaluate writes it, and ensemble.json beside.

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
    with built_whole(out) as building:
        try:
            scored = [
                score(_again(as_evaluate(asked), number, building), member, device, building, progress)
                for number, member in enumerate(members)
            ]
        except FloatingPointError as error:
            raise RunFailed(str(error)) from None
        drop_folder(building / "prepared")
        write_evaluation(building, _verdict(members, scored, combination, asked))
        (building / ENSEMBLE).write_bytes(as_json(_record(members, combination)))
    return out


def combination_of(asked: EnsembleConfig, members: list[Trained]) -> Combination:
    """As stated, or fitted on what the sites remember."""
    task = members[0].saved.task
    if asked.weights is not None:
        if asked.shift:
            raise ValueError(
                "shift: expected weights that are fitted on validation images, which also say how honest the ensemble is, "
                f"got weights={asked.weights}; leave one of them out"
            )
        return Combination(
            weights=weights_stated(asked.weights, len(members), task), points=None, lines={}, fitted=None
        )
    known = remembered(members)
    combination = fit(known, task, asked.seed)
    if asked.shift and not any(combination.lines.values()):
        raise ValueError(
            "shift: expected enough positive and negative exams among the sites' validation images, got too few for any "
            "label; leave shift out"
        )
    return combination


def fit(known: Remembered, task: Task, seed: int) -> Combination:
    """Convex weights of least log loss; operating points and lines from predictions by weights fitted without the patient."""
    weights = convex_weights(
        lambda at: sums_at(known.labels, known.logits, at), models=len(known.logits), labels=len(task.labels)
    )
    honest = expit(out_of_fold(known.labels, known.logits, known.patients, seed=seed))
    sums = site_sums(known.labels, honest, known.patients, known.series, task)
    fitted = {
        "slices": len(known.labels),
        "patients": len(np.unique(known.patients)),
        "log_loss_of_each": [log_loss(known.labels, expit(one), task) for one in known.logits],
        "log_loss": log_loss(known.labels, expit(combined(known.logits, weights)), task),
        "log_loss_cross_validated": log_loss(known.labels, honest, task),
    }
    lines: dict[str, Platt | None] = choose_platt(sums, task)
    return Combination(weights=weights, points=choose(sums, task), lines=lines, fitted=fitted)


def _again(asked: EvaluateConfig, number: int, building: Path) -> EvaluateConfig:
    """What the second and later models are asked: the slices that were prepared for the first."""
    if number == 0 or asked.data.dicom is None:
        return asked
    place = Path(asked.paths.prepared) / asked.data.name if asked.data.name else building / "prepared"
    paths = replace(asked.paths, prepared=str(place.parent))
    return replace(asked, data=ScansConfig(name=place.name), paths=paths)


def _verdict(members: list[Trained], scored: list[Scored], made: Combination, asked: EnsembleConfig) -> Verdict:
    first, task = scored[0], members[0].saved.task
    logits = np.stack([logits_of(member, one.found) for member, one in zip(members, scored, strict=True)])
    together = replace(first, found=expit(combined(logits, made.weights)))
    both = None
    if asked.shift:
        after = calibrated(together, task, made.points)
        both = readings(together.found, after, together.index, made.lines, task, asked.seed)
    seen = seen_by(first.whose, [member.chain for member in members])
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


def _record(members: list[Trained], made: Combination) -> dict[str, Any]:
    """What ensemble.json holds."""
    return {
        "models": [{"file": str(member.saved.path), "sha256": member.saved.sha256} for member in members],
        "weights": plain_weights(members[0].saved.task.labels, made.weights),
        "combined": "logits at each run's temperatures",
        "fitted_on_validation": made.fitted,
    }
