"""The section on stacking: the second model of a run against its slice models and their mean, on the same test slices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fl_rsna.learning.metrics.scorecard import HeldOutFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.run_record import RunRecord, interval
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.summary import StackingSummary
from fl_rsna.settings.stages import Stacker

STACKER_NAMES = {Stacker.xgboost: "boosted trees", Stacker.cnn: "a network along the series"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacking:
    """Log loss and AUROC of each model, AUROC by label, the number of folds, and what the stacker is."""

    compared: Table
    labels: Table
    folds: int
    stacker: str


def build_stacking(run: RunRecord) -> Section | None:
    """Build the section; None of a run of another stage, or that has not come to its end."""
    found = run.summary.get("stacking") if run.summary is not None and run.is_finished else None
    if found is None or run.test_site is None:
        return None
    body = Stacking(
        compared=stack_table(found, run.test_site, run.headline),
        labels=labels_table(found, run.test_site),
        folds=len(found["folds"]),
        stacker=STACKER_NAMES[Stacker(found["stacker"])],
    )
    title = "Stacking on the test site, differences paired over patients"
    return Section(title="Stacking", body=body, paper=[replace(body.compared, title=title)])


def stack_table(found: StackingSummary, test: HeldOutFigures, headline: str) -> Table:
    """One row a model: each fold's, their mean, and the stacker with its paired difference from that mean."""
    heads = columns(model="text", weighted_log_loss="score", minus_the_mean="signed")
    heads += [Column(name=f"AUROC, {headline}"), Column(name="minus the mean", kind=Kind.signed)]
    mean, apart = found["mean_of_folds"], found["against_mean_of_folds"]
    own = [test["log_loss_interval"], apart["log_loss"], test["slice"][headline]["auroc"], apart["auroc"][headline]]
    rows: list[list[Any]] = [
        *(
            [f"slice model {fold['folder']}", fold["log_loss"], None, fold["auroc"][headline], None]
            for fold in found["folds"]
        ),
        ["mean of the slice models", mean["log_loss_interval"], None, mean["slice"][headline]["auroc"], None],
        [f"stacker, {STACKER_NAMES[Stacker(found['stacker'])]}: the run's model", *own],
    ]
    return Table(title="Stacking on the test site", columns=heads, rows=rows)


def labels_table(found: StackingSummary, test: HeldOutFigures) -> Table:
    """One row a label: AUROC of the mean and of the stacker, and how many of its trees a label got."""
    mean, apart, trees = found["mean_of_folds"]["slice"], found["against_mean_of_folds"], found.get("selected_rounds")
    heads = columns(label="text", mean_of_the_slice_models="score", stacker="score", minus_the_mean="signed")
    heads += columns(chosen_round="number") if trees else []
    rows = [
        [label, of["auroc"], test["slice"][label]["auroc"], apart["auroc"][label], *([trees[label]] if trees else [])]
        for label, of in mean.items()
    ]
    return Table(title="AUROC label by label", columns=heads, rows=rows)


def stack_lines(summary: Mapping[str, Any], headline: str) -> list[str]:
    """Write the section as lines for the end of a simulation; none for a run of another stage."""
    stacking = summary.get("stacking")
    if stacking is None:
        return []
    mean, apart = stacking["mean_of_folds"], stacking["against_mean_of_folds"]
    return [
        f"mean of {len(stacking['folds'])} slice models: AUROC {headline} {interval(mean['slice'][headline]['auroc'])}, "
        f"log loss {mean['log_loss']:.4f}",
        f"stacker ({stacking['stacker']}) against it, paired over patients: AUROC {headline} "
        f"{interval(apart['auroc'][headline])}, log loss {interval(apart['log_loss'])}",
    ]
