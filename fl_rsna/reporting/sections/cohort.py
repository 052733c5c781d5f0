"""The section on the cohort: what each site holds, what was made wrong there on purpose, and how sites differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_rsna.common.reading import read_json
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.run_record import ReadableCounts, RunRecord
from fl_rsna.reporting.record.wording import plural
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.run_folder import COHORT_VIEW, COPY

SHOWN = ("census", "rejected", "label_shift")  # of the cohort's view, in report.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Counts by site and part, what partition.noise made wrong by site, and the headers, rejects and label shift of the cohort.

    `view` is None of a run that did not partition its cohort by itself.
    """

    sites: Mapping[str, Mapping[str, ReadableCounts]]
    noise: Mapping[str, Mapping[str, Any]]
    view: Mapping[str, Any] | None


def build_cohort(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    view = read_view(run)
    shown = None if view is None else {name: view.get(name) for name in SHOWN}
    body = Cohort(sites=run.counts, noise=run.noise, view=shown)
    return Section(title="Cohort", body=body, paper=[cohort_table(run)] if run.cohort else [])


def read_view(run: RunRecord) -> Mapping[str, Any] | None:
    """What the partition of the cohort showed of it, with its pictures; None where the run has none."""
    path = run.folder / COHORT_VIEW
    return read_json(path, COPY) if path.exists() else None


def cohort_table(run: RunRecord) -> Table:
    """One row a site and part: patients, slices, positives by label."""
    pictures = plural(run.task.picture)
    heads = [*columns(site="text", part="text", patients="number"), Column(name=pictures, kind=Kind.number)]
    heads += [Column(name=label, kind=Kind.number) for label in run.labels]
    rows = [
        [site, part, held["patients"], held["slices"], *(held["positives"].get(label) for label in run.labels)]
        for site, parts in run.counts.items()
        for part, held in parts.items()
    ]
    return Table(title=f"Cohort by site, with positive {pictures} by label", columns=heads, rows=rows)
