"""What each stage is worth on the same slices: loss and AUROC of several predictions, and their paired differences."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.bootstrap import RESAMPLES, Drawn, by_patient, draw_patients, totals
from fl_rsna.learning.intervals import Scale, estimate, support
from fl_rsna.learning.metrics import slice_losses
from fl_rsna.learning.ranking import rank
from fl_rsna.task import Task

REFERENCE = "slice"  # what the others are held against


def compare_stages(
    labels: NDArray[np.float32],
    found: Mapping[str, NDArray[np.floating]],
    patients: NDArray[np.generic],
    task: Task,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Plain values by the name of a prediction [N, L]: weighted log loss, AUROC a label, and both minus those of `slice`.

    Every resample draws the same patients for all, so the differences are paired.
    """
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    scored = {name: _scores(labels, values, drawn, task) for name, values in found.items()}
    reference = scored[REFERENCE]
    return {
        name: {
            **_told(labels, of, drawn, task, Scale.positive, Scale.share),
            **({} if name == REFERENCE else {"minus_slice": _told(labels, of - reference, drawn, task, *[Scale.difference] * 2)}),
        }
        for name, of in scored.items()
    }  # fmt: skip


def _scores(labels: NDArray[np.float32], found: NDArray[np.floating], drawn: Drawn, task: Task) -> NDArray[np.float64]:
    """In every draw [1 + L, 1 + R]: the weighted log loss, and the AUROC of each label."""
    loss, rows = totals(drawn, by_patient(drawn, slice_losses(labels, found, task), np.ones(len(labels))))
    return np.stack([loss / rows, *(rank(labels[:, i], found[:, i], drawn).auroc for i in range(len(task.labels)))])


def _told(
    labels: NDArray[np.float32], values: NDArray[np.float64], drawn: Drawn, task: Task, of_loss: Scale, of_area: Scale
) -> dict[str, Any]:
    headline = support(drawn, labels[:, task.labels.index(task.headline)])
    areas = {}
    for i, label in enumerate(task.labels):
        rests_on = support(drawn, labels[:, i])
        areas[label] = asdict(estimate(values[1 + i], rests_on, rests_on.fewest, of_area))
    return {"log_loss": asdict(estimate(values[0], headline, headline.patients, of_loss)), "auroc": areas}
