"""Withhold small counts: with privacy.min_count=k, no count from 1 to k - 1 leaves a site, nor can one be found by subtraction.

Statistical offices call this small-cell suppression.

0 and 1 leave everything as it is. A count that may not leave is withheld: None, not 0. Tables are made coarser instead:
neighbouring bins are added up until every cell is 0 or at least k, and stand where the mean of their rows lies, so that
the tables of sites still add. A label with too few positives or negatives is absent from them. Of classes, which add up
to all slices, another one or more is absent with it. Slices are counted where a table is of slices, patients where a
score is of patients.

A row of a confusion matrix adds up to the slices of its class, which are reported elsewhere, and the accuracy reveals the sum of
its diagonal. So a row with one small cell is withheld whole, and with any row both accuracies over all classes; a mean over
classes of which one is hidden would reveal that one, and is withheld. The parts of a scorecard follow the same rules.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.inference.blending import GRIDS
from fl_rsna.learning.metrics.classification import ACCURACIES, RANKINGS
from fl_rsna.learning.metrics.operating_points import LOSS, SLICE

LOSSES = {LOSS, *GRIDS}  # summed losses, a row a label
Sums = dict[str, NDArray[np.generic]]
CELLS = ("tp", "fn"), ("fp", "tn")  # of a confusion table: two that add up to a count that is told
READ_FROM = ("sensitivity", "false_negative_rate"), ("specificity",)  # what tells one of each pair
READ_FROM_ALL = ("ppv", "npv", "f1")
CLASSES = "classes"


def check_floor(asked: int, floor: int) -> None:
    """Refuse a run that would have counts leave which the site keeps to itself."""
    if asked < floor:
        raise ValueError(
            f"privacy.min_count: expected at least {floor}, this site's floor, got {asked}; say privacy.min_count={floor}"
        )


def is_small(count: float, k: int) -> bool:
    """Whether a count would tell of few."""
    return 0 < count < k


def suppress_small(count: int, k: int) -> int | None:
    """A count, or None where it may not leave."""
    return None if is_small(count, k) else count


def suppress_counts(counts: Mapping[str, Any], k: int, *, exclusive: bool) -> dict[str, Any]:
    """Counts by part of cohort.sites.site_folders.counts without the small ones; of `exclusive` labels, without those that give them away.

    Raises ValueError for a part of fewer than k slices: its size is a weight that every round would tell.
    """
    for part, held in counts.items():
        if is_small(held["slices"], k):
            raise ValueError(
                f"privacy.min_count: expected at least {k} {part} images at every site, got fewer here; "
                "lower it or leave this site out"
            )
    return {part: _suppress_part(held, k, exclusive) for part, held in counts.items()}


def _suppress_part(held: Mapping[str, Any], k: int, exclusive: bool) -> dict[str, Any]:
    positives = {label: n for label, n in held["positives"].items() if n is not None}  # of an unannotated label: None
    known = {label: held.get("known", {}).get(label, held["slices"]) for label in positives}
    few = {label for label, n in positives.items() if is_small(n, k) or is_small(known[label] - n, k)}
    if exclusive:
        few = add_complementary_classes(positives, few, k)
    told = {label: None if label in few else n for label, n in held["positives"].items()}
    return {**held, "patients": suppress_small(held["patients"], k), "positives": told}


def tells_positives(held: Mapping[str, Any], label: str, k: int) -> bool:
    """Whether a part's count of a label leaves its site, and so what follows from it may."""
    return _suppress_part(held, k, exclusive=False)["positives"][label] is not None


def add_complementary_classes(positives: Mapping[str, int], few: set[str], k: int) -> set[str]:
    """`few` and the next smallest classes, until what they are together says nothing of one: classes add up to all."""
    for label in sorted(positives, key=lambda label: positives[label]):
        if not few or (len(few) > 1 and sum(positives[name] for name in few) >= k):
            break
        few = few | {label}
    return few


def pad_hashes(hashes: Iterable[str], k: int) -> list[str]:
    """Hashes of patients with hashes of nobody, to a multiple of k: how many there are would be one more count."""
    known = set(hashes)
    missing = -len(known) % k if k > 1 else 0
    return sorted(known | {secrets.token_hex(8) for _ in range(missing)})


def groups(cells: NDArray[np.int64], k: int) -> list[tuple[int, int]]:
    """First and after-last bin of neighbours whose sums [C] are each 0 or at least k; all of them cover the bins [N, C].

    One group may still be small in the end: where the whole column is.
    """
    found: list[tuple[int, int]] = []
    start, total = 0, np.zeros(cells.shape[1], np.int64)
    for place, row in enumerate(cells):
        total = total + row
        if not ((total > 0) & (total < k)).any():
            found.append((start, place + 1))
            start, total = place + 1, np.zeros_like(total)
    while found and start < len(cells) and ((total > 0) & (total < k)).any():
        start, end = found.pop()
        total = total + cells[start:end].sum(0)
    return [*found, (start, len(cells))] if start < len(cells) else found


def coarsen_table(table: NDArray[np.int64], cells: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """`table` [N, C] with neighbouring rows added up as `groups` of `cells` [N, D] says, each at its rows' mean place by `cells`' first column."""
    coarse = np.zeros_like(table)
    for start, end in groups(cells, k):
        weight = cells[start:end, 0]
        place = round(float(np.average(np.arange(start, end), weights=weight))) if weight.any() else start
        coarse[place] = table[start:end].sum(0)
    return coarse


def suppress_controls(table: NDArray[np.int64], k: int, *, exclusive: bool = False) -> NDArray[np.int64]:
    """A table of learning.controls, slices and positives a bin [BINS, 1 + L], with every cell and its rest 0 or at least k.

    Of `exclusive` labels what is left to those that are hidden, too.
    """
    if k <= 1:
        return table
    slices, total = table[:, :1], table.sum(0)
    positives = {str(label): n for label, n in enumerate(total[1:].tolist())}
    few = {label for label, n in positives.items() if is_small(n, k) or is_small(total[0] - n, k)}
    few = add_complementary_classes(positives, few, k) if exclusive else few
    table = np.where([False, *(label in few for label in positives)], 0, table)
    left = slices - table[:, 1:].sum(1, keepdims=True) if exclusive else np.zeros_like(slices)
    return coarsen_table(table, np.concatenate([table, slices - table[:, 1:], left], axis=1), k)


def suppress_sums(sums: Sums, k: int, *, exclusive: bool = False) -> Sums:
    """What sites add up, with histograms [L, 2, BINS] coarser and labels of few slices or exams all 0: their losses, too."""
    if k <= 1:
        return sums
    hidden = _find_few_in_sums(sums, k) if exclusive else set()
    told: Sums = {name: _coarse_scores(counts, k, hidden) for name, counts in sums.items() if name not in LOSSES}
    rows = told[SLICE].astype(np.int64).sum(axis=(1, 2))
    for name in LOSSES & sums.keys():
        losses = sums[name]
        told[name] = np.where(np.asarray(rows > 0)[:, None], losses, 0) if len(losses) == len(rows) else losses
    return told


def _find_few_in_sums(sums: Sums, k: int) -> set[str]:
    """Classes, by their place, that no histogram may tell of: slices first, as `suppress_counts` has it, then exams."""
    hidden: set[str] = set()
    for name in sorted(sums.keys() - LOSSES, key=lambda name: name != SLICE):
        sides = {str(label): of.tolist() for label, of in enumerate(sums[name].astype(np.int64).sum(2))}
        few = {label for label, of in sides.items() if any(is_small(n, k) for n in of)}
        hidden = add_complementary_classes({label: of[1] for label, of in sides.items()}, hidden | few, k)
    return hidden


def _coarse_scores(counts: NDArray[np.generic], k: int, hidden: Collection[str]) -> NDArray[np.generic]:
    found = counts.astype(np.int64)
    coarse = np.zeros_like(found)
    for label, sides in enumerate(found):
        if sides.sum(1).min() >= k and str(label) not in hidden:
            coarse[label] = [coarsen_table(side[:, None], side[:, None], k)[:, 0] for side in sides]
    return coarse


def rests_on_enough(labels: NDArray[np.float32], patients: NDArray[np.generic], k: int) -> list[bool]:
    """Whether a score of each label of [N, L] rests on k slices of either kind, and on k patients with a positive one.

    One of a label that the site does not annotate rests on nothing.
    """
    found = []
    for label in range(labels.shape[1]):
        positive: NDArray[np.bool_] = labels[:, label] > 0
        negative: NDArray[np.bool_] = labels[:, label] == 0
        fewest = min(int(positive.sum()), int(negative.sum()), np.unique(patients[positive]).size)
        found.append(bool((positive | negative).any()) and (k <= 1 or fewest >= k))
    return found


def suppress_class_scores(found: Mapping[str, Any], hidden: Collection[str], k: int) -> dict[str, Any]:
    """Scores of learning.classes without the `hidden` classes, and without counts and ratios that tell of few."""
    if not found:  # of exams where there are none
        return {}
    rows = {
        label
        for label, row in found["confusion"].items()
        if label in hidden or any(is_small(cell["count"], k) for cell in row.values())
    }
    withheld = {*(ACCURACIES if rows else ()), *(RANKINGS if hidden else ())}
    told = {
        name: _blank_estimate(found[name]) if name in withheld else found[name] for name in (*ACCURACIES, *RANKINGS)
    }
    return {
        **told,
        "classes": {label: _class(of, label in rows, label in hidden) for label, of in found["classes"].items()},
        "confusion": {label: _blank_row(row) if label in rows else row for label, row in found["confusion"].items()},
    }


def _class(of: Mapping[str, Any], without_accuracy: bool, without_ranking: bool) -> dict[str, Any]:
    gone = {"accuracy": without_accuracy, "voc_average_precision": without_ranking}
    return {name: _blank_estimate(estimate) if gone[name] else estimate for name, estimate in of.items()}


def _blank_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {label: {"count": None, "share": _blank_estimate(cell["share"])} for label, cell in row.items()}


def _blank_estimate(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(estimate)


def suppress_card(card: Mapping[str, Any], k: int) -> dict[str, Any]:
    """A scorecard without the labels that rest on fewer than k, and without counts, ratios and bins that tell of few."""
    if k <= 1:
        return dict(card)
    told = {name: suppress_small(card[name], k) for name in ("patients", "exams")}
    hidden = _find_few_in_card(card, k) if CLASSES in card else set()
    overall = card["log_loss"]
    if _of_few(overall, k) or hidden:  # of all slices; only what it is counted by is of few
        overall = {**_blank_estimate(overall), "value": overall["value"]}
    exams = {how: _suppress_labels(of, k, hidden) for how, of in card["exam"].items()}
    slices = _suppress_labels(card["slice"], k, hidden)
    return {**card, **told, "log_loss": overall, "slice": slices, "exam": exams, **_classes(card, hidden, k)}


def without_labels(card: Mapping[str, Any], unknown: Collection[str], headline: str) -> dict[str, Any]:
    """A scorecard in which labels that the site does not annotate are withheld."""

    def blank_unknown(cards: Mapping[str, Any]) -> dict[str, Any]:
        return {label: _blank_label(of) if label in unknown else of for label, of in cards.items()}

    overall = card["log_loss"]
    if headline in unknown:
        overall = {**_blank_estimate(overall), "value": overall["value"]}
    exams = {how: blank_unknown(of) for how, of in card["exam"].items()}
    together = _classes(card, set(card["slice"]), k=0)  # nothing of all classes without one of them
    return {**card, "log_loss": overall, "slice": blank_unknown(card["slice"]), "exam": exams, **together}


def _find_few_in_card(card: Mapping[str, Any], k: int) -> set[str]:
    """Classes of few, and those that give them away: in slices as the counts of the roll call, then in exams, then in patients."""
    hidden: set[str] = set()
    for counted, *rest in (("positives", "negatives"), ("positive_patients",)):
        for cards in (card["slice"], *card["exam"].values()):
            areas = {label: of["auroc"] for label, of in cards.items()}
            few = {label for label, area in areas.items() if any(is_small(area[name], k) for name in (counted, *rest))}
            hidden = add_complementary_classes({label: area[counted] for label, area in areas.items()}, hidden | few, k)
    return hidden


def _classes(card: Mapping[str, Any], hidden: Collection[str], k: int) -> dict[str, Any]:
    """What is said of classes together, where there are any."""
    if CLASSES not in card:
        return {}
    return {CLASSES: {level: suppress_class_scores(found, hidden, k) for level, found in card[CLASSES].items()}}


def _suppress_labels(cards: Mapping[str, Any], k: int, hidden: Collection[str]) -> dict[str, Any]:
    return {
        label: _blank_label(of) if _of_few(of["auroc"], k) or label in hidden else _suppress_label(of, k)
        for label, of in cards.items()
    }


def _of_few(estimate: Mapping[str, Any], k: int) -> bool:
    return bool(min(estimate["positives"], estimate["negatives"], estimate["positive_patients"]) < k)


def _blank_label(of: Mapping[str, Any]) -> dict[str, Any]:
    """A label's card with nothing in it but the common temperature."""
    scores = {
        name: _blank_estimate(estimate)
        for name, estimate in of.items()
        if isinstance(estimate, dict) and "value" in estimate
    }
    return {**of, **scores, "points": dict.fromkeys(of["points"]), "calibration": {"before": None, "after": None}}


def _suppress_label(of: Mapping[str, Any], k: int) -> dict[str, Any]:
    points = {name: found and _suppress_point(found, k) for name, found in of["points"].items()}
    curves = {
        when: found and {**found, "bins": _coarsen_bins(found["bins"], k)} for when, found in of["calibration"].items()
    }
    return {**of, "points": points, "calibration": curves}


def _suppress_point(found: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Counts and ratios at a threshold without a pair of counts of which one is small, nor what it could be read from."""
    told, few = dict(found), [any(is_small(found[cell], k) for cell in pair) for pair in CELLS]
    for pair, ratios, small in zip(CELLS, READ_FROM, few, strict=True):
        if small:
            told |= dict.fromkeys(pair) | {name: _blank_estimate(found[name]) for name in ratios}
    return told | ({name: _blank_estimate(found[name]) for name in READ_FROM_ALL} if any(few) else {})


def _coarsen_bins(bins: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
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
