"""What summary.json of a run says: the types of its keys.

Which keys are there follows from the run: every finished run has those of `Summary` that are not of a baseline or a stage alone.
A run of `baseline=local` has `alone` and `matrix` in place of a test site's scores; one that failed has only its status and reason.
"""

from typing import Any, NotRequired, TypedDict

from fl_rsna.learning.metrics.figures import (
    ComparedFigures,
    ComparisonFigures,
    EstimateFigures,
    HeldOutFigures,
    ScorecardFigures,
    StageFigures,
    ThresholdFigures,
)


class Rests(TypedDict):
    """On whose answers the choice of the round rests: how many sites of how many, whose are of an earlier round, who gave none."""

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
    bytes_a_round: int | None


class SequenceSummary(TypedDict):
    """The second stage of a run with a head over series: the slice model, the head, what was chosen, all four predictions' scores."""

    encoder: dict[str, Any]
    head: HeadFacts
    weights: dict[str, float]
    sigmas: dict[str, float]
    chosen_on: str
    test_site: dict[str, ComparedFigures]


class FoldSummary(TypedDict):
    """One fold's slice model of a stacking."""

    folder: str
    run_id: str
    model_sha256: str
    selected_round: int
    log_loss: float
    auroc: dict[str, EstimateFigures]


class StackingSummary(TypedDict):
    """A stacking: its slice models, their mean, and the stacker against that mean, paired over patients."""

    stacker: str
    parameters: NotRequired[int]
    selected_rounds: NotRequired[dict[str, int]]
    folds: list[FoldSummary]
    mean_of_folds: HeldOutFigures
    against_mean_of_folds: StageFigures


class AloneSummary(TypedDict):
    """One site's own model of a run whose sites trained alone."""

    run_id: str
    model_sha256: str
    test_site: HeldOutFigures
    operating_points: ChosenPoints | None


class Summary(TypedDict, total=False):
    """summary.json of a run. `test_site` and `sites` are in brief there and whole in scorecards.json."""

    status: str
    reason: str
    baseline: str
    stage: str
    run_id: str
    rounds: int
    started_from: dict[str, Any] | None
    prevalence: dict[str, Any] | None
    seed: int
    task: str
    strategy: str
    engine: str
    cohort: CohortFacts
    leaky: bool
    without_effect: list[str]
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
    test_site: HeldOutFigures
    operating_points: ChosenPoints | None
    sites: dict[str, ScorecardFigures]
    tables: dict[str, str]
    sequence: SequenceSummary
    stacking: StackingSummary
    alone: dict[str, AloneSummary]
    matrix: dict[str, dict[str, Any]]
    gap: dict[str, dict[str, ComparisonFigures]]
    joining: dict[str, dict[str, ComparisonFigures]]
