"""The operating point that is quoted first calls some of validation positive and some negative, where any point does."""

from typing import Any

import pytest

from fl_rsna.reporting.record.quoted_point import choose_quoted


def at(tp: int | None, fp: int | None, tn: int | None, fn: int | None) -> Any:
    return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


ALL, NONE, SOME, ABSENT = at(2, 9, 0, 0), at(0, 0, 9, 2), at(1, 3, 6, 1), at(None, None, None, None)
THRESHOLDS = {"sensitivity_95": 0.2, "specificity_90": 0.8, "youden": 0.4}


@pytest.mark.parametrize(
    ("youden", "sensitivity_95", "specificity_90", "quoted", "passed_over"),
    [
        (SOME, ALL, NONE, "youden", {}),
        (ALL, SOME, SOME, "sensitivity_95", {"youden": "every"}),
        (ALL, ALL, SOME, "specificity_90", {"youden": "every", "sensitivity_95": "every"}),
        (ALL, ALL, NONE, "youden", {"youden": "every", "sensitivity_95": "every", "specificity_90": "no"}),
        (ABSENT, SOME, SOME, "youden", {}),  # a count that is withheld may be any but 0
        (at(2, 9, 0, None), SOME, SOME, "youden", {}),
    ],
)
def test_the_first_that_separates_is_quoted(
    youden: Any, sensitivity_95: Any, specificity_90: Any, quoted: str, passed_over: dict[str, str]
) -> None:
    site = {"youden": youden, "sensitivity_95": sensitivity_95, "specificity_90": specificity_90}
    found = choose_quoted(THRESHOLDS, [site])
    assert found is not None
    assert (found.name, found.passed_over) == (quoted, passed_over)
    assert found.separates == (quoted not in passed_over)


def test_sites_count_together() -> None:
    """One site's patients are all called positive, the other's none: the threshold separates. A site without the label has no counts."""
    found = choose_quoted(THRESHOLDS, [{"youden": ALL}, {"youden": NONE}, {"youden": None}])
    assert found is not None
    assert (found.name, found.separates) == ("youden", True)


def test_a_threshold_of_0_calls_everything_positive_whoever_counts() -> None:
    found = choose_quoted({"youden": 0.0, "sensitivity_95": 0.0, "specificity_90": 0.3}, [])
    assert found is not None
    assert (found.name, found.passed_over) == ("specificity_90", {"youden": "every", "sensitivity_95": "every"})
    alone = choose_quoted({"youden": 0.0, "sensitivity_95": None}, [])
    assert alone is not None
    assert not alone.separates
    assert choose_quoted({"youden": None}, [{"youden": SOME}]) is None
