"""What a run's final model says of a prepared set, by the code of evaluate: predicted/ and the submissions in the run's folder."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fl_rsna.cohort.index import Prepared, read_prepared
from fl_rsna.cohort.inputs import SAMPLE, find_sample
from fl_rsna.command import RunFailed
from fl_rsna.config import Config
from fl_rsna.imaging.store import ImageKind
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

    Raises RunFailed when Kaggle would not take one of them; what is written then stays to be looked at.
    """
    out = run / PREDICTED
    shutil.rmtree(out, ignore_errors=True)  # of an earlier end of the same run
    asked = EvaluateConfig(
        model=str(run),
        out=str(out),
        shift=has_lines(trained_model(str(run)).saved),
        seed=config.seed,
        data=ScansConfig(name=config.predict),
        prepare=config.prepare,
        train=WhereConfig(device=config.train.device),
        paths=config.paths,
    )
    evaluate(asked, progress)
    for path in sorted(out.glob(SUBMISSIONS)):
        shutil.copyfile(path, run / path.name)
    check_predicted(config, run)
    return out


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
    rejects = pd.read_csv(prepared.folder / "rejected.csv", dtype=str, keep_default_na=False)
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
