"""What of a site's counts may leave it: with privacy.min_count=k, none between 1 and k - 1, and none such by subtraction.

0 and 1 leave everything as it is. A count that may not leave is withheld: None, not 0. Tables are made coarser instead:
neighbouring bins are added up until every cell is 0 or at least k, and stand where the mean of their rows lies, so that
the tables of sites still add. A label with too few positives or negatives is absent from them. Of classes, which add up
to all slices, another one or more is absent with it. Slices are counted where a table is of slices, patients where a
score is of patients.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.learning.stage_sums import GRIDS
from fl_rsna.learning.validation import LOSS, SLICE

LOSSES = {LOSS, *GRIDS}  # summed losses, a row a label
Sums = dict[str, NDArray[np.generic]]


def check_floor(asked: int, floor: int) -> None:
    """Refuse a run that would have counts leave which the site keeps to itself."""
    if asked < floor:
        raise ValueError(
            f"privacy.min_count: expected at least {floor}, this site's floor, got {asked}; say privacy.min_count={floor}"
        )


def is_small(count: float, k: int) -> bool:
    """Whether a count would tell of few."""
    return 0 < count < k


def shown(count: int, k: int) -> int | None:
    """A count, or None where it may not leave."""
    return None if is_small(count, k) else count


def shared_counts(counts: Mapping[str, Any], k: int, *, exclusive: bool) -> dict[str, Any]:
    """Counts by part of cohort.sites.counts without the small ones; of `exclusive` labels, without those that give them away.

    Raises ValueError for a part of fewer than k slices: its size is a weight that every round would tell.
    """
    for part, held in counts.items():
        if is_small(held["slices"], k):
            raise ValueError(
                f"privacy.min_count: expected at least {k} {part} images at every site, got fewer here; "
                "lower it or leave this site out"
            )
    return {part: _shared_part(held, k, exclusive) for part, held in counts.items()}


def _shared_part(held: Mapping[str, Any], k: int, exclusive: bool) -> dict[str, Any]:
    positives = {label: n for label, n in held["positives"].items() if n is not None}  # of an unannotated label: None
    known = {label: held.get("known", {}).get(label, held["slices"]) for label in positives}
    few = {label for label, n in positives.items() if is_small(n, k) or is_small(known[label] - n, k)}
    if exclusive:
        few = hidden_classes(positives, few, k)
    told = {label: None if label in few else n for label, n in held["positives"].items()}
    return {**held, "patients": shown(held["patients"], k), "positives": told}


def tells_positives(held: Mapping[str, Any], label: str, k: int) -> bool:
    """Whether a part's count of a label leaves its site, and so what follows from it may."""
    return _shared_part(held, k, exclusive=False)["positives"][label] is not None


def hidden_classes(positives: Mapping[str, int], few: set[str], k: int) -> set[str]:
    """`few` and the next smallest classes, until what they are together says nothing of one: classes add up to all."""
    for label in sorted(positives, key=lambda label: positives[label]):
        if not few or (len(few) > 1 and sum(positives[name] for name in few) >= k):
            break
        few = few | {label}
    return few


def filled_up(hashes: Iterable[str], k: int) -> list[str]:
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


def coarsened(table: NDArray[np.int64], cells: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """`table` [N, C] with neighbouring rows added up as `groups` of `cells` [N, D] says, each at its rows' mean place by `cells`' first column."""
    coarse = np.zeros_like(table)
    for start, end in groups(cells, k):
        weight = cells[start:end, 0]
        place = round(float(np.average(np.arange(start, end), weights=weight))) if weight.any() else start
        coarse[place] = table[start:end].sum(0)
    return coarse


def shared_controls(table: NDArray[np.int64], k: int, *, exclusive: bool = False) -> NDArray[np.int64]:
    """A table of learning.controls, slices and positives a bin [BINS, 1 + L], with every cell and its rest 0 or at least k.

    Of `exclusive` labels what is left to those that are hidden, too.
    """
    if k <= 1:
        return table
    slices, total = table[:, :1], table.sum(0)
    positives = {str(label): n for label, n in enumerate(total[1:].tolist())}
    few = {label for label, n in positives.items() if is_small(n, k) or is_small(total[0] - n, k)}
    few = hidden_classes(positives, few, k) if exclusive else few
    table = np.where([False, *(label in few for label in positives)], 0, table)
    left = slices - table[:, 1:].sum(1, keepdims=True) if exclusive else np.zeros_like(slices)
    return coarsened(table, np.concatenate([table, slices - table[:, 1:], left], axis=1), k)


def shared_sums(sums: Sums, k: int, *, exclusive: bool = False) -> Sums:
    """What sites add up, with histograms [L, 2, BINS] coarser and labels of few slices or exams all 0: their losses, too."""
    if k <= 1:
        return sums
    hidden = _hidden_in(sums, k) if exclusive else set()
    told: Sums = {name: _coarse_scores(counts, k, hidden) for name, counts in sums.items() if name not in LOSSES}
    rows = told[SLICE].astype(np.int64).sum(axis=(1, 2))
    for name in LOSSES & sums.keys():
        losses = sums[name]
        told[name] = np.where(np.asarray(rows > 0)[:, None], losses, 0) if len(losses) == len(rows) else losses
    return told


def _hidden_in(sums: Sums, k: int) -> set[str]:
    """Classes, by their place, that no histogram may tell of: slices first, as `shared_counts` has it, then exams."""
    hidden: set[str] = set()
    for name in sorted(sums.keys() - LOSSES, key=lambda name: name != SLICE):
        sides = {str(label): of.tolist() for label, of in enumerate(sums[name].astype(np.int64).sum(2))}
        few = {label for label, of in sides.items() if any(is_small(n, k) for n in of)}
        hidden = hidden_classes({label: of[1] for label, of in sides.items()}, hidden | few, k)
    return hidden


def _coarse_scores(counts: NDArray[np.generic], k: int, hidden: Collection[str]) -> NDArray[np.generic]:
    found = counts.astype(np.int64)
    coarse = np.zeros_like(found)
    for label, sides in enumerate(found):
        if sides.sum(1).min() >= k and str(label) not in hidden:
            coarse[label] = [coarsened(side[:, None], side[:, None], k)[:, 0] for side in sides]
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
