"""The section on the cohort: what each site holds, what was made wrong there on purpose, and how sites differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.common.reading import read_json
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.run_record import UNKNOWN, ReadableCounts, RunRecord
from fl_rsna.reporting.record.wording import plural
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.run_folder import COHORT_VIEW, COPY
from fl_rsna.settings.partition import TEST_SITE

FLOW_SITES = 6  # training sites at most that have a column of their own
SHOWN = ("census", "rejected", "label_shift")  # of the cohort's view, in report.json


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBox:
    """A box of the flow diagram: its name, and patients and images as people read them."""

    name: str
    patients: int | str
    slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How patients get to sites and parts: rejected files by reason, the whole cohort, and the boxes below it by column.

    The first box of a column is a site, or all training sites where they are many; the others are its parts.
    """

    rejected: Mapping[str, int]
    whole: FlowBox
    columns: Sequence[Sequence[FlowBox]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Counts by site and part, what partition.noise made wrong by site, and the headers, rejects and label shift of the cohort.

    `view` is None of a run that did not partition its cohort by itself.
    """

    sites: Mapping[str, Mapping[str, ReadableCounts]]
    flow: Flow | None
    noise: Mapping[str, Mapping[str, Any]]
    view: Mapping[str, Any] | None


def build_cohort(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    view = read_view(run)
    shown = None if view is None else {name: view.get(name) for name in SHOWN}
    body = Cohort(sites=run.counts, flow=build_flow(run, view), noise=run.noise, view=shown)
    return Section(title="Cohort", body=body, paper=[cohort_table(run)] if run.cohort else [])


def build_flow(run: RunRecord, view: Mapping[str, Any] | None) -> Flow | None:
    """Build the flow of patients from the counts of the roll call; None before it. A withheld count makes its sum unknown."""
    if not run.counts:
        return None
    training = {site: parts for site, parts in run.counts.items() if site != TEST_SITE}
    few = len(training) <= FLOW_SITES
    groups = (
        [(site, [parts]) for site, parts in training.items()] if few else [("training sites", [*training.values()])]
    )
    groups += [(TEST_SITE, [run.counts[TEST_SITE]])] if TEST_SITE in run.counts else []
    columns: list[list[FlowBox]] = []
    for name, of_sites in groups:
        held = [part for parts in of_sites for part in parts.values()]
        title = name if len(of_sites) == 1 else f"{len(of_sites)} {name}"
        names = list(dict.fromkeys(part for parts in of_sites for part in parts))
        boxes = [_add(part, [parts[part] for parts in of_sites if part in parts]) for part in names]
        columns.append([_add(title, held), *boxes])
    everything = [part for parts in run.counts.values() for part in parts.values()]
    rejected = {row["reason"]: row["files"] for row in (view or {}).get("rejected") or []}
    return Flow(rejected=rejected, whole=_add("cohort", everything), columns=columns)


def _add(name: str, held: Sequence[ReadableCounts]) -> FlowBox:
    patients = [part["patients"] for part in held]
    known = [count for count in patients if isinstance(count, int)]
    total: int | str = sum(known) if len(known) == len(patients) else patients[0] if len(patients) == 1 else UNKNOWN
    return FlowBox(name=name, patients=total, slices=sum(part["slices"] for part in held))


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
