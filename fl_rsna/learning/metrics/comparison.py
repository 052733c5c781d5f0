"""Compare predictions on the same slices, paired over patients: losses of two models, and losses and AUROCs of the stages of a run."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.metrics.bootstrap import (
    RESAMPLES,
    Drawn,
    Estimate,
    Scale,
    by_patient,
    draw_patients,
    estimate,
    support,
    totals,
)
from fl_rsna.learning.metrics.figures import ComparedFigures, StageFigures
from fl_rsna.learning.metrics.metrics import slice_losses
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.task import Task

REFERENCE = "slice"  # the prediction that the others are compared with


def compare_losses(
    labels: NDArray[np.float32],
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    patients: NDArray[np.generic],
    *,
    task: Task,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate the task's log loss of probabilities `ours` [N, L] minus that of `theirs`; below 0 `ours` is better.

    Every resample draws the same patients for both.
    """
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    apart = slice_losses(labels, ours, task) - slice_losses(labels, theirs, task)
    sums = totals(drawn, by_patient(drawn, apart, np.ones(len(apart))))
    found = support(drawn, labels[:, task.labels.index(task.headline)])
    return estimate(sums[0] / sums[1], found, found.patients, Scale.difference)


def compare_stages(
    labels: NDArray[np.float32],
    found: Mapping[str, NDArray[np.floating]],
    patients: NDArray[np.generic],
    task: Task,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, ComparedFigures]:
    """Score predictions [N, L] by their names: weighted log loss, AUROC of each label, and the differences of both from `slice`.

    Every resample draws the same patients for all, so the differences are paired.
    """
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    scored = {name: _scores(labels, values, drawn, task) for name, values in found.items()}
    compared = dict[str, ComparedFigures]()
    for name, of in scored.items():
        own = _estimate_scores(labels, of, drawn, task, Scale.positive, Scale.share)
        compared[name] = {"log_loss": own["log_loss"], "auroc": own["auroc"]}
        if name != REFERENCE:
            apart = of - scored[REFERENCE]
            compared[name]["minus_slice"] = _estimate_scores(
                labels, apart, drawn, task, Scale.difference, Scale.difference
            )
    return compared


def _scores(labels: NDArray[np.float32], found: NDArray[np.floating], drawn: Drawn, task: Task) -> NDArray[np.float64]:
    """Compute the weighted log loss and each label's AUROC in every draw: [1 + L, 1 + R]."""
    loss, rows = totals(drawn, by_patient(drawn, slice_losses(labels, found, task), np.ones(len(labels))))
    return np.stack([loss / rows, *(rank(labels[:, i], found[:, i], drawn).auroc for i in range(len(task.labels)))])


def _estimate_scores(
    labels: NDArray[np.float32], values: NDArray[np.float64], drawn: Drawn, task: Task, of_loss: Scale, of_area: Scale
) -> StageFigures:
    headline = support(drawn, labels[:, task.labels.index(task.headline)])
    areas = {}
    for i, label in enumerate(task.labels):
        rests_on = support(drawn, labels[:, i])
        areas[label] = estimate(values[1 + i], rests_on, rests_on.fewest, of_area).to_json()
    return {"log_loss": estimate(values[0], headline, headline.patients, of_loss).to_json(), "auroc": areas}
