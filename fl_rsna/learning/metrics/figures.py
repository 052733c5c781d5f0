"""Types of the JSON of scores, as summary.json, scorecards.json, messages and report.json hold it.

A value is None where it is undefined or withheld: a site withholds figures that would reveal small counts (privacy.min_count).
"""

from typing import NotRequired, TypedDict


class EstimateFigures(TypedDict):
    """An estimate with its 95% interval, and the counts it rests on: rows with the label, rows without it, patients with it."""

    value: float | None
    low: float | None
    high: float | None
    positives: int | None
    negatives: int | None
    positive_patients: int | None


class PointFigures(TypedDict):
    """Counts and ratios of one label at a threshold."""

    threshold: float
    tp: int | None
    fp: int | None
    tn: int | None
    fn: int | None
    sensitivity: EstimateFigures
    specificity: EstimateFigures
    ppv: EstimateFigures
    npv: EstimateFigures
    f1: EstimateFigures
    false_negative_rate: EstimateFigures


class BinFigures(TypedDict):
    """A bin of a reliability curve: its edges, its rows, their mean probability, their share of positives with its interval."""

    low: float
    high: float
    count: int
    mean: float | None
    share: float | None
    share_low: float | None
    share_high: float | None


class CurveFigures(TypedDict):
    """A reliability curve: expected calibration error, Brier score and bins."""

    ece: EstimateFigures
    brier: EstimateFigures
    bins: list[BinFigures]


class CalibrationFigures(TypedDict):
    """The reliability curve before and after temperature scaling; `after` is None for a label without a temperature."""

    before: CurveFigures | None
    after: CurveFigures | None


class ClassFigures(TypedDict):
    """Scores of one class of several that exclude each other."""

    accuracy: EstimateFigures
    voc_average_precision: EstimateFigures


class CellFigures(TypedDict):
    """A cell of a confusion matrix: the rows of a true class that got one named class, and their share of the true class."""

    count: int | None
    share: EstimateFigures


class ClassesInBrief(TypedDict):
    """Scores over all classes that exclude each other."""

    accuracy: EstimateFigures
    balanced_accuracy: EstimateFigures
    macro_auroc: EstimateFigures
    mean_average_precision: EstimateFigures


class ClassesFigures(ClassesInBrief):
    """Scores over all classes that exclude each other, scores of each class, and the confusion matrix by true and named class."""

    classes: dict[str, ClassFigures]
    confusion: dict[str, dict[str, CellFigures]]


class ComparisonFigures(TypedDict):
    """The difference and the ratio of two scores on the same slices, paired over patients."""

    difference: EstimateFigures
    ratio: EstimateFigures


class StageFigures(TypedDict):
    """Log loss, and AUROC by label, of one prediction; or the differences of two predictions."""

    log_loss: EstimateFigures
    auroc: dict[str, EstimateFigures]


class ComparedFigures(StageFigures):
    """Log loss, and AUROC by label, of one stage of a run; `minus_slice` holds the differences from the slice model, which has none."""

    minus_slice: NotRequired[StageFigures]


class ThresholdFigures(TypedDict):
    """Operating points: thresholds by label and point, of slices and, by the aggregate of slices, of exams; a temperature by label."""

    slice: dict[str, dict[str, float | None]]
    exam: dict[str, dict[str, dict[str, float | None]]]
    temperatures: dict[str, float | None]
