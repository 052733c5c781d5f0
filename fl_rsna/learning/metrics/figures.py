"""The JSON of estimates, labels and scorecards, as in summary.json, scorecards.json, messages and report.json.

A value is None where it is undefined or withheld: a site withholds values that would disclose few patients (privacy.min_count).
"""

from typing import NotRequired, TypedDict


class EstimateFigures(TypedDict):
    """An estimate with its 95% interval, and the numbers of rows with the label, rows without it, and patients with it."""

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


class LabelFigures(TypedDict):
    """All scores of one label on the slices, or on the exams, of one set of patients."""

    auroc: EstimateFigures
    average_precision: EstimateFigures
    partial_auroc: EstimateFigures
    log_loss: EstimateFigures
    brier: EstimateFigures
    ece: EstimateFigures
    points: dict[str, PointFigures | None]
    calibration: CalibrationFigures
    temperature: float | None


class ClassFigures(TypedDict):
    """Scores of one class of several that exclude each other."""

    accuracy: EstimateFigures
    voc_average_precision: EstimateFigures


class CellFigures(TypedDict):
    """A cell of a confusion matrix: rows of one true and one predicted class, and their share of the true class."""

    count: int | None
    share: EstimateFigures


class ClassesFigures(TypedDict):
    """Scores of classes that exclude each other: of all together, of each, and the confusion matrix by true and predicted class."""

    accuracy: EstimateFigures
    balanced_accuracy: EstimateFigures
    macro_auroc: EstimateFigures
    mean_average_precision: EstimateFigures
    classes: dict[str, ClassFigures]
    confusion: dict[str, dict[str, CellFigures]]


class LevelsOfClasses(TypedDict):
    """Scores of classes over slices, and over exams where there are any."""

    slice: ClassesFigures
    exam: NotRequired[ClassesFigures]


class CardFigures(TypedDict):
    """The part that every scorecard has: counts, and labels at slice level and, by the aggregate of slices, at exam level."""

    slices: int
    patients: int | None
    exams: int | None
    resamples: int
    slice: dict[str, LabelFigures]
    exam: dict[str, dict[str, LabelFigures]]
    classes: NotRequired[LevelsOfClasses]


class ScorecardFigures(CardFigures):
    """The scorecard of a model at a site."""

    log_loss: EstimateFigures


class AreaFigures(TypedDict):
    """The AUROC alone, such as that of a control."""

    auroc: EstimateFigures


class HeldOutFigures(CardFigures):
    """The scorecard of a model on the test site: its log loss as a number and as an estimate, and by control the AUROC of each label."""

    log_loss: float
    log_loss_interval: EstimateFigures
    controls: dict[str, dict[str, AreaFigures]]


class ComparisonFigures(TypedDict):
    """A score against a reference, paired over patients: their difference and their ratio."""

    difference: EstimateFigures
    ratio: EstimateFigures


class StageFigures(TypedDict):
    """Log loss and AUROC by label of one prediction, or the differences of two predictions."""

    log_loss: EstimateFigures
    auroc: dict[str, EstimateFigures]


class ComparedFigures(StageFigures):
    """Log loss and AUROC by label of a stage of a run, and the differences from the slice model's for any other stage."""

    minus_slice: NotRequired[StageFigures]


class ThresholdFigures(TypedDict):
    """Operating points: a threshold by label and point, for slices and by the aggregate of slices for exams; a temperature by label."""

    slice: dict[str, dict[str, float | None]]
    exam: dict[str, dict[str, dict[str, float | None]]]
    temperatures: dict[str, float | None]
