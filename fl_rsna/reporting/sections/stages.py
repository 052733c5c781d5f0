"""What the second stage of a run is worth, on the same test slices.

Of a series head: slice model, smoothed, head and blend. Of a stacking: the second model against its slice models and their mean.
"""

from collections.abc import Mapping
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.run_record import RunRecord, interval, megabytes
from fl_rsna.settings.stages import Stacker

STACKER_NAMES = {Stacker.xgboost: "boosted trees", Stacker.cnn: "a network along the series"}
STAGE_NAMES = {
    "slice": "slice model",
    "smoothed": "slice model, smoothed along the series",
    "head": "head over the series alone",
    "blend": "blend of slice model and head: the run's model",
}


def stack_section(run: RunRecord) -> dict[str, Any] | None:
    """The content of the report's section; None for a run of another stage, or of no end."""
    found = (run.summary or {}).get("stacking") if run.is_finished else None
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


def stages(run: RunRecord) -> dict[str, Any] | None:
    """The content of the report's section; None for a run of one stage, or of no end."""
    found = (run.summary or {}).get("sequence") if run.is_finished else None
    if found is None:
        return None
    head = found["head"]
    moved = "–" if head["bytes_a_round"] is None else megabytes(head["bytes_a_round"])
    return {
        "compared": stage_table(found, run.headline),
        "chosen": choices_table(found),
        "chosen_on": found["chosen_on"],
        "head": f"{head['kind']}, {head['parameters']:,} parameters, {moved} a round and site, up and down together",
        "encoder": found["encoder"],
    }


def stage_table(found: dict[str, Any], headline: str) -> Table:
    """One row a prediction: weighted log loss and AUROC, and how far each is from the slice model's, paired."""
    heads = columns(model="text", weighted_log_loss="score", minus_the_slice_model="signed")
    heads += [Column(name=f"AUROC, {headline}"), Column(name="minus the slice model", kind=Kind.signed)]
    rows: list[list[Any]] = []
    for name, words in STAGE_NAMES.items():
        scores = found["test_site"][name]
        apart = scores.get("minus_slice")
        losses = [scores["log_loss"], apart and apart["log_loss"]]
        rows.append([words, *losses, scores["auroc"][headline], apart and apart["auroc"][headline]])
    return Table(title="Both stages on the test site", columns=heads, rows=rows)


def choices_table(found: dict[str, Any]) -> Table:
    """One row a label: what the sites chose together."""
    heads = columns(label="text", weight_of_the_head="score", smoothing_in_slices="score")
    rows = [[label, weight, found["sigmas"][label]] for label, weight in found["weights"].items()]
    return Table(title="Chosen label by label", columns=heads, rows=rows)


def stage_lines(summary: dict[str, Any], headline: str) -> list[str]:
    """The same as lines for the end of a simulation; none for a run of one stage."""
    if "sequence" not in summary:
        return []
    lines = []
    for name, words in STAGE_NAMES.items():
        scores = summary["sequence"]["test_site"][name]
        apart = scores.get("minus_slice")
        than = f", minus slice {interval(apart['log_loss'])}" if apart else ""
        area = interval(scores["auroc"][headline])
        lines.append(f"{words}: weighted log loss {interval(scores['log_loss'])}{than}; AUROC {headline} {area}")
    return lines
