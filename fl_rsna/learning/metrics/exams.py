"""Group slices into exams: a series or a study is one exam, and it is positive when any of its slices is.

An exam without a positive slice is negative only where every slice is known to be negative; otherwise its label is unknown, NaN. All
code that scores, counts or lists exams takes their labels from here.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_rsna.task import LabelKind


class Aggregate(StrEnum):
    """The ways to make an exam's probability from those of its slices."""

    max = "max"  # of all slices: assumes that slices show the same finding, so that more slices are no more evidence
    noisy_or = "noisy_or"  # 1 - prod(1 - p): assumes independent errors; neighbours' are not, so it is overconfident
    mean = "mean"  # over all slices: for classes that exclude each other, whose means still add up to 1


def aggregates(kind: LabelKind) -> tuple[Aggregate, ...]:
    """Return the aggregates that are defined for such labels, the simplest first."""
    match kind:
        case LabelKind.multi_label:
            return Aggregate.max, Aggregate.noisy_or
        case LabelKind.multi_class:
            return (Aggregate.mean,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exams:
    """E exams of N slices: the exam of each slice [N], and each exam's labels [E, L] and patient [E]."""

    member: NDArray[np.int64]
    labels: NDArray[np.float32]
    patients: NDArray[np.generic]


def group_exams(
    labels: NDArray[np.float32],
    patients: NDArray[np.generic],
    series: NDArray[np.generic],
    kind: LabelKind = LabelKind.multi_label,
) -> Exams:
    """Group slices with labels [N, L] into exams by their series or study; one name used by two patients is two exams.

    A label of a slice or an exam is NaN where it is unknown. A known class rules out the others, so an exam's label of classes is
    unknown only where no class is known.
    """
    patient_names, patient_of = np.unique(patients, return_inverse=True)
    series_names, series_of = np.unique(series, return_inverse=True)
    keys, member = np.unique(patient_of * len(series_names) + series_of, return_inverse=True)
    order, starts = _group_by_exam(member)
    return Exams(
        member=member,
        labels=_of_exams(labels[order], starts, kind),
        patients=patient_names[keys // len(series_names)],
    )


def _of_exams(labels: NDArray[np.float32], starts: NDArray[np.intp], kind: LabelKind) -> NDArray[np.float32]:
    """Make labels of exams [E, L] from those of slices [N, L] in the order of their exams; `starts` [E] is each exam's first slice."""
    unknown = np.isnan(labels)
    positive = np.logical_or.reduceat(labels > 0, starts, axis=0)
    open_ = np.logical_or.reduceat(unknown, starts, axis=0) & ~positive
    if kind is LabelKind.multi_class:
        open_ &= ~positive.any(axis=1, keepdims=True)
    return np.where(open_, np.nan, positive).astype(np.float32)


def exam_probabilities(probabilities: NDArray[np.floating], exams: Exams, aggregate: Aggregate) -> NDArray[np.float64]:
    """Compute probabilities of exams [E, L] from those of their slices [N, L].

    The max takes the most suspicious slice, whatever the number of slices. The noisy-or, 1 - prod(1 - p), is the probability
    that at least one slice is positive if slices were independent; it is summed as log(1 - p), so that many small
    probabilities are not lost, and grows with the number of slices. The mean weighs every slice alike.
    """
    order, starts = _group_by_exam(exams.member)
    by_exam = probabilities.astype(np.float64)[order]
    match aggregate:
        case Aggregate.max:
            return np.maximum.reduceat(by_exam, starts, axis=0)
        case Aggregate.noisy_or:
            with np.errstate(divide="ignore"):  # a slice that is certain makes its exam certain
                return -np.expm1(np.add.reduceat(np.log1p(-by_exam), starts, axis=0))
        case Aggregate.mean:
            sums: NDArray[np.float64] = np.add.reduceat(by_exam, starts, axis=0)
            return sums / np.bincount(exams.member)[:, None]


def _group_by_exam(member: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order [N] that sorts slices by exam, and where in it each exam starts [E]."""
    order = np.argsort(member, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(member[order]) > 0])
