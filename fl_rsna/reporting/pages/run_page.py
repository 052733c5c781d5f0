"""The report of one run: report.html for eyes, report.json for programs, paper.md and paper.tex for a manuscript.

report.json is everything that the page says, as plain values; report.html shows the same, and pictures.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.markup import escape

from fl_rsna.common.atomic import write_whole
from fl_rsna.common.reading import read_json
from fl_rsna.reporting.pages.data_pages import render_page, write_page
from fl_rsna.reporting.pages.paper import as_markdown, as_tex, paper_tables
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.matplotlib import as_svg, heterogeneity
from fl_rsna.reporting.record.plotly import Plot
from fl_rsna.reporting.record.run_record import RunRecord, read_run
from fl_rsna.reporting.record.wording import area_name, level_titles, task_words
from fl_rsna.reporting.sections import scorecard as scores
from fl_rsna.reporting.sections import sites as site_scores
from fl_rsna.reporting.sections import stages as stack_scores
from fl_rsna.reporting.sections import stages as stage_scores
from fl_rsna.reporting.sections.classes import classes_section
from fl_rsna.reporting.sections.headline import headlines
from fl_rsna.reporting.sections.pictures import pictures_section, read_explanations
from fl_rsna.reporting.sections.provenance import provenance, settings_table
from fl_rsna.reporting.sections.rounds import cost_plots, round_plots
from fl_rsna.reporting.sections.score_plots import (
    gain_plot,
    matrix_plot,
    points_plot,
    reliability_plot,
    roc_pr_plots,
    sites_plot,
)
from fl_rsna.run_folder.run_folder import COHORT_VIEW, COPY
from fl_rsna.settings.stages import Stage

TOLD = ("census", "rejected", "label_shift")  # of the cohort's view, in report.json
OLDER = "This run does not hold them: an older version made it. Repeat it to have them."
KINDS = {"central": "Baseline: all sites' data pooled", "local": "Baseline: every site alone"}


def content(run: RunRecord) -> dict[str, Any]:
    """The sections of the page, in its order; one that the run cannot fill says why in `missing` or is None."""
    found = {
        "name": run.name,
        "kind": _kind(run),
        "state": _state(run),
        "labels": run.labels,
        "headline": run.headline,
        "words": task_words(run.task),
        "headlines": headlines(run),
        "cohort": _cohort(run),
        "curves": {"plots": _plots(round_plots(run))},
        "stages": _stages(run),
        "stacking": _stack_section(run),
        "classes": classes_section(run),
        "scorecard": _scorecard(run),
        "sites": _sites(run),
        "points": _points(run),
        "calibration": _calibration(run),
        "pictures": pictures_section(run.folder),
        "cost": _cost(run),
        "failures": [{key: f[key] for key in ("round", "phase", "site", "error")} for f in run.failures],
        "provenance": provenance(run),
        "settings": asdict(settings_table(run.config)),
    }
    return dict(json.loads(json.dumps(found, allow_nan=False)))  # as the page is given it, so it is written


def _kind(run: RunRecord) -> str:
    kind = KINDS.get(run.config["baseline"], "Federated run")
    stages = {Stage.sequence: ", second stage: a head over series", Stage.stacking: ", a stacking of slice models"}
    return kind + stages.get(run.config.get("stage", Stage.slice), "")


def _stages(run: RunRecord) -> dict[str, Any] | None:
    found = stage_scores.stages(run)
    return found and {**found, "compared": asdict(found["compared"]), "chosen": asdict(found["chosen"])}


def _stack_section(run: RunRecord) -> dict[str, Any] | None:
    found = stack_scores.stack_section(run)
    return found and {**found, "compared": asdict(found["compared"]), "labels": asdict(found["labels"])}


def _state(run: RunRecord) -> dict[str, Any]:
    last = None if run.rounds.empty else int(run.rounds["round"].max())
    state = {
        "leaky": run.leaky,
        "crops_from_truth": run.crops_from_truth,
        "last_round": last,
        "reason": None,
        "beware": run.beware,
    }
    if run.summary is None:
        return {**state, "status": "unfinished"}
    return {**state, "status": run.summary["status"], "reason": run.summary.get("reason")}


def _cohort(run: RunRecord) -> dict[str, Any]:
    path = run.folder / COHORT_VIEW
    view = read_json(path, COPY) if path.exists() else None
    return {
        "sites": run.counts,
        "noise": run.noise,
        "view": {"label_shift": None, **{name: view[name] for name in TOLD if name in view}} if view else None,
    }


def _scorecard(run: RunRecord) -> dict[str, Any] | None:
    if not run.is_finished:
        return None
    if run.test_site is None:
        return {"tables": [asdict(_alone_table(run))], "plots": [], "missing": "", "resamples": None}
    titles = level_titles(run.task)
    tables = [scores.scores_table(run.test_site, level, titles[level]) for level in scores.levels(run.test_site)]
    return {
        "tables": [asdict(table) for table in tables],
        "plots": _plots(roc_pr_plots(run, run.folder)),
        "missing": ""
        if "exam" in run.test_site
        else f"Exam-level scores, Brier scores and calibration: {OLDER.lower()}",
        "resamples": run.test_site.get("resamples", 1000),
    }


def _alone_table(run: RunRecord) -> Table:
    """Of a run whose sites trained alone: each one's model on the test site."""
    alone = (run.summary or {}).get("alone", {})
    heads = [Column(name="model of", kind=Kind.text)]
    heads += [Column(name=label) for label in run.labels]
    rows = [[site, *(of["test_site"]["slice"][label]["auroc"] for label in run.labels)] for site, of in alone.items()]
    return Table(title="AUROC of each site's own model on the test site", columns=heads, rows=rows)


def _sites(run: RunRecord) -> dict[str, Any]:
    scored, spread = bool(site_scores.by_site(run)), site_scores.spread(site_scores.find_site_aurocs(run))
    if scored:
        tables: list[Table | None] = [site_scores.sites_table(run)]
        folded = [site_scores.labels_by_site_table(run), site_scores.points_by_site_table(run)]
    else:
        tables, folded = [site_scores.last_round_table(run)], []
    plots = [sites_plot(run), matrix_plot(run), gain_plot(run)]
    return {
        "tables": [asdict(table) for table in tables if table],
        "folded": [asdict(table) for table in folded if len(table.columns) > 1],
        "plots": _plots([plot for plot in plots if plot]),
        "spread": spread and {"name": area_name(run.primary_label), "all": run.num_training_sites, **spread},
        "of_final_model": scored,
        "missing": "" if scored or not run.test_site else f"Scorecards by site: {OLDER.lower()}",
    }


def _points(run: RunRecord) -> dict[str, Any] | None:
    if run.test_site is None:
        return None
    by_level = {name: cards for name, cards in scores.levels(run.test_site).items() if scores.has_points(cards)}
    if not by_level:
        return {
            "missing": f"Operating points: {OLDER.lower()}",
            "levels": [],
            "plots": [],
            "chosen_on": "",
            "thresholds": None,
        }
    operating, titles = (run.summary or {}).get("operating_points") or {}, level_titles(run.task)
    tables = [
        {"title": titles[name], "tables": [asdict(scores.points_table(cards, point)) for point in scores.POINTS]}
        for name, cards in by_level.items()
    ]
    return {
        "missing": "",
        "chosen_on": operating.get("chosen_on", "validation parts of the sites"),
        "levels": tables,
        "plots": _plots([points_plot(next(iter(by_level.values())))]),
        "thresholds": asdict(scores.thresholds_table(operating, titles)) if operating else None,
    }


def _calibration(run: RunRecord) -> dict[str, Any] | None:
    if run.test_site is None:
        return None
    by_level = {name: cards for name, cards in scores.levels(run.test_site).items() if scores.is_calibrated(cards)}
    if not by_level:
        return {"missing": f"Reliability curves: {OLDER.lower()}", "tables": [], "folded": [], "plots": []}
    titles = level_titles(run.task)
    tables = [{**asdict(scores.calibration_table(cards)), "title": titles[name]} for name, cards in by_level.items()]
    plot = reliability_plot(next(iter(by_level.values())), run.headline, task_words(run.task)["pictures"])
    return {"missing": "", "tables": tables[:1], "folded": tables[1:], "plots": _plots([plot])}


def _cost(run: RunRecord) -> dict[str, Any]:
    summary = run.summary or {}
    kept = ("wall_s", "bytes_down", "bytes_up", "virtual_s", "usd", "rounds", "site_failures")
    return {
        "table": asdict(_cost_table(run)),
        "plots": _plots(cost_plots(run)),
        **{name: summary.get(name) for name in kept},
        "network": run.config.get("network"),
        "pooled": run.config["baseline"] == "central",
    }


def _cost_table(run: RunRecord) -> Table:
    """One row a site: how often it took part, what it computed and what travelled."""
    rows: list[list[Any]] = []
    for site, part in run.sites.groupby("site", sort=False):
        trained = part[part["phase"] == "train"]
        done, failed = int(trained["loss"].notna().sum()), int(part["error"].notna().sum())
        moved = [int(part[name].sum()) for name in ("bytes_down", "bytes_up")]
        rows.append([str(site), done, failed, float(trained["seconds"].sum()), *moved])
    heads = columns(site="text", rounds_trained="number", failures="number", training_seconds="seconds")
    return Table(title="Cost by site", columns=[*heads, *columns(received="megabytes", sent="megabytes")], rows=rows)


def _plots(plots: list[Plot]) -> list[dict[str, Any]]:
    return [asdict(plot) for plot in plots]


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
    return render_page(
        "report.html.j2",
        page=found,
        heterogeneity=as_svg(heterogeneity(run.cohort, run.labels)) if run.cohort else None,
        view=read_json(view, COPY) if view.exists() else None,
        explanations=read_explanations(run.folder),
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
