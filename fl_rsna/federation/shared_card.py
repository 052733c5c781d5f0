"""What of a site's scorecard may leave it under privacy.min_count=k: federation/disclosure.py's rules for a scorecard's parts."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fl_rsna.federation.disclosure import groups, hidden_classes, is_small, shown
from fl_rsna.federation.shared_classes import shared_classes

CELLS = ("tp", "fn"), ("fp", "tn")  # of a confusion table: two that add up to a count that is told
READ_FROM = ("sensitivity", "false_negative_rate"), ("specificity",)  # what tells one of each pair
READ_FROM_ALL = ("ppv", "npv", "f1")
CLASSES = "classes"


def shared_card(card: Mapping[str, Any], k: int) -> dict[str, Any]:
    """A scorecard without the labels that rest on fewer than k, and without counts, ratios and bins that tell of few."""
    if k <= 1:
        return dict(card)
    told = {name: shown(card[name], k) for name in ("patients", "exams")}
    hidden = _hidden(card, k) if CLASSES in card else set()
    overall = card["log_loss"]
    if _of_few(overall, k) or hidden:  # of all slices; only what it is counted by is of few
        overall = {**_nothing(overall), "value": overall["value"]}
    exams = {how: _shared_labels(of, k, hidden) for how, of in card["exam"].items()}
    slices = _shared_labels(card["slice"], k, hidden)
    return {**card, **told, "log_loss": overall, "slice": slices, "exam": exams, **_classes(card, hidden, k)}


def without_labels(card: Mapping[str, Any], unknown: Collection[str], headline: str) -> dict[str, Any]:
    """A scorecard in which labels that the site does not annotate are withheld."""

    def kept(cards: Mapping[str, Any]) -> dict[str, Any]:
        return {label: _withheld(of) if label in unknown else of for label, of in cards.items()}

    overall = card["log_loss"]
    if headline in unknown:
        overall = {**_nothing(overall), "value": overall["value"]}
    exams = {how: kept(of) for how, of in card["exam"].items()}
    together = _classes(card, set(card["slice"]), k=0)  # nothing of all classes without one of them
    return {**card, "log_loss": overall, "slice": kept(card["slice"]), "exam": exams, **together}


def _hidden(card: Mapping[str, Any], k: int) -> set[str]:
    """Classes of few, and those that give them away: in slices as the counts of the roll call, then in exams, then in patients."""
    hidden: set[str] = set()
    for counted, *rest in (("positives", "negatives"), ("positive_patients",)):
        for cards in (card["slice"], *card["exam"].values()):
            areas = {label: of["auroc"] for label, of in cards.items()}
            few = {label for label, area in areas.items() if any(is_small(area[name], k) for name in (counted, *rest))}
            hidden = hidden_classes({label: area[counted] for label, area in areas.items()}, hidden | few, k)
    return hidden


def _classes(card: Mapping[str, Any], hidden: Collection[str], k: int) -> dict[str, Any]:
    """What is said of classes together, where there are any."""
    if CLASSES not in card:
        return {}
    return {CLASSES: {level: shared_classes(found, hidden, k) for level, found in card[CLASSES].items()}}


def _shared_labels(cards: Mapping[str, Any], k: int, hidden: Collection[str]) -> dict[str, Any]:
    return {
        label: _withheld(of) if _of_few(of["auroc"], k) or label in hidden else _shared_label(of, k)
        for label, of in cards.items()
    }


def _of_few(estimate: Mapping[str, Any], k: int) -> bool:
    return bool(min(estimate["positives"], estimate["negatives"], estimate["positive_patients"]) < k)


def _nothing(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(estimate)


def _withheld(of: Mapping[str, Any]) -> dict[str, Any]:
    """A label's card with nothing in it but the common temperature."""
    scores = {
        name: _nothing(estimate) for name, estimate in of.items() if isinstance(estimate, dict) and "value" in estimate
    }
    return {**of, **scores, "points": dict.fromkeys(of["points"]), "calibration": {"before": None, "after": None}}


def _shared_label(of: Mapping[str, Any], k: int) -> dict[str, Any]:
    points = {name: found and _shared_point(found, k) for name, found in of["points"].items()}
    curves = {
        when: found and {**found, "bins": _shared_bins(found["bins"], k)} for when, found in of["calibration"].items()
    }
    return {**of, "points": points, "calibration": curves}


def _shared_point(found: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Counts and ratios at a threshold without a pair of counts of which one is small, nor what it could be read from."""
    told, few = dict(found), [any(is_small(found[cell], k) for cell in pair) for pair in CELLS]
    for pair, ratios, small in zip(CELLS, READ_FROM, few, strict=True):
        if small:
            told |= dict.fromkeys(pair) | {name: _nothing(found[name]) for name in ratios}
    return told | ({name: _nothing(found[name]) for name in READ_FROM_ALL} if any(few) else {})


def _shared_bins(bins: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """Fewer and wider bins: slices, positives and negatives of each are 0 or at least k. A wider one has no interval."""
    counts = np.array([found["count"] for found in bins], np.int64)
    shares, means = (np.array([found[name] or 0.0 for found in bins]) for name in ("share", "mean"))
    positives = np.rint(shares * counts).astype(np.int64)
    told = []
    for start, end in groups(np.stack([counts, positives, counts - positives], axis=1), k):
        here = slice(start, end)
        if end - start == 1:
            told.append(bins[start])
            continue
        n = int(counts[here].sum())
        told.append(
            {
                "low": bins[start]["low"],
                "high": bins[end - 1]["high"],
                "count": n,
                "mean": float(means[here] @ counts[here] / n) if n else None,
                "share": float(positives[here].sum() / n) if n else None,
                "share_low": None,
                "share_high": None,
            }
        )
    return told
