"""The section on two stages: slice model, smoothed, head over the series and blend, on the same test slices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.run_record import RunRecord, interval, megabytes
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.summary import SequenceSummary

STAGE_NAMES = {
    "slice": "slice model",
    "smoothed": "slice model, smoothed along the series",
    "head": "head over the series alone",
    "blend": "blend of slice model and head: the run's model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Log loss and AUROC of each prediction, what the sites chose by label and on what, the head, and the slice model it looks at."""

    compared: Table
    chosen: Table
    chosen_on: str
    head: str
    encoder: Mapping[str, Any]


def build_stages(run: RunRecord) -> Section | None:
    """Build the section; None of a run of one stage, or that has not come to its end."""
    found = run.summary.get("sequence") if run.summary is not None and run.is_finished else None
    if found is None:
        return None
    head = found["head"]
    moved = "–" if head["bytes_a_round"] is None else megabytes(head["bytes_a_round"])
    body = Stages(
        compared=stage_table(found, run.headline),
        chosen=choices_table(found),
        chosen_on=found["chosen_on"],
        head=f"{head['kind']}, {head['parameters']:,} parameters, {moved} a round and site, up and down together",
        encoder=found["encoder"],
    )
    title = "Both stages on the test site, differences paired over patients"
    return Section(title="Stages", body=body, paper=[replace(body.compared, title=title)])


def stage_table(found: SequenceSummary, headline: str) -> Table:
    """One row a prediction: weighted log loss and AUROC, and each minus the slice model's, paired over patients."""
    heads = columns(model="text", weighted_log_loss="score", minus_the_slice_model="signed")
    heads += [Column(name=f"AUROC, {headline}"), Column(name="minus the slice model", kind=Kind.signed)]
    rows: list[list[Any]] = []
    for name, title in STAGE_NAMES.items():
        scores = found["test_site"][name]
        apart = scores.get("minus_slice")
        losses = [scores["log_loss"], apart and apart["log_loss"]]
        rows.append([title, *losses, scores["auroc"][headline], apart and apart["auroc"][headline]])
    return Table(title="Both stages on the test site", columns=heads, rows=rows)


def choices_table(found: SequenceSummary) -> Table:
    """One row a label: what the sites chose together."""
    heads = columns(label="text", weight_of_the_head="score", smoothing_in_slices="score")
    rows = [[label, weight, found["sigmas"][label]] for label, weight in found["weights"].items()]
    return Table(title="Chosen label by label", columns=heads, rows=rows)


def stage_lines(summary: Mapping[str, Any], headline: str) -> list[str]:
    """Write the section as lines for the end of a simulation; none for a run of one stage."""
    if "sequence" not in summary:
        return []
    lines = []
    for name, title in STAGE_NAMES.items():
        scores = summary["sequence"]["test_site"][name]
        apart = scores.get("minus_slice")
        than = f", minus slice {interval(apart['log_loss'])}" if apart else ""
        area = interval(scores["auroc"][headline])
        lines.append(f"{title}: weighted log loss {interval(scores['log_loss'])}{than}; AUROC {headline} {area}")
    return lines
