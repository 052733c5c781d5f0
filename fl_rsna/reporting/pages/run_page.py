"""The report of one run: report.html for eyes, report.json for programs, paper.md and paper.tex for a manuscript.

All four render the same list of sections. report.json is everything that the page says, as plain values; report.html shows the same,
and pictures.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.markup import escape

from fl_rsna.common.atomic import write_whole
from fl_rsna.reporting.pages.data_pages import render_page, write_page
from fl_rsna.reporting.pages.paper import as_markdown, as_tex, paper_tables
from fl_rsna.reporting.pages.report import Report, build_report
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.matplotlib import as_svg, heterogeneity
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.cohort import read_view
from fl_rsna.reporting.sections.pictures import read_explained_slices


def report_json(report: Report) -> bytes:
    """report.json: the report's keys, with each section's body under the section's name, or null."""
    bodies = {name: section and section.body for name, section in report.sections.items()}
    content = {field: getattr(report, field) for field in report.__dataclass_fields__ if field != "sections"} | bodies
    return (json.dumps(content, indent=1, allow_nan=False, default=_as_plain) + "\n").encode()


def _as_plain(found: object) -> object:
    if not is_dataclass(found) or isinstance(found, type):
        raise TypeError(f"report.json: expected plain values or records of them, got {type(found).__name__}")
    return asdict(found)


def write_report(folder: Path) -> Path:
    """Write the report into a run folder, finished or not, and return the page's path; raises ValueError without a run."""
    run = read_run(folder)
    report = build_report(run)
    content, tables = report_json(report), paper_tables(report)
    write_whole(folder / "report.json", content)
    write_whole(folder / "paper.md", as_markdown(report.name, tables).encode(errors="backslashreplace"))
    write_whole(folder / "paper.tex", as_tex(report.name, tables).encode(errors="backslashreplace"))
    for text in run.beware:
        console.print(f"[yellow]beware: {escape(text)}[/yellow]", soft_wrap=True)
    path, page = folder / "report.html", json.loads(content)
    html = render_page(
        "report.html.j2",
        page=page,
        sections={name: section.title for name, section in report.sections.items() if section},
        heterogeneity=as_svg(heterogeneity(run.cohort, run.labels)) if run.cohort else None,
        view=read_view(run),
        explanations=read_explained_slices(run.folder),
        **interactive(page),
    )
    write_page(path, html)
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
