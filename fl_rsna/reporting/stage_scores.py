"""What the second stage of a run is worth: slice model, smoothed, head and blend on the same test slices."""

from typing import Any

from fl_rsna.reporting.cells import Column, Kind, Table, columns
from fl_rsna.reporting.tables import RunRecord, interval, megabytes

STAGE_NAMES = {
    "slice": "slice model",
    "smoothed": "slice model, smoothed along the series",
    "head": "head over the series alone",
    "blend": "blend of slice model and head: the run's model",
}


def stages(run: RunRecord) -> dict[str, Any] | None:
    """The content of the report's section; None for a run of one stage, or of no end."""
    found = (run.summary or {}).get("sequence") if run.finished else None
    if found is None:
        return None
    head = found["head"]
    moved = "–" if head["bytes_a_round"] is None else megabytes(head["bytes_a_round"])
    return {
        "compared": stage_table(found, run.headline),
        "chosen": chosen_table(found),
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


def chosen_table(found: dict[str, Any]) -> Table:
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
