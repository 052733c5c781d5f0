"""Whether one model's log loss is below another's on the same slices: the difference, paired over patients."""

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.bootstrap import RESAMPLES, by_patient, draw_patients, totals
from fl_rsna.learning.intervals import Estimate, Scale, estimate, support
from fl_rsna.learning.metrics import slice_losses
from fl_rsna.task import Task


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
    """The task's log loss of probabilities `ours` [N, L] minus that of `theirs`: below 0 is better.

    Every resample draws the same patients for both.
    """
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    apart = slice_losses(labels, ours, task) - slice_losses(labels, theirs, task)
    sums = totals(drawn, by_patient(drawn, apart, np.ones(len(apart))))
    found = support(drawn, labels[:, task.labels.index(task.headline)])
    return estimate(sums[0] / sums[1], found, found.patients, Scale.difference)
