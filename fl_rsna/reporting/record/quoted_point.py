"""Choose the operating point that a page quotes first: one whose threshold says something about the model.

Where validation holds few positives, a threshold may call each of its exams positive, or none of them. Sensitivity and specificity at
such a threshold are 1 and 0, or 0 and 1, whatever the model is. Only validation decides which point is quoted, never a test label.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fl_rsna.learning.metrics.figures import PointFigures

# The first that separates is quoted; where none does, the first with a threshold.
ORDER = ("youden", "sensitivity_95", "specificity_90")
Points = Mapping[str, PointFigures | None]  # one label's, by the name of the point


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedPoint:
    """The point to quote, and which of its rows of validation each point before it calls positive: "every" or "no".

    Where no point separates, the first is quoted and is in `passed_over` itself.
    """

    name: str
    passed_over: Mapping[str, str]

    @property
    def separates(self) -> bool:
        """Whether it calls some rows of validation positive and some negative."""
        return self.name not in self.passed_over


def choose_quoted(thresholds: Mapping[str, float | None], at_sites: Iterable[Points]) -> QuotedPoint | None:
    """Choose one label's point by its counts on the sites' validation parts; None where no point has a threshold."""
    sites = list(at_sites)
    calls = {
        name: _call_all(threshold, [of for points in sites if (of := points.get(name)) is not None])
        for name in ORDER
        if (threshold := thresholds.get(name)) is not None
    }
    if not calls:
        return None
    name = next((name for name, of_all in calls.items() if not of_all), next(iter(calls)))
    before = calls if calls[name] else dict(list(calls.items())[: list(calls).index(name)])
    return QuotedPoint(name=name, passed_over=before)


def _call_all(threshold: float, at_sites: list[PointFigures]) -> str:
    """Say whether a threshold calls "every" or "no" row of validation positive; "" where it calls some, and where this is not known.

    A count that a site withholds is taken as above 0. Without counts only a threshold of 0 is known to call every row positive.
    """
    positive = any(count is None or count > 0 for of in at_sites for count in (of["tp"], of["fp"]))
    negative = any(count is None or count > 0 for of in at_sites for count in (of["tn"], of["fn"]))
    if threshold <= 0 or (positive and not negative):
        return "every"
    return "no" if negative and not positive else ""
