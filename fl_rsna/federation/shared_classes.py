"""What of a site's scores of classes together may leave it under privacy.min_count=k: the rest of federation/shared_card.py.

A row of a confusion matrix adds up to the slices of its class, which are told elsewhere, and the accuracy tells the sum of
its diagonal. So a row with one small cell is withheld whole, and with any row both accuracies over all classes; a mean over
classes of which one is hidden would tell that one, and is withheld.
"""

from collections.abc import Collection, Mapping
from typing import Any

from fl_rsna.federation.disclosure import is_small
from fl_rsna.learning.classes import ACCURACIES, RANKINGS


def shared_classes(found: Mapping[str, Any], hidden: Collection[str], k: int) -> dict[str, Any]:
    """Scores of learning.classes without the `hidden` classes, and without counts and ratios that tell of few."""
    if not found:  # of exams where there are none
        return {}
    rows = {
        label
        for label, row in found["confusion"].items()
        if label in hidden or any(is_small(cell["count"], k) for cell in row.values())
    }
    withheld = {*(ACCURACIES if rows else ()), *(RANKINGS if hidden else ())}
    told = {name: _nothing(found[name]) if name in withheld else found[name] for name in (*ACCURACIES, *RANKINGS)}
    return {
        **told,
        "classes": {label: _class(of, label in rows, label in hidden) for label, of in found["classes"].items()},
        "confusion": {
            label: _nothing_of_row(row) if label in rows else row for label, row in found["confusion"].items()
        },
    }


def _class(of: Mapping[str, Any], without_accuracy: bool, without_ranking: bool) -> dict[str, Any]:
    gone = {"accuracy": without_accuracy, "voc_average_precision": without_ranking}
    return {name: _nothing(estimate) if gone[name] else estimate for name, estimate in of.items()}


def _nothing_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {label: {"count": None, "share": _nothing(cell["share"])} for label, cell in row.items()}


def _nothing(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(estimate)
