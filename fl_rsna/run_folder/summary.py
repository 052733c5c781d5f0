"""Types of summary.json, which says how a run ended and what its model is worth.

Every finished run has those keys of `RunSummary` that are not of a baseline or a stage alone. A run of `baseline=local` has `alone`
and `matrix` in place of a test site's scores. A run that failed has its status, its kind and reason of failure, its rounds and the
settings without effect.
"""

from typing import Any, NotRequired, TypedDict

from fl_rsna.learning.metrics.figures import (
    ComparedFigures,
    ComparisonFigures,
    EstimateFigures,
    StageFigures,
    ThresholdFigures,
)
from fl_rsna.learning.metrics.scorecard import HeldOutFigures, HeldOutInBrief, ScorecardFigures, ScorecardInBrief


class Rests(TypedDict):
    """The answers that the choice of the round rests on.

    `sites` of `of` sites answered; `carried` holds the round of each answer that is older than the chosen round; `unknown` names
    the sites that gave none.
    """

    sites: int
    of: int
    carried: dict[str, int]
    unknown: list[str]


class ChosenPoints(ThresholdFigures):
    """Operating points with the parts of the cohort they were chosen on, and each label's Platt scaling."""

    chosen_on: str
    platt: dict[str, dict[str, float] | None]


class CohortFacts(TypedDict):
    """The cohort that a run saw: its name, its hash and the number of its training sites."""

    name: str
    sha256: str
    sites: int


class HeadFacts(TypedDict):
    """The series head of a run of two stages; `bytes_a_round` is None where it was not trained by sites."""

    kind: str
    parameters: int
    bytes_a_round: float | None


class StageChoice(TypedDict):
    """The choice of the sites after a second stage's rounds: by label, the head's weight and the width of smoothing, in slices."""

    chosen_on: str
    weights: dict[str, float]
    sigmas: dict[str, float]


class SequenceSummary(StageChoice):
    """The second stage of a run with a head over series: the slice model, the head, the sites' choice, all four predictions' scores."""

    encoder: dict[str, str | None]
    head: HeadFacts
    test_site: dict[str, ComparedFigures]


class FoldSummary(TypedDict):
    """One fold's slice model of a stacking, with what its run took."""

    folder: str
    run_id: str
    model_sha256: str
    selected_round: int
    wall_s: float
    virtual_s: float
    usd: float
    bytes_down: int
    bytes_up: int
    site_failures: int
    log_loss: float
    auroc: dict[str, EstimateFigures]


class StackedScores(TypedDict):
    """The slice models of a stacking, their mean, and the stacker minus that mean, paired over patients."""

    folds: list[FoldSummary]
    mean_of_folds: HeldOutInBrief
    against_mean_of_folds: StageFigures


class StackingSummary(StackedScores):
    """A stacking. A network has `parameters`; boosted trees have the other four, of which `selected_rounds` is by label."""

    stacker: str
    parameters: NotRequired[int]
    method: NotRequired[str]
    features: NotRequired[int]
    selected_rounds: NotRequired[dict[str, int]]
    model_bytes: NotRequired[int]


class AloneSummary(TypedDict):
    """One site's own model of a run whose sites trained alone."""

    run_id: str
    model_sha256: str
    test_site: HeldOutInBrief
    operating_points: ChosenPoints | None


class RunSummary(TypedDict, total=False):
    """The part of summary.json that is no scorecard of the final model.

    `tables` holds, by file, its length in bytes and its hash; an entry of `matrix`, by model and site, holds `loss`,
    `auroc/<label>` and, by label, `auroc`.
    """

    status: str
    kind: str
    reason: str
    baseline: str
    stage: str
    run_id: str
    rounds: int
    started_from: dict[str, str] | None
    prevalence: dict[str, dict[str, float]] | None
    seed: int
    task: str
    strategy: str
    engine: str
    cohort: CohortFacts
    leaky: bool
    crops_from_truth: bool
    without_effect: dict[str, str]
    wall_s: float
    bytes_down: int
    bytes_up: int
    site_failures: int
    model_sha256: str
    selected_round: int
    recalibrated: bool
    selected_by: str
    selected_on: Rests | None
    virtual_s: float
    usd: float
    operating_points: ChosenPoints | None
    tables: dict[str, dict[str, str | int]]
    sequence: SequenceSummary
    stacking: StackingSummary
    alone: dict[str, AloneSummary]
    matrix: dict[str, dict[str, Any]]
    gap: dict[str, dict[str, ComparisonFigures]]
    joining: dict[str, dict[str, ComparisonFigures]]


class SummaryInBrief(RunSummary, total=False):
    """summary.json as it is written: its scorecards are in brief."""

    test_site: HeldOutInBrief
    sites: dict[str, ScorecardInBrief]


class Summary(RunSummary, total=False):
    """summary.json with the whole scorecards of scorecards.json in place of those in brief."""

    test_site: HeldOutFigures
    sites: dict[str, ScorecardFigures]
