"""The report of one run: report.html for eyes, report.json for programs, paper.md and paper.tex for a manuscript."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.markup import escape

from fl_rsna.cohort.whole import write_whole
from fl_rsna.reading import read_json
from fl_rsna.reporting.console import console
from fl_rsna.reporting.content import content
from fl_rsna.reporting.figures import as_svg, heterogeneity
from fl_rsna.reporting.pages import rendered, write_page
from fl_rsna.reporting.paper import as_markdown, as_tex, paper_tables
from fl_rsna.reporting.pictures import explained_slices
from fl_rsna.reporting.tables import RunRecord, read_run
from fl_rsna.runs import COHORT_VIEW, COPY


def write_report(folder: Path) -> Path:
    """Write the report into a run folder, finished or not, and return the page's path; raises ValueError without a run."""
    run = read_run(folder)
    found = content(run)
    write_json(folder / "report.json", found)
    tables = paper_tables(run)
    write_whole(folder / "paper.md", as_markdown(found["name"], tables).encode(errors="backslashreplace"))
    write_whole(folder / "paper.tex", as_tex(found["name"], tables).encode(errors="backslashreplace"))
    for text in run.beware:
        console.print(f"[yellow]beware: {escape(text)}[/yellow]", soft_wrap=True)
    path = folder / "report.html"
    write_page(path, _page(run, found))
    return path


def write_json(path: Path, found: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


def _page(run: RunRecord, found: dict[str, Any]) -> bytes:
    view = run.folder / COHORT_VIEW
    return rendered(
        "report.html.j2",
        page=found,
        heterogeneity=as_svg(heterogeneity(run.cohort, run.labels)) if run.cohort else None,
        view=read_json(view, COPY) if view.exists() else None,
        explanations=explained_slices(run.folder),
        **interactive(found),
    )


def interactive(found: dict[str, Any]) -> dict[str, Markup]:
    """What the page draws its plots from: every plot's traces and layout as JSON, and Plotly itself, where there are any."""
    from plotly.offline import get_plotlyjs

    plots = {plot["name"]: {key: plot[key] for key in ("data", "layout", "chosen")} for plot in _plots_in(found)}
    text = json.dumps(plots, separators=(",", ":")).replace("<", "\\u003c")
    return {"plots": Markup(text), "plotly": Markup(get_plotlyjs()) if plots else Markup()}


def _plots_in(found: Any) -> Iterator[dict[str, Any]]:
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
