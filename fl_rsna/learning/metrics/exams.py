"""Combine slices to exams: a series or a study is one exam, positive when any of its slices is positive.

Without a positive slice, an exam is negative if all its slices are known, else its label is unknown (NaN). All code that scores, counts
or lists exams takes their labels from here.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_rsna.task import LabelKind


class Aggregate(StrEnum):
    """The function that combines the probabilities of an exam's slices."""

    max = "max"  # the highest; assumes that slices show the same bleed, so more slices are no more evidence
    noisy_or = "noisy_or"  # 1 - prod(1 - p); assumes independent slices, but neighbours are not, so it is too high
    mean = "mean"  # for classes that exclude each other, whose means still add up to 1


def aggregates(kind: LabelKind) -> tuple[Aggregate, ...]:
    """Return the aggregates that are valid for labels of a kind, the simplest first."""
    match kind:
        case LabelKind.multi_label:
            return Aggregate.max, Aggregate.noisy_or
        case LabelKind.multi_class:
            return (Aggregate.mean,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exams:
    """E exams of N slices: the exam of each slice [N], and the exams' labels [E, L] and patients [E]."""

    member: NDArray[np.int64]
    labels: NDArray[np.float32]
    patients: NDArray[np.generic]


def group_exams(
    labels: NDArray[np.float32],
    patients: NDArray[np.generic],
    series: NDArray[np.generic],
    kind: LabelKind = LabelKind.multi_label,
) -> Exams:
    """Group slices [N, L] to exams by their series or study; a name that two patients use is two exams.

    A label of a slice or of an exam is NaN where it is unknown. An exam with a known positive class is negative for the others.
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
    """Combine labels of slices, in the order of their exams, to labels [E, L] of exams."""
    unknown = np.isnan(labels)
    positive = np.logical_or.reduceat(labels > 0, starts, axis=0)
    open_ = np.logical_or.reduceat(unknown, starts, axis=0) & ~positive
    if kind is LabelKind.multi_class:
        open_ &= ~positive.any(axis=1, keepdims=True)
    return np.where(open_, np.nan, positive).astype(np.float32)


def exam_probabilities(probabilities: NDArray[np.floating], exams: Exams, aggregate: Aggregate) -> NDArray[np.float64]:
    """Combine probabilities of slices [N, L] to probabilities of exams [E, L].

    The max assumes that an exam is as suspicious as its most suspicious slice, whatever the number of slices. The noisy-or is the
    probability that at least one slice is positive if slices were independent, and grows with their number; it is summed as
    log(1 - p), so that many small probabilities are not lost. The mean weights all slices equally.
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
    """Return the slices in the order of their exams, and the position at which each exam starts."""
    order = np.argsort(member, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(member[order]) > 0])
