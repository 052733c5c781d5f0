"""Withhold small counts: with privacy.min_count=k, no count from 1 to k - 1 leaves a site, nor can one be found by subtraction.

Statistical offices call this small-cell suppression.

k of 0 or 1 changes nothing. A withheld count is None, not 0. Tables of counts are made coarser instead: neighbouring bins are added
up until every cell is 0 or at least k. The sum stands in the bin at the mean place of its rows, so the tables of sites still add. A
label with too few positives or negatives is absent from the tables. Classes add up to all slices, so at least one more class is
absent with it. Tables of slices count slices, and scores of patients count patients.

A row of a confusion matrix adds up to the slices of its class, which are reported elsewhere, and the accuracy reveals the sum of
the diagonal. So a row with one small cell is withheld whole, and with any such row both accuracies over all classes. A mean over
classes would reveal a hidden class, so it is withheld where any class is. All parts of a scorecard follow these rules.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.sites.site_folders import PartCounts
from fl_rsna.learning.inference.blending import GRIDS
from fl_rsna.learning.metrics.figures import BinFigures, ClassesFigures, EstimateFigures, PointFigures
from fl_rsna.learning.metrics.operating_points import LOSS, SLICE
from fl_rsna.learning.metrics.scorecard import LabelFigures, LevelsOfClasses, ScorecardFigures

LOSSES = {LOSS, *GRIDS}  # the sums that are losses, with a row for each label
Sums = dict[str, NDArray[np.generic]]


def check_floor(asked: int, floor: int) -> None:
    """Refuse a run whose privacy.min_count, `asked`, is below the site's own, `floor`; raises ValueError."""
    if asked < floor:
        raise ValueError(
            f"privacy.min_count: expected at least {floor}, this site's floor, got {asked}; say privacy.min_count={floor}"
        )


def is_small(count: float | None, k: int) -> bool:
    """Tell whether a count must be withheld: whether it is from 1 to k - 1. A withheld count, None, is not."""
    return count is not None and 0 < count < k


def suppress_small(count: int | None, k: int) -> int | None:
    """Return a count, or None where it must be withheld."""
    return None if is_small(count, k) else count


def suppress_counts(counts: Mapping[str, PartCounts], k: int, *, exclusive: bool) -> dict[str, PartCounts]:
    """Withhold small counts by part, as cohort.sites.site_folders.counts makes them; for `exclusive` labels also those that reveal them.

    Raises ValueError for a part of 1 to k - 1 slices: its size is a weight, which every round would reveal.
    """
    for part, held in counts.items():
        if is_small(held["slices"], k):
            raise ValueError(
                f"privacy.min_count: expected at least {k} {part} images at every site, got fewer here; "
                "lower it or leave this site out"
            )
    return {part: _suppress_part(held, k, exclusive) for part, held in counts.items()}


def _suppress_part(held: PartCounts, k: int, exclusive: bool) -> PartCounts:
    positives = {label: n for label, n in held["positives"].items() if n is not None}  # None: not annotated
    known = {label: held.get("known", {}).get(label, held["slices"]) for label in positives}
    few = {label for label, n in positives.items() if is_small(n, k) or is_small(known[label] - n, k)}
    if exclusive:
        few = add_complementary_classes(positives, few, k)
    told = {label: None if label in few else n for label, n in held["positives"].items()}
    return {**held, "patients": suppress_small(held["patients"], k), "positives": told}


def tells_positives(held: PartCounts, label: str, k: int) -> bool:
    """Tell whether the site may reveal a part's count of a label, and so also figures that follow from it."""
    return _suppress_part(held, k, exclusive=False)["positives"][label] is not None


def add_complementary_classes(positives: Mapping[str, int], few: set[str], k: int) -> set[str]:
    """Add the next smallest classes to `few` until they are two or more with k positives together.

    Classes add up to all slices, so the other classes reveal the sum of those in `few`.
    """
    for label in sorted(positives, key=lambda label: positives[label]):
        if not few or (len(few) > 1 and sum(positives[name] for name in few) >= k):
            break
        few = few | {label}
    return few


def pad_hashes(hashes: Iterable[str], k: int) -> list[str]:
    """Add random hashes to hashes of patients up to a multiple of k, because their number would be one more count."""
    known = set(hashes)
    missing = -len(known) % k if k > 1 else 0
    return sorted(known | {secrets.token_hex(8) for _ in range(missing)})


def groups(cells: NDArray[np.int64], k: int) -> list[tuple[int, int]]:
    """Group neighbouring bins [N, C] so that the sums [C] of each group are 0 or at least k; return first and after-last bin of each.

    The groups cover all bins. A sum of the only group is still small where that of its whole column is.
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
    """Add up neighbouring rows of `table` [N, C] by the groups of `cells` [N, D].

    Each sum stands at the mean place of its rows, weighted by the first column of `cells`; other rows are 0.
    """
    coarse = np.zeros_like(table)
    for start, end in groups(cells, k):
        weight = cells[start:end, 0]
        place = round(float(np.average(np.arange(start, end), weights=weight))) if weight.any() else start
        coarse[place] = table[start:end].sum(0)
    return coarse


def suppress_controls(table: NDArray[np.int64], k: int, *, exclusive: bool = False) -> NDArray[np.int64]:
    """Coarsen a control's table, slices and positives by bin [BINS, 1 + L], until positives and negatives of each cell are 0 or at least k.

    For `exclusive` labels the slices of all hidden labels together are 0 or at least k, too.
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
    """Coarsen the histograms [L, 2, BINS] of a site's sums; set histograms and losses of labels with few slices or exams to 0."""
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
    """Find the classes, by their index, to hide in all histograms: by slices first, as `suppress_counts` does, then by exams."""
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
    """Tell for each label of [N, L] whether it has k positive slices, k negative slices and k patients with a positive slice.

    With k of 0 or 1 one slice of known label is enough. A label that the site does not annotate has none.
    """
    found = []
    for label in range(labels.shape[1]):
        positive: NDArray[np.bool_] = labels[:, label] > 0
        negative: NDArray[np.bool_] = labels[:, label] == 0
        fewest = min(int(positive.sum()), int(negative.sum()), np.unique(patients[positive]).size)
        found.append(bool((positive | negative).any()) and (k <= 1 or fewest >= k))
    return found


def suppress_class_scores(found: ClassesFigures, hidden: Collection[str], k: int) -> ClassesFigures:
    """Withhold the `hidden` classes from scores of classes, and counts and ratios that would reveal small counts."""
    rows = {
        label
        for label, row in found["confusion"].items()
        if label in hidden or any(is_small(cell["count"], k) for cell in row.values())
    }

    def blank_if(withheld: bool, estimate: EstimateFigures) -> EstimateFigures:
        return _blank_estimate() if withheld else estimate

    return {
        "accuracy": blank_if(bool(rows), found["accuracy"]),
        "balanced_accuracy": blank_if(bool(rows), found["balanced_accuracy"]),
        "macro_auroc": blank_if(bool(hidden), found["macro_auroc"]),
        "mean_average_precision": blank_if(bool(hidden), found["mean_average_precision"]),
        "classes": {
            label: {
                "accuracy": blank_if(label in rows, of["accuracy"]),
                "voc_average_precision": blank_if(label in hidden, of["voc_average_precision"]),
            }
            for label, of in found["classes"].items()
        },
        "confusion": {
            label: {other: {"count": None, "share": _blank_estimate()} for other in row} if label in rows else row
            for label, row in found["confusion"].items()
        },
    }


def _blank_estimate() -> EstimateFigures:
    return {
        "value": None,
        "low": None,
        "high": None,
        "positives": None,
        "negatives": None,
        "positive_patients": None,
    }


def suppress_card(card: ScorecardFigures, k: int) -> ScorecardFigures:
    """Withhold the labels of a scorecard that rest on fewer than k, and counts, ratios and bins that would reveal small counts."""
    if k <= 1:
        return card
    hidden = _find_few_in_card(card, k) if "classes" in card else set[str]()
    # the log loss is over all slices; the counts it rests on are those of one label, which may be small
    overall = _keep_value(card["log_loss"]) if _of_few(card["log_loss"], k) or hidden else card["log_loss"]
    told: ScorecardFigures = {
        **card,
        "patients": suppress_small(card["patients"], k),
        "exams": suppress_small(card["exams"], k),
        "log_loss": overall,
        "slice": _suppress_labels(card["slice"], k, hidden),
        "exam": {how: _suppress_labels(of, k, hidden) for how, of in card["exam"].items()},
    }
    if "classes" in card:
        told["classes"] = _suppress_levels(card["classes"], hidden, k)
    return told


def without_labels(card: ScorecardFigures, unknown: Collection[str], headline: str) -> ScorecardFigures:
    """Withhold from a scorecard the labels `unknown`, which the site does not annotate, and all figures of classes together."""

    def blank_unknown(cards: dict[str, LabelFigures]) -> dict[str, LabelFigures]:
        return {label: _blank_label(of) if label in unknown else of for label, of in cards.items()}

    told: ScorecardFigures = {
        **card,
        "log_loss": _keep_value(card["log_loss"]) if headline in unknown else card["log_loss"],
        "slice": blank_unknown(card["slice"]),
        "exam": {how: blank_unknown(of) for how, of in card["exam"].items()},
    }
    if "classes" in card:
        told["classes"] = _suppress_levels(card["classes"], set(card["slice"]), k=0)
    return told


def _keep_value(estimate: EstimateFigures) -> EstimateFigures:
    return {**_blank_estimate(), "value": estimate["value"]}


def _find_few_in_card(card: ScorecardFigures, k: int) -> set[str]:
    """Find classes of small counts, and those that would reveal them: by slices as in the roll call, then by exams, then by patients."""
    hidden: set[str] = set()
    for of_patients in (False, True):
        for cards in (card["slice"], *card["exam"].values()):
            areas = {label: of["auroc"] for label, of in cards.items()}
            counted = {
                label: [area["positive_patients"]] if of_patients else [area["positives"], area["negatives"]]
                for label, area in areas.items()
            }
            few = {label for label, counts in counted.items() if any(is_small(count, k) for count in counts)}
            positives = {label: counts[0] or 0 for label, counts in counted.items()}
            hidden = add_complementary_classes(positives, hidden | few, k)
    return hidden


def _suppress_levels(levels: LevelsOfClasses, hidden: Collection[str], k: int) -> LevelsOfClasses:
    told: LevelsOfClasses = {"slice": suppress_class_scores(levels["slice"], hidden, k)}
    if "exam" in levels:
        told["exam"] = suppress_class_scores(levels["exam"], hidden, k)
    return told


def _suppress_labels(cards: Mapping[str, LabelFigures], k: int, hidden: Collection[str]) -> dict[str, LabelFigures]:
    return {
        label: _blank_label(of) if _of_few(of["auroc"], k) or label in hidden else _suppress_label(of, k)
        for label, of in cards.items()
    }


def _of_few(estimate: EstimateFigures, k: int) -> bool:
    """Tell whether an estimate rests on fewer than k positives, negatives or patients with a positive."""
    counts = (estimate["positives"], estimate["negatives"], estimate["positive_patients"])
    return any(count is not None and count < k for count in counts)


def _blank_label(of: LabelFigures) -> LabelFigures:
    """Withhold every score of a label, whichever there are; the temperature, which all sites share, stays."""
    scores = {name: _blank_estimate() for name, score in of.items() if isinstance(score, dict) and "value" in score}
    rest = {"points": dict.fromkeys(of["points"]), "calibration": {"before": None, "after": None}}
    return cast(LabelFigures, {**of, **scores, **rest})


def _suppress_label(of: LabelFigures, k: int) -> LabelFigures:
    curves = of["calibration"]
    return {
        **of,
        "points": {name: point and _suppress_point(point, k) for name, point in of["points"].items()},
        "calibration": {
            "before": curves["before"] and {**curves["before"], "bins": _coarsen_bins(curves["before"]["bins"], k)},
            "after": curves["after"] and {**curves["after"], "bins": _coarsen_bins(curves["after"]["bins"], k)},
        },
    }


def _suppress_point(found: PointFigures, k: int) -> PointFigures:
    """Withhold counts at a threshold of which one is small, and the ratios from which they could be computed.

    tp + fn and fp + tn are reported elsewhere, so either count of a pair reveals the other.
    """
    told = found.copy()
    few_positives = is_small(found["tp"], k) or is_small(found["fn"], k)
    few_negatives = is_small(found["fp"], k) or is_small(found["tn"], k)
    if few_positives:
        told["tp"] = told["fn"] = None
        told["sensitivity"], told["false_negative_rate"] = _blank_estimate(), _blank_estimate()
    if few_negatives:
        told["fp"] = told["tn"] = None
        told["specificity"] = _blank_estimate()
    if few_positives or few_negatives:
        told["ppv"], told["npv"], told["f1"] = _blank_estimate(), _blank_estimate(), _blank_estimate()
    return told


def _coarsen_bins(bins: list[BinFigures], k: int) -> list[BinFigures]:
    """Merge neighbouring bins until slices, positives and negatives of each are 0 or at least k; a merged bin has no interval."""
    counts = np.array([found["count"] for found in bins], np.int64)
    shares = np.array([found["share"] or 0.0 for found in bins])
    means = np.array([found["mean"] or 0.0 for found in bins])
    positives = np.rint(shares * counts).astype(np.int64)
    told = list[BinFigures]()
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
