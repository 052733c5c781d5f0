"""What a site says of its validation part so that all sites together choose: sums, of which none is of one slice."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.exams import aggregates, exam_probabilities, group_exams
from fl_rsna.learning.intervals import MIN_PATIENTS
from fl_rsna.learning.operating import (
    OperatingPoints,
    choose_points,
    choose_temperature,
    loss_by_temperature,
    score_counts,
)
from fl_rsna.learning.platt import Platt, fit_platt
from fl_rsna.task import LabelKind, Task

SLICE, LOSS = "slice", "loss_by_temperature"


def site_sums(
    labels: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    patients: NDArray[np.generic],
    series: NDArray[np.generic],
    task: Task,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Score counts of slices [N, L] and of exams by aggregate, and losses by temperature; those of sites add, key by key.

    `weights` [N, L] are what each label of each slice counts in the losses.
    """
    exams = group_exams(labels, patients, series, task.kind)
    of_exams = {
        how.value: score_counts(exams.labels, exam_probabilities(probabilities, exams, how))
        for how in aggregates(task.kind)
    }
    return {
        SLICE: score_counts(labels, probabilities),
        **of_exams,
        LOSS: loss_by_temperature(labels, probabilities, task, weights),
    }


def choose(sums: Mapping[str, NDArray[np.generic]], task: Task) -> OperatingPoints:
    """Thresholds and temperatures from the added sums of all sites."""
    exams = aggregates(task.kind)
    counts = {name: sums[name].astype(np.int64) for name in (SLICE, *exams)}
    return OperatingPoints(
        slice=choose_points(counts[SLICE], task.labels),
        exam={how.value: choose_points(counts[how], task.labels) for how in exams},
        temperatures=choose_temperature(sums[LOSS].astype(np.float64), task.labels, counts[SLICE]),
    )


def choose_platt(
    sums: Mapping[str, NDArray[np.generic]], task: Task, odds: NDArray[np.float64] | None = None
) -> dict[str, Platt | None]:
    """How each label's probabilities become honest, from the added sums; `odds` [2, L] weigh negatives and positives.

    None for a label of fewer than MIN_PATIENTS positive or negative exams: nobody knows how honest it is. None for classes,
    whose probabilities no line of one class changes.
    """
    plainest = aggregates(task.kind)[0]
    slices, exams = sums[SLICE].astype(np.int64), sums[plainest].astype(np.int64).sum(axis=2)
    enough = (exams.min(axis=1) >= MIN_PATIENTS) & (task.kind is LabelKind.multi_label)
    weights = np.ones((2, len(task.labels))) if odds is None else odds
    return {
        label: fit_platt(slices[i] * weights[:, i, None]) if enough[i] else None for i, label in enumerate(task.labels)
    }
