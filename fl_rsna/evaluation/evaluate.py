"""Evaluate a saved model: score slices and write its predictions and scores to a folder.

A run with predict= scores a prepared set by the same code, and writes predicted/ and submissions to its own folder.
"""

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.cohort.prepared.index import Prepared, read_prepared
from fl_rsna.cohort.prepared.inputs import SAMPLE, find_sample
from fl_rsna.cohort.prepared.prepare import read_rejected
from fl_rsna.cohort.sites.ancestry import TRAIN, VALIDATION
from fl_rsna.cohort.sites.provenance import Seen, find_image_roles
from fl_rsna.common.atomic import build_whole, write_whole
from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.ownership import drop_folder
from fl_rsna.evaluation.inputs import Progress, Scored, score
from fl_rsna.evaluation.label_shift import (
    RISKY,
    SAFE,
    Lines,
    Readings,
    describe_readings,
    has_lines,
    lines_of,
    readings,
)
from fl_rsna.evaluation.load_model import Trained, as_json, read_named_model
from fl_rsna.evaluation.settings import EvaluateConfig, ScansConfig, WhereConfig, check_request
from fl_rsna.evaluation.worklist import write_worklist
from fl_rsna.federation.protocol.minimum_count import without_labels
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.learning.inference.blending import enforce_union
from fl_rsna.learning.inference.predict import exam_table
from fl_rsna.learning.inference.stacking import SavedStack
from fl_rsna.learning.metrics.operating_points import OperatingPoints, calibrate
from fl_rsna.learning.metrics.scorecard import ScorecardFigures, scorecard
from fl_rsna.learning.training.train import choose_device, settle_process
from fl_rsna.reporting.pages.submissions import (
    check_class_submission,
    check_submission,
    class_submission,
    find_unscored_ids,
    rows_of,
    submission,
)
from fl_rsna.reporting.record.wording import plural
from fl_rsna.run_folder.run_folder import default_run_name
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import LabelKind, Task, find_task

IDS = ["image_id", "patient_id", "study_id", "series_id", "rank"]
PREDICTED = "predicted"  # the folder in a run's folder
SUBMISSIONS = "submission*.csv"


def evaluate(asked: EvaluateConfig, progress: Progress) -> Path:
    """Score the slices with the model that `asked` names, and write a new folder, all of it or nothing; return the folder.

    predictions.parquet and .csv have a row a slice, exams.csv a row an exam, submission.csv Kaggle's format, rejected.csv the
    files that gave no slice, scorecard.json the scores where labels are known, evaluation.json what was done, and evaluation.html
    shows the exams.
    Raises ValueError for a request that cannot be met, RunFailed for a model that diverged.
    """
    check_request(asked)
    device = choose_device(asked.train.device)
    settle_process()
    trained = read_named_model(asked.model)
    lines = lines_of(trained.saved) if asked.shift else None
    out = Path(asked.out) if asked.out else Path("evaluations") / default_run_name()
    if os.path.lexists(out):
        raise ValueError(f"out: expected a new folder, got the existing {out}; choose another or delete it")
    with build_whole(out) as building:
        try:
            scored = score(asked, trained, device, building, progress)
        except FloatingPointError as error:
            raise RunFailed(str(error)) from None
        made = verdict(scored, trained, lines, asked.seed)
        write_evaluation(building, made)
        write_worklist(building, scored, [trained.saved], made.settings, asked.page, device, progress)
        drop_folder(building / "prepared")
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A model's predictions for slices, and all that is needed to write them; with two readings where shift=true asks for them."""

    scored: Scored
    task: Task
    settings: OperatingPoints | None
    model: dict[str, Any]  # the model's description in evaluation.json
    seen: Seen  # which patients trained the model or helped to choose it
    warnings: list[str]
    readings: Readings | None
    seed: int


def verdict(scored: Scored, trained: Trained, lines: Lines | None, seed: int) -> Verdict:
    """Collect one model's predictions with the thresholds and temperatures of its run, if the run has any."""
    task, chosen = trained.saved.task, trained.run_points
    settings = OperatingPoints.from_json(chosen) if chosen else None
    both, seen = None, find_image_roles(scored.whose, [trained.chain])
    if lines is not None:
        both = readings(scored.found, apply_temperatures(scored, task, settings), scored.index, lines, task, seed)
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
    """Write every file of an evaluation into `folder`."""
    scored, task, settings = made.scored, made.task, made.settings
    table = predictions(scored, task, settings)
    if made.readings is not None:
        both = {SAFE: made.readings.safe, RISKY: made.readings.risky}
        columns = {f"{name}_{label}": of[:, i] for name, of in both.items() for i, label in enumerate(task.labels)}
        table = pd.concat([table, pd.DataFrame(columns)], axis=1)
    table.to_parquet(folder / "predictions.parquet", index=False)
    table.to_csv(folder / "predictions.csv", index=False)
    exam_table(scored.index, scored.found, scored.labels, task).to_csv(folder / "exams.csv", index=False)
    submissions = {"submission": apply_temperatures(scored, task, settings)}
    if made.readings is not None:
        submissions |= {"submission_safe": made.readings.safe, "submission_risky": made.readings.risky}
    for name, values in submissions.items():
        rows, guessed = kaggle(scored, values, task)
        rows.to_csv(folder / f"{name}.csv", index=False, float_format="%.9g")
    scored.rejected.to_csv(folder / "rejected.csv", index=False)
    known = find_known_rows(scored)
    if len(known):
        (folder / "scorecard.json").write_bytes(as_json(card(scored, task, settings, made.seed)))
        for name, values in ((SAFE, made.readings.safe), (RISKY, made.readings.risky)) if made.readings else ():
            of = card(replace(scored, found=values), task, None, made.seed)
            (folder / f"scorecard_{name}.json").write_bytes(as_json(of))
    (folder / "evaluation.json").write_bytes(as_json(record(made, len(known), guessed)))


def find_known_rows(scored: Scored) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Find the positions of the slices whose labels are all known; labels that a site never annotates do not count."""
    if scored.labels is None:
        return np.flatnonzero([])
    known = ~np.isnan(scored.labels)
    return np.flatnonzero(known[:, known.any(axis=0)].all(axis=1) & known.any(axis=1))


def card(scored: Scored, task: Task, settings: OperatingPoints | None, seed: int) -> ScorecardFigures:
    """Score the slices that have labels, at the thresholds and temperatures of `settings`, which were chosen on other slices."""
    assert scored.labels is not None
    patients, exams = (scored.index[key].to_numpy(str) for key in (task.group_key, task.exam_key))
    found = scorecard(scored.labels, scored.found, patients, exams, task=task, settings=settings, seed=seed)
    unknown = [label for i, label in enumerate(task.labels) if np.isnan(scored.labels[:, i]).all()]
    return without_labels(found, unknown, task.headline) if unknown else found


def predictions(scored: Scored, task: Task, settings: OperatingPoints | None) -> pd.DataFrame:
    """Make the table of predictions, a row a slice: ids, label_<name> where known, probability_<name>.

    With the run's settings it also has calibrated_<name>, where the union label is no less likely than any other, and for the
    headline label <name>_at_<point>: whether the slice is positive at each operating point.
    """
    columns: dict[str, Any] = {}
    if scored.labels is not None:
        known = pd.DataFrame(scored.labels).astype("Int8")
        columns |= {f"label_{label}": known[i].to_numpy() for i, label in enumerate(task.labels)}
    columns |= {f"probability_{label}": scored.found[:, i] for i, label in enumerate(task.labels)}
    if settings is not None:
        after = enforce_union(apply_temperatures(scored, task, settings), task)
        columns |= {f"calibrated_{label}": after[:, i] for i, label in enumerate(task.labels)}
        headline = scored.found[:, task.labels.index(task.headline)]
        for point, threshold in settings.slice.get(task.headline, {}).items():
            if threshold is not None:
                columns[f"{task.headline}_at_{point}"] = headline >= threshold
    ids = scored.index[[name for name in IDS if name in scored.index]].reset_index(drop=True)
    return pd.concat([ids, pd.DataFrame(columns)], axis=1)


def apply_temperatures(
    scored: Scored, task: Task, settings: OperatingPoints | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the probabilities [N, L] at each label's temperature; a label without one, or all without settings, stay as they are."""
    if settings is None:
        return scored.found.astype(np.float64)
    temperatures = np.array([settings.temperatures.get(label) or 1.0 for label in task.labels])
    return calibrate(scored.found, temperatures, task.kind)


def kaggle(scored: Scored, found: np.ndarray[Any, np.dtype[np.float64]], task: Task) -> tuple[pd.DataFrame, list[str]]:
    """Make the rows of a submission from the probabilities `found` [N, L]; return them and the images whose rows are guesses.

    RSNA wants a row for every image of its test set, so a rejected image gets the mean over all others. A task of classes has rows
    by study, and a rejected image none.
    """
    if task.kind is LabelKind.multi_class:
        return class_submission(scored.index, found, task), []
    found, ids = enforce_union(found, task), list(scored.index["image_id"])
    guessed = find_unscored_ids(scored.rejected, ids)
    rows = np.concatenate([found, np.tile(found.mean(0), (len(guessed), 1))])
    return submission([*ids, *guessed], rows, task), guessed


def model_of(trained: Trained) -> dict[str, Any]:
    """Describe a model for evaluation.json."""
    saved = trained.saved
    return {
        "file": str(saved.path),
        "sha256": saved.sha256,
        "name": saved.config.name,
        "image": saved.image.value,
        "image_size": saved.config.image_size,
        "stacks": [fold.sha256 for fold in saved.folds] if isinstance(saved, SavedStack) else None,
        "run": None if trained.run is None else str(trained.run),
        "instead_of_personal_parts": trained.fallback,
        "prevalence": (saved.facts.get("prevalence") or {}).get("meant"),
    }


def record(made: Verdict, labelled: int, guessed: list[str]) -> dict[str, Any]:
    """Build the content of evaluation.json."""
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
        "seed": made.seed,
        "shift": describe_readings(made.readings, made.task) if made.readings else None,
        "seen_in_training": made.seen.counts(),
        "unknown_in_training": "; ".join(made.seen.why) or None,
        "warnings": made.warnings,
    }


def warnings_of(scored: Scored, trained: Trained) -> list[str]:
    """List what a reader of the scores must know of the model and of how the images fit it."""
    found, pictures = [trained.fallback] if trained.fallback else [], plural(trained.saved.task.picture)
    found += scored.label_notes
    found += [TRUTH_SHOWN] if trained.saved.config.crop.shows_truth else []
    size = scored.source.get("size")
    if size is not None and size != trained.png_size:
        found.append(f"{pictures} are stored at {size} pixels a side, the model was trained on {trained.png_size}")
    return found


def warnings_of_seen(seen: Seen, task: Task) -> list[str]:
    """Warn of patients who had a part in the model's training, and of those for whom this is not known."""
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


def check_predict(config: Config, image: ImageKind) -> None:
    """Raise ValueError when the set that predict= names is missing or has other images than the model reads."""
    if config.predict is None:
        return
    prepared = _set_of(config)
    if prepared.image is not image:
        raise ValueError(
            f"predict: expected a set of {image} images, as the cohort's, got {prepared.image} in {prepared.folder}"
        )


def predict_set(config: Config, run: Path, progress: Progress) -> Path:
    """Score the set of predict= into `run`/predicted, and copy its submissions beside the model; return that folder.

    Submissions of both readings are written where the model has Platt lines. Predictions of the same model for the same set are
    kept. Raises ValueError when anything else lies in the way, and RunFailed, with all files kept, when Kaggle would not take a
    submission.
    """
    out = run / PREDICTED
    if not os.path.lexists(out):
        asked = EvaluateConfig(
            model=str(run),
            out=str(out),
            shift=has_lines(read_named_model(str(run)).saved),
            seed=config.seed,
            data=ScansConfig(name=config.predict),
            prepare=config.prepare,
            train=WhereConfig(device=config.train.device),
            paths=config.paths,
        )
        evaluate(asked, progress)
    elif not _is_of(out, run, _set_of(config)):
        raise ValueError(
            f"predict: expected no {out}, or what this model says of {config.predict}; move it away and say resume=true"
        )
    _copy_submissions(out, run)
    check_predicted(config, run)
    return out


def _is_of(out: Path, run: Path, prepared: Prepared) -> bool:
    """Check whether a folder holds a whole evaluation of the run's model on these images."""
    try:
        model = json.loads((out / "evaluation.json").read_text())["model"]["sha256"]
        images = pd.read_parquet(out / "predictions.parquet", columns=["image_id"])["image_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return model == read_named_model(str(run)).saved.sha256 and set(images) == set(prepared.index["image_id"])


def _copy_submissions(out: Path, run: Path) -> None:
    """Copy the submissions beside the model. Raises ValueError, before any is copied, where another file has one of their names."""
    found = {run / path.name: path.read_bytes() for path in sorted(out.glob(SUBMISSIONS))}
    for path, content in found.items():
        if os.path.lexists(path) and (not path.is_file() or path.read_bytes() != content):
            raise ValueError(f"predict: expected no {path}, or what {out} holds; move it away and say resume=true")
    for path, content in found.items():
        write_whole(path, content)


def check_predicted(config: Config, run: Path) -> None:
    """Raise RunFailed unless each submission has the rows of every image exactly once, as in RSNA's sample where there is one."""
    task, prepared = find_task(config.data.task), _set_of(config)
    if task.kind is LabelKind.multi_class:
        _check_each(
            run,
            lambda table, path: check_class_submission(
                table, prepared.index, task, f"{path}, against {prepared.folder}"
            ),
        )
        return
    images = list(prepared.index["image_id"])
    rejects = read_rejected(prepared.folder)
    rows, source = rows_of([*images, *find_unscored_ids(rejects, images)], task), str(prepared.folder)
    sample = (
        find_sample(Path(config.data.dicom))
        if config.data.dicom and config.predict == f"{config.data.name}-test"
        else None
    )
    if sample is not None:
        rows, source = list(pd.read_csv(io.BytesIO(sample), usecols=["ID"])["ID"].astype(str)), SAMPLE
    _check_each(run, lambda table, path: check_submission(table, rows, f"{path}, against {source}"))


def _check_each(run: Path, check: Callable[[pd.DataFrame, Path], None]) -> None:
    for path in sorted(run.glob(SUBMISSIONS)):
        try:
            check(pd.read_csv(path), path)
        except ValueError as error:
            raise RunFailed(str(error)) from None


def _set_of(config: Config) -> Prepared:
    folder = Path(config.paths.prepared) / str(config.predict)
    if not (folder / "prepare.json").exists():
        raise ValueError(
            f"predict: expected a prepared set, got none at {folder}; prepare stage_2_test with its training data, as "
            "data.dicom=<Kaggle's zip or folder> does, or another set with python -m fl_rsna.prepare data.unlabelled=true"
        )
    return read_prepared(folder, find_task(config.data.task))
