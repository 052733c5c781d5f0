"""What a run's report says: the figures above, and the list of sections that the page, report.json, paper.md and paper.tex render."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fl_rsna.reporting.record.cells import Table
from fl_rsna.reporting.record.run_record import Failure, RunRecord
from fl_rsna.reporting.record.wording import task_words
from fl_rsna.reporting.sections.calibration import build_calibration
from fl_rsna.reporting.sections.classes import build_classes
from fl_rsna.reporting.sections.cohort import build_cohort
from fl_rsna.reporting.sections.cost import build_cost
from fl_rsna.reporting.sections.curves import build_curves
from fl_rsna.reporting.sections.headline import Headline, headlines
from fl_rsna.reporting.sections.pictures import build_pictures
from fl_rsna.reporting.sections.points import build_points
from fl_rsna.reporting.sections.provenance import build_provenance, settings_table
from fl_rsna.reporting.sections.scorecard import build_scorecard
from fl_rsna.reporting.sections.section import Section
from fl_rsna.reporting.sections.sites import build_sites
from fl_rsna.reporting.sections.stacking import build_stacking
from fl_rsna.reporting.sections.stages import build_stages
from fl_rsna.settings.stages import Baseline, Stage

# The sections in the page's order, by their key in report.json, which is also the name of their template and their anchor on the page.
SECTIONS: Mapping[str, Callable[[RunRecord], Section | None]] = {
    "cohort": build_cohort,
    "curves": build_curves,
    "stages": build_stages,
    "stacking": build_stacking,
    "classes": build_classes,
    "scorecard": build_scorecard,
    "sites": build_sites,
    "points": build_points,
    "calibration": build_calibration,
    "pictures": build_pictures,
    "cost": build_cost,
    "provenance": build_provenance,
}
KINDS = {Baseline.central: "Baseline: all sites' data pooled", Baseline.local: "Baseline: every site alone"}
STAGES = {Stage.sequence: ", second stage: a head over series", Stage.stacking: ", a stacking of slice models"}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a run ended, why it failed, its last round, files that are not as it wrote them, and what makes its scores no results."""

    status: str
    reason: str | None
    last_round: int | None
    beware: list[str]
    leaky: bool
    crops_from_truth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a run's report says. `sections` holds None for a section that the run does not have."""

    name: str
    kind: str
    state: State
    labels: list[str]
    headline: str
    words: Mapping[str, str]
    headlines: list[Headline]
    sections: Mapping[str, Section | None]
    failures: list[Failure]
    settings: Table


def build_report(run: RunRecord) -> Report:
    """Build every section of a run's report."""
    found, status = run.summary, "unfinished" if run.summary is None else run.summary["status"]
    state = State(
        status=status,
        reason=None if found is None else found.get("reason"),
        last_round=None if run.rounds.empty else int(run.rounds["round"].max()),
        beware=run.beware,
        leaky=run.leaky,
        crops_from_truth=run.crops_from_truth,
    )
    return Report(
        name=run.name,
        kind=KINDS.get(run.config["baseline"], "Federated run") + STAGES.get(run.config["stage"], ""),
        state=state,
        labels=run.labels,
        headline=run.headline,
        words=task_words(run.task),
        headlines=headlines(run),
        sections={name: build(run) for name, build in SECTIONS.items()},
        failures=run.failures,
        settings=settings_table(run.config),
    )
