"""From slices to exams: a series or a study is one exam, positive when any of its slices is.

Without a positive slice it is negative only where every slice is known to be; else nobody knows, NaN. Whatever scores,
counts or lists exams takes their labels from here.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_rsna.task import LabelKind


class Aggregate(StrEnum):
    """How an exam's probability is made of its slices'."""

    max = (
        "max"  # the surest slice speaks: assumes slices see one and the same bleed, so more slices are no more evidence
    )
    noisy_or = (
        "noisy_or"  # 1 - prod(1 - p): assumes slices err independently; neighbours do not, so it comes out too sure
    )
    mean = "mean"  # all slices speak alike: of classes that exclude each other, whose means still add up to 1


def aggregates(kind: LabelKind) -> tuple[Aggregate, ...]:
    """Those that make sense of such labels, the plainest first."""
    match kind:
        case LabelKind.multi_label:
            return Aggregate.max, Aggregate.noisy_or
        case LabelKind.multi_class:
            return (Aggregate.mean,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exams:
    """E exams of N slices: which exam each slice is of [N], and the exams' labels [E, L] and patients [E]."""

    member: NDArray[np.int64]
    labels: NDArray[np.float32]
    patients: NDArray[np.generic]


def group_exams(
    labels: NDArray[np.float32],
    patients: NDArray[np.generic],
    series: NDArray[np.generic],
    kind: LabelKind = LabelKind.multi_label,
) -> Exams:
    """Exams of slices [N, L] by their series, or study; one name used by two patients is two exams.

    A label is NaN where it is unknown, of a slice as of an exam. Of classes a known one rules out the others.
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
    """Labels [E, L] from those of slices in the order of their exams."""
    unknown = np.isnan(labels)
    positive = np.logical_or.reduceat(labels > 0, starts, axis=0)
    open_ = np.logical_or.reduceat(unknown, starts, axis=0) & ~positive
    if kind is LabelKind.multi_class:
        open_ &= ~positive.any(axis=1, keepdims=True)
    return np.where(open_, np.nan, positive).astype(np.float32)


def exam_probabilities(probabilities: NDArray[np.floating], exams: Exams, aggregate: Aggregate) -> NDArray[np.float64]:
    """Probabilities [E, L] of exams from those of their slices [N, L].

    The max assumes that an exam is as suspicious as its worst slice, whatever their number. The noisy-or is the
    probability that at least one slice is positive if slices were independent, summed as log(1 - p), so that many
    small ones are not lost; it grows with the number of slices. The mean weighs every slice alike.
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
    """Slices in the order of their exams, and where each exam starts."""
    order = np.argsort(member, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(member[order]) > 0])
