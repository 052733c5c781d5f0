"""What a stacking gained over its slice models and their mean, on the same test slices."""

from collections.abc import Mapping
from typing import Any

from fl_rsna.choices import Stacker
from fl_rsna.reporting.cells import Column, Kind, Table, columns
from fl_rsna.reporting.tables import RunRecord, interval

STACKER_NAMES = {Stacker.xgboost: "boosted trees", Stacker.cnn: "a network along the series"}


def stacking(run: RunRecord) -> dict[str, Any] | None:
    """The content of the report's section; None for a run of another stage, or of no end."""
    found = (run.summary or {}).get("stacking") if run.finished else None
    if found is None or run.test_site is None:
        return None
    return {
        "compared": stack_table(found, run.test_site, run.headline),
        "labels": labels_table(found, run.test_site),
        "folds": len(found["folds"]),
        "stacker": STACKER_NAMES[Stacker(found["stacker"])],
    }


def stack_table(found: Mapping[str, Any], test: Mapping[str, Any], headline: str) -> Table:
    """One row a model: each fold's, their mean, and the stacker with its paired distance from that mean."""
    heads = columns(model="text", weighted_log_loss="score", minus_the_mean="signed")
    heads += [Column(name=f"AUROC, {headline}"), Column(name="minus the mean", kind=Kind.signed)]
    mean, apart = found["mean_of_folds"], found["against_mean_of_folds"]
    rows: list[list[Any]] = [
        [f"slice model {fold['folder']}", fold["log_loss"], None, fold["auroc"][headline], None]
        for fold in found["folds"]
    ]
    rows.append(
        [
            "mean of the slice models",
            mean.get("log_loss_interval", mean["log_loss"]),
            None,
            mean["slice"][headline]["auroc"],
            None,
        ]
    )
    own = [
        test.get("log_loss_interval", test["log_loss"]),
        apart["log_loss"],
        test["slice"][headline]["auroc"],
        apart["auroc"][headline],
    ]
    rows.append([f"stacker, {STACKER_NAMES[Stacker(found['stacker'])]}: the run's model", *own])
    return Table(title="Stacking on the test site", columns=heads, rows=rows)


def labels_table(found: Mapping[str, Any], test: Mapping[str, Any]) -> Table:
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
    """The same as lines for the end of a simulation; none for a run of another stage."""
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
