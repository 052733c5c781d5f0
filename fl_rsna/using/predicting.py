"""What a run's final model says of a prepared set, by the code of evaluate: predicted/ and the submissions in the run's folder."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fl_rsna.choices import ImageKind
from fl_rsna.cohort.index import Prepared, read_prepared
from fl_rsna.cohort.inputs import SAMPLE, find_sample
from fl_rsna.cohort.prepared import read_rejected
from fl_rsna.cohort.whole import write_whole
from fl_rsna.command_end import RunFailed
from fl_rsna.config import Config
from fl_rsna.reporting.submission import check_class_submission, check_submission, left_out, rows_of
from fl_rsna.task import LabelKind, named_task
from fl_rsna.using.evaluate_words import EvaluateConfig, ScansConfig, WhereConfig
from fl_rsna.using.evaluation import evaluate
from fl_rsna.using.scans import Progress
from fl_rsna.using.shifted import has_lines
from fl_rsna.using.trained import trained_model

PREDICTED = "predicted"  # folder in the run's
SUBMISSIONS = "submission*.csv"


def check_predict(config: Config, image: ImageKind) -> None:
    """Refuse, before anything trains, a set that is not there or that the model could not read."""
    if config.predict is None:
        return
    prepared = _set_of(config)
    if prepared.image is not image:
        raise ValueError(
            f"predict: expected a set of {image} images, as the cohort's, got {prepared.image} in {prepared.folder}"
        )


def predict_set(config: Config, run: Path, progress: Progress) -> Path:
    """Write `run`/predicted and, beside the model, its submission.csv, and where the run knows how, safe and risky ones.

    What an earlier end of the same run predicted of the same set stays. Raises ValueError when anything else lies there,
    RunFailed when Kaggle would not take a submission; what is written then stays to be looked at.
    """
    out = run / PREDICTED
    if not os.path.lexists(out):
        evaluate(_asked(config, run, out), progress)
    elif not _is_of(out, run, _set_of(config)):
        raise ValueError(
            f"predict: expected no {out}, or what this model says of {config.predict}; move it away and say resume=true"
        )
    _copy_submissions(out, run)
    check_predicted(config, run)
    return out


def _asked(config: Config, run: Path, out: Path) -> EvaluateConfig:
    return EvaluateConfig(
        model=str(run),
        out=str(out),
        shift=has_lines(trained_model(str(run)).saved),
        seed=config.seed,
        data=ScansConfig(name=config.predict),
        prepare=config.prepare,
        train=WhereConfig(device=config.train.device),
        paths=config.paths,
    )


def _is_of(out: Path, run: Path, prepared: Prepared) -> bool:
    """Whether a folder is a whole evaluation of the run's model on these very images."""
    try:
        model = json.loads((out / "evaluation.json").read_text())["model"]["sha256"]
        images = pd.read_parquet(out / "predictions.parquet", columns=["image_id"])["image_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return model == trained_model(str(run)).saved.sha256 and set(images) == set(prepared.index["image_id"])


def _copy_submissions(out: Path, run: Path) -> None:
    """Beside the model. Raises ValueError, before any is copied, where another file has a name."""
    found = {run / path.name: path.read_bytes() for path in sorted(out.glob(SUBMISSIONS))}
    for path, content in found.items():
        if os.path.lexists(path) and (not path.is_file() or path.read_bytes() != content):
            raise ValueError(f"predict: expected no {path}, or what {out} holds; move it away and say resume=true")
    for path, content in found.items():
        write_whole(path, content)


def check_predicted(config: Config, run: Path) -> None:
    """Every image of the set has its rows once; and they are those of RSNA's sample, where data.dicom has one."""
    task, prepared = named_task(config.data.task), _set_of(config)
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
    rows, source = rows_of([*images, *left_out(rejects, images)], task), str(prepared.folder)
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
    return read_prepared(folder, named_task(config.data.task))
