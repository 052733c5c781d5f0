"""The report of one run: report.html for eyes, report.json for programs, paper.md and paper.tex for a manuscript.

All four render the same list of sections. report.json is everything that the page says, as plain values; report.html shows the same,
and pictures.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.markup import escape

from fl_rsna.common.atomic import write_whole
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.reporting.pages.data_pages import render_page, write_page
from fl_rsna.reporting.record.cells import Table
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.matplotlib import SHARES, as_svg, heterogeneity
from fl_rsna.reporting.record.outcome import list_cautions
from fl_rsna.reporting.record.paper import as_markdown, as_tex
from fl_rsna.reporting.record.paper_figures import list_plots, write_figures
from fl_rsna.reporting.record.run_record import Failure, RunRecord, read_run
from fl_rsna.reporting.record.wording import run_title, task_words
from fl_rsna.reporting.sections.calibration import build_calibration
from fl_rsna.reporting.sections.classes import build_classes
from fl_rsna.reporting.sections.cohort import build_cohort, read_view
from fl_rsna.reporting.sections.cost import build_cost
from fl_rsna.reporting.sections.curves import build_curves
from fl_rsna.reporting.sections.discrimination import build_discrimination
from fl_rsna.reporting.sections.headline import Detection, Headline, detect_exams, headlines
from fl_rsna.reporting.sections.pictures import build_pictures, read_explained_slices, read_strips
from fl_rsna.reporting.sections.points import build_points
from fl_rsna.reporting.sections.provenance import build_provenance, settings_table
from fl_rsna.reporting.sections.scorecard import build_scorecard
from fl_rsna.reporting.sections.section import Section
from fl_rsna.reporting.sections.sites import build_sites
from fl_rsna.reporting.sections.stacking import build_stacking
from fl_rsna.reporting.sections.stages import build_stages
from fl_rsna.settings.stages import Baseline, Stage

# The sections that a paper takes tables of, in its order.
ORDER = ("cohort", "classes", "scorecard", "stages", "stacking", "sites", "points", "cost")
HETEROGENEITY = "Share of each site's images with each label; beside the label, of all images"
FIGURES = "figures"  # the folder in a run's folder
SCORES = frozenset(ORDER) - {"cohort", "cost"}


# The sections in the page's order, by their key in report.json, which is also the name of their template and their anchor on the page.
SECTIONS: Mapping[str, Callable[[RunRecord], Section | None]] = {
    "cohort": build_cohort,
    "curves": build_curves,
    "stages": build_stages,
    "stacking": build_stacking,
    "classes": build_classes,
    "scorecard": build_scorecard,
    "discrimination": build_discrimination,
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
    """How a run ended, why it failed, its last round, files that are not as it wrote them, and what makes its scores no results.

    `synthetic` says that its images are phantoms; `cautions` are what its counts cannot show.
    """

    status: str
    reason: str | None
    last_round: int | None
    beware: list[str]
    synthetic: bool
    leaky: bool
    crops_from_truth: bool
    cautions: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a run's report says. `sections` holds None for a section that the run does not have."""

    name: str
    title: str
    kind: str
    state: State
    labels: list[str]
    headline: str
    words: Mapping[str, str]
    detection: Detection | None
    test_data: str
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
        synthetic=run.is_synthetic,
        leaky=run.leaky,
        crops_from_truth=run.crops_from_truth,
        cautions=list_cautions(run),
    )
    return Report(
        name=run.name,
        title=run_title(run.task, run.config["baseline"], run.num_training_sites),
        kind=KINDS.get(run.config["baseline"], "Federated run") + STAGES.get(run.config["stage"], ""),
        state=state,
        labels=run.labels,
        headline=run.headline,
        words=task_words(run.task),
        detection=detect_exams(run),
        test_data=run.test_data,
        headlines=headlines(run),
        sections={name: build(run) for name, build in SECTIONS.items()},
        failures=run.failures,
        settings=settings_table(run.config),
    )


def report_json(report: Report) -> bytes:
    """report.json: the report's keys, with each section's body under the section's name, or null."""
    bodies = {name: section and section.body for name, section in report.sections.items()}
    content = {field: getattr(report, field) for field in report.__dataclass_fields__ if field != "sections"} | bodies
    return (json.dumps(content, indent=1, allow_nan=False, default=_as_plain) + "\n").encode()


def _as_plain(found: object) -> object:
    if not is_dataclass(found) or isinstance(found, type):
        raise TypeError(f"report.json: expected plain values or records of them, got {type(found).__name__}")
    return asdict(found)


def write_report(folder: Path, *, figures: bool = False) -> Path:
    """Write the report into a run folder, finished or not, and return the page's path; raises ValueError without a run.

    With `figures` every plot is also written to figures/, as SVG and PDF for a paper.
    """
    run = read_run(folder)
    report = build_report(run)
    content, tables = report_json(report), paper_tables(report)
    write_whole(folder / "report.json", content)
    write_whole(folder / "paper.md", as_markdown(report.name, tables).encode(errors="backslashreplace"))
    write_whole(folder / "paper.tex", as_tex(report.name, tables).encode(errors="backslashreplace"))
    for text in run.beware:
        console.print(f"[yellow]warning: {escape(text)}[/yellow]", soft_wrap=True)
    path, page = folder / "report.html", json.loads(content)
    html = render_page(
        "report.html.j2",
        page=page,
        sections={name: section.title for name, section in report.sections.items() if section},
        heterogeneity=as_svg(heterogeneity(run.cohort, run.labels), SHARES) if run.cohort else None,
        view=read_view(run),
        explanations=read_explained_slices(run.folder),
        strips=read_strips(run.folder),
        **interactive(page),
    )
    write_page(path, html)
    if figures:
        shares = {f"{HETEROGENEITY}.": heterogeneity(run.cohort, run.labels)} if run.cohort else {}
        write_figures(folder / FIGURES, list_plots(report.sections), shares)
    return path


def interactive(found: object) -> dict[str, Markup]:
    """What a page draws its plots from: every plot's traces and layout as JSON, and Plotly itself, where there are any."""
    from plotly.offline import get_plotlyjs

    plots = {plot["name"]: {key: plot[key] for key in ("data", "layout", "chosen")} for plot in _plots_in(found)}
    text = json.dumps(plots, separators=(",", ":")).replace("<", "\\u003c")
    return {"plots": Markup(text), "plotly": Markup(get_plotlyjs()) if plots else Markup()}


def _plots_in(found: object) -> Iterator[Mapping[str, Any]]:
    """Every plot, wherever in the content it is."""
    match found:
        case {"plots": list(plots), **rest}:
            yield from plots
            yield from _plots_in(list(rest.values()))
        case dict():
            yield from _plots_in(list(found.values()))
        case list():
            for part in found:
                yield from _plots_in(part)


def paper_tables(report: Report) -> list[Table]:
    """The tables of a paper in its order; those of scores say so where annotations decided what the model was shown."""
    tables = []
    for name in ORDER:
        section = report.sections[name]
        for table in section.paper if section else ():
            warned = report.state.crops_from_truth and name in SCORES
            tables.append(replace(table, title=f"{table.title}. NOT A RESULT: {TRUTH_SHOWN}") if warned else table)
    return tables
