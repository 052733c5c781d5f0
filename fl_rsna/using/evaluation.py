"""The story of evaluate: a saved model, slices to score, and a folder of what it says about them."""

import os
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.cohort.ancestry import TRAIN, VALIDATION
from fl_rsna.cohort.took_part import Seen, seen_by
from fl_rsna.cohort.whole import built_whole
from fl_rsna.command_end import RunFailed
from fl_rsna.federation.shared_card import without_labels
from fl_rsna.learning.blend import bounded
from fl_rsna.learning.crop import TRUTH_SHOWN
from fl_rsna.learning.operating import OperatingPoints, calibrate
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.scorecard import scorecard
from fl_rsna.learning.scoring import exam_table
from fl_rsna.learning.stacked import SavedStack
from fl_rsna.learning.train import choose_device
from fl_rsna.ownership import drop_folder
from fl_rsna.reporting.submission import class_submission, left_out, submission
from fl_rsna.reporting.task_words import plural
from fl_rsna.runs import default_run_name
from fl_rsna.task import LabelKind, Task
from fl_rsna.using.evaluate_words import EvaluateConfig, check_words
from fl_rsna.using.scans import Progress, Scored, score
from fl_rsna.using.shifted import RISKY, SAFE, Lines, Readings, lines_of, readings, said_of
from fl_rsna.using.trained import Trained, as_json, trained_model

IDS = ["image_id", "patient_id", "study_id", "series_id", "rank"]


def evaluate(asked: EvaluateConfig, progress: Progress) -> Path:
    """Score what the words name with the model they name, into a new folder, whole or not at all.

    predictions.parquet and .csv: a row a slice; exams.csv: a row an exam; submission.csv: Kaggle's format;
    rejected.csv: files that gave no slice; scorecard.json: only with labels; evaluation.json: what was done.
    Raises ValueError for a request that cannot be met, RunFailed for a model that diverged.
    """
    check_words(asked)
    device = choose_device(asked.train.device)
    settle_process()
    trained = trained_model(asked.model)
    lines = lines_of(trained.saved) if asked.shift else None
    out = Path(asked.out) if asked.out else Path("evaluations") / default_run_name()
    if os.path.lexists(out):
        raise ValueError(f"out: expected a new folder, got the existing {out}; choose another or delete it")
    with built_whole(out) as building:
        try:
            scored = score(asked, trained, device, building, progress)
        except FloatingPointError as error:
            raise RunFailed(str(error)) from None
        drop_folder(building / "prepared")
        write_evaluation(building, verdict(scored, trained, lines, asked.seed))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a model says of slices, and all that is needed to write it down; two readings of it where they are asked for."""

    scored: Scored
    task: Task
    settings: OperatingPoints | None
    model: dict[str, Any]  # what it is, for evaluation.json
    seen: Seen  # what patients were to the model
    warnings: list[str]
    readings: Readings | None
    seed: int


def verdict(scored: Scored, trained: Trained, lines: Lines | None, seed: int) -> Verdict:
    """What one model says."""
    task, settings = trained.saved.task, operating_points(trained)
    both, seen = None, seen_by(scored.whose, [trained.chain])
    if lines is not None:
        both = readings(scored.found, calibrated(scored, task, settings), scored.index, lines, task, seed)
    return Verdict(
        scored=scored,
        task=task,
        settings=settings,
        model=model_of(trained),
        seen=seen,
        warnings=[*warnings_of(scored, trained), *warnings_of_seen(seen, task)],
        readings=both,
        seed=seed,
    )


def write_evaluation(folder: Path, made: Verdict) -> None:
    """Every file of an evaluation."""
    scored, task, settings = made.scored, made.task, made.settings
    table = predictions(scored, task, settings)
    if made.readings is not None:
        table = pd.concat([table, _read_columns(made.readings, task)], axis=1)
    table.to_parquet(folder / "predictions.parquet", index=False)
    table.to_csv(folder / "predictions.csv", index=False)
    exam_table(scored.index, scored.found, scored.labels, task).to_csv(folder / "exams.csv", index=False)
    submissions = {"submission": calibrated(scored, task, settings)}
    if made.readings is not None:
        submissions |= {"submission_safe": made.readings.safe, "submission_risky": made.readings.risky}
    for name, values in submissions.items():
        rows, guessed = kaggle(scored, values, task)
        rows.to_csv(folder / f"{name}.csv", index=False, float_format="%.9g")
    scored.rejected.to_csv(folder / "rejected.csv", index=False)
    known = known_rows(scored)
    if len(known):
        (folder / "scorecard.json").write_bytes(as_json(card(scored, task, settings, made.seed)))
        for name, values in ((SAFE, made.readings.safe), (RISKY, made.readings.risky)) if made.readings else ():
            of = card(replace(scored, found=values), task, None, made.seed)
            (folder / f"scorecard_{name}.json").write_bytes(as_json(of))
    (folder / "evaluation.json").write_bytes(as_json(record(made, len(known), guessed)))


def _read_columns(read: Readings, task: Task) -> pd.DataFrame:
    """safe_<label> and risky_<label>."""
    both = {SAFE: read.safe, RISKY: read.risky}
    return pd.DataFrame(
        {f"{name}_{label}": of[:, i] for name, of in both.items() for i, label in enumerate(task.labels)}
    )


def operating_points(trained: Trained) -> OperatingPoints | None:
    """Thresholds and temperatures that the run chose on its sites' validation parts; None without them."""
    chosen = trained.operating_points
    return OperatingPoints.from_json(chosen) if chosen else None


def known_rows(scored: Scored) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Positions of the slices whose labels are known, but for labels that a site does not annotate at all."""
    if scored.labels is None:
        return np.flatnonzero([])
    known = ~np.isnan(scored.labels)
    return np.flatnonzero(known[:, known.any(axis=0)].all(axis=1) & known.any(axis=1))


def card(scored: Scored, task: Task, settings: OperatingPoints | None, seed: int) -> dict[str, Any]:
    """The scorecard of what has labels, at thresholds and temperatures that were chosen elsewhere."""
    assert scored.labels is not None
    patients, exams = (scored.index[key].to_numpy(str) for key in (task.group_key, task.exam_key))
    found = scorecard(scored.labels, scored.found, patients, exams, task=task, settings=settings, seed=seed)
    unknown = [label for i, label in enumerate(task.labels) if np.isnan(scored.labels[:, i]).all()]
    return without_labels(found, unknown, task.headline) if unknown else found


def predictions(scored: Scored, task: Task, settings: OperatingPoints | None) -> pd.DataFrame:
    """A row a slice: ids, label_<name> where known, probability_<name>; with the run's settings also calibrated_<name>,

    of which the union label's is no less than any other, and, for the headline label, whether it is positive at each operating point.
    """
    columns: dict[str, Any] = {}
    if scored.labels is not None:
        known = pd.DataFrame(scored.labels).astype("Int8")
        columns |= {f"label_{label}": known[i].to_numpy() for i, label in enumerate(task.labels)}
    columns |= {f"probability_{label}": scored.found[:, i] for i, label in enumerate(task.labels)}
    if settings is not None:
        after = bounded(calibrated(scored, task, settings), task)
        columns |= {f"calibrated_{label}": after[:, i] for i, label in enumerate(task.labels)}
        headline = scored.found[:, task.labels.index(task.headline)]
        for point, threshold in settings.slice.get(task.headline, {}).items():
            if threshold is not None:
                columns[f"{task.headline}_at_{point}"] = headline >= threshold
    ids = scored.index[[name for name in IDS if name in scored.index]].reset_index(drop=True)
    return pd.concat([ids, pd.DataFrame(columns)], axis=1)


def calibrated(scored: Scored, task: Task, settings: OperatingPoints | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities [N, L] at each label's temperature; those without one, or all without settings, as they are."""
    if settings is None:
        return scored.found.astype(np.float64)
    temperatures = np.array([settings.temperatures.get(label) or 1.0 for label in task.labels])
    return calibrate(scored.found, temperatures, task.kind)


def kaggle(scored: Scored, found: np.ndarray[Any, np.dtype[np.float64]], task: Task) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a submission with the probabilities `found` [N, L]; and the images it guesses.

    RSNA wants a row for every image of its test set: one that was rejected gets the mean over those that were not. Of classes,
    which are a study's, a rejected image has no row.
    """
    if task.kind is LabelKind.multi_class:
        return class_submission(scored.index, found, task), []
    found, ids = bounded(found, task), list(scored.index["image_id"])
    guessed = left_out(scored.rejected, ids)
    rows = np.concatenate([found, np.tile(found.mean(0), (len(guessed), 1))])
    return submission([*ids, *guessed], rows, task), guessed


def model_of(trained: Trained) -> dict[str, Any]:
    """What a model is, for evaluation.json."""
    saved = trained.saved
    return {
        "file": str(saved.path),
        "sha256": saved.sha256,
        "name": saved.config.name.value,
        "image": saved.image.value,
        "image_size": saved.config.image_size,
        "stacks": [fold.sha256 for fold in saved.folds] if isinstance(saved, SavedStack) else None,
        "run": None if trained.run is None else str(trained.run),
        "instead_of_personal_parts": trained.fallback,
        "prevalence": (saved.facts.get("prevalence") or {}).get("meant"),
    }


def record(made: Verdict, labelled: int, guessed: list[str]) -> dict[str, Any]:
    """What evaluation.json holds."""
    scored, settings = made.scored, made.settings
    index = scored.index
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": made.model,
        "task": made.task.name,
        "headline": made.task.headline,
        "scored": scored.source,
        "slices": len(index),
        "exams": len(index[["patient_id", made.task.exam_key]].drop_duplicates()),
        "patients": int(index["patient_id"].nunique()),
        "labelled_slices": labelled,
        "rejected": dict(sorted(Counter(scored.rejected["reason"]).items())),
        "guessed_in_submission": guessed,
        "submission": "calibrated" if settings else "as the model says",
        "operating_points": settings.to_json() if settings else None,
        "shift": said_of(made.readings, made.task) if made.readings else None,
        "seen_in_training": made.seen.counts(),
        "unknown_in_training": "; ".join(made.seen.why) or None,
        "warnings": made.warnings,
    }


def warnings_of(scored: Scored, trained: Trained) -> list[str]:
    """What a reader of the numbers must know of the model, and of how the images fit it."""
    found, pictures = [trained.fallback] if trained.fallback else [], plural(trained.saved.task.picture)
    found += scored.label_words
    found += [TRUTH_SHOWN] if trained.saved.config.crop.shows_truth else []
    size = scored.source.get("size")
    if size is not None and size != trained.stored_size:
        found.append(f"{pictures} are stored at {size} pixels a side, the model was trained on {trained.stored_size}")
    return found


def warnings_of_seen(seen: Seen, task: Task) -> list[str]:
    """What a reader must know of whose images these are: known patients, or that nobody can tell."""
    found, counts, pictures = [], seen.counts(), plural(task.picture)
    if seen.images:
        found.append(
            f"{counts[TRAIN]} of these {pictures} are of patients who trained the model and {counts[VALIDATION]} of patients "
            "who helped to choose it: scores on them say nothing about new patients"
        )
    if seen.why:
        of = "the others" if seen.images else "any of these patients"
        found.append(
            f"unknown: nobody checked whether {of} had a part in the model's training, since {'; '.join(seen.why)}"
        )
    return found
