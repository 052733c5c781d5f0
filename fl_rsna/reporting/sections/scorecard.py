"""The tables of a scorecard: how good the probabilities are by label, at each operating point, and how well calibrated."""

from collections.abc import Mapping
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty

POINTS = {
    "sensitivity_95": "Sensitivity of at least 0.95",
    "specificity_90": "Specificity of at least 0.90",
    "youden": "Greatest sensitivity + specificity (Youden)",
}
SHORT_POINTS = {
    "sensitivity_95": "sensitivity ≥ 0.95",
    "specificity_90": "specificity ≥ 0.90",
    "youden": "Youden",
}
PARTIAL = "specificity at sensitivity ≥ 0.90"  # the mean over them
SCORES = ("auroc", "average_precision", "partial_auroc", "log_loss", "brier", "ece")

Cards = Mapping[str, Mapping[str, Any]]  # label -> CARD of a scorecard


def levels(scorecard: Mapping[str, Any]) -> dict[str, Cards]:
    """The cards at slice level and, where there are any, at exam level, by the names that `level_titles` knows."""
    return {"slice": scorecard["slice"], **scorecard.get("exam", {})}


def scores_table(scorecard: Mapping[str, Any], level: str, title: str) -> Table:
    """One row a label: what defines the metrics, and the metrics; at slice level, what the controls reach without the image.

    The partial AUROC is of exams: whether a patient is missed is asked of them.
    """
    cards, controls = levels(scorecard)[level], scorecard.get("controls", {}) if level == "slice" else {}
    of_exams = level != "slice"
    names = [name for name in SCORES[1:] if of_exams or name != "partial_auroc"]
    rows = [
        [
            label,
            card["auroc"]["positives"],
            card["auroc"],
            *(by_label[label]["auroc"] for by_label in controls.values()),
            *(card.get(name) for name in names),
            card["auroc"]["negatives"],
            card["auroc"].get("positive_patients"),
        ]
        for label, card in cards.items()
    ]
    heads = columns(label="text", positive="number", AUROC="score")
    heads += [Column(name=f"AUROC, {control} alone") for control in controls]
    heads += [*columns(average_precision="score"), *([Column(name=PARTIAL)] if of_exams else [])]
    heads += columns(log_loss="score", Brier="score", ECE="score", negative="number", patients_positive="number")
    return without_empty(Table(title=title, columns=heads, rows=rows))


def points_table(cards: Cards, point: str) -> Table:
    """One row a label: the threshold chosen at the sites, and every count and rate it gives here."""
    heads = columns(
        label="text", threshold="threshold", sensitivity="score", specificity="score", TP="number", FP="number"
    )
    heads += columns(TN="number", FN="number", PPV="score", NPV="score", F1="score", FN_rate="score")
    names = (
        "threshold",
        "sensitivity",
        "specificity",
        "tp",
        "fp",
        "tn",
        "fn",
        "ppv",
        "npv",
        "f1",
        "false_negative_rate",
    )
    rows = [
        [label, *((card.get("points", {}).get(point) or {}).get(name) for name in names)]
        for label, card in cards.items()
    ]
    return Table(title=POINTS[point], columns=heads, rows=rows)


def has_points(cards: Cards) -> bool:
    return any(found for card in cards.values() for found in card.get("points", {}).values())


def thresholds_table(operating: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """The thresholds as the sites' validation parts chose them, and the temperatures."""
    by_level = {"slice": operating.get("slice", {}), **operating.get("exam", {})}
    heads = [Column(name="label", kind=Kind.text), Column(name="level", kind=Kind.text)]
    heads += [Column(name=name, kind=Kind.threshold) for name in POINTS.values()]
    rows = [
        [label, titles[level], *(chosen.get(point) for point in POINTS)]
        for level, by_label in by_level.items()
        for label, chosen in by_label.items()
    ]
    return Table(title="Thresholds", columns=heads, rows=rows)


def calibration_table(cards: Cards) -> Table:
    """ECE and Brier score of each label before and after temperature scaling."""
    heads = columns(label="text", positive="number", temperature="threshold", ECE_before="score", ECE_after="score")
    heads += columns(Brier_before="score", Brier_after="score")
    rows = []
    for label, card in cards.items():
        before, after = (card.get("calibration", {}).get(name) or {} for name in ("before", "after"))
        both = [curve.get(name) for name in ("ece", "brier") for curve in (before, after)]
        rows.append([label, card["auroc"]["positives"], card.get("temperature"), *both])
    return without_empty(Table(title="Calibration", columns=heads, rows=rows))


def is_calibrated(cards: Cards) -> bool:
    return any(card.get("calibration", {}).get("before") for card in cards.values())
