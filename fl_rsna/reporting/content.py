"""Everything the page of a run says, as plain values: report.json is this, and report.html shows nothing else but pictures."""

import json
from dataclasses import asdict
from typing import Any

from fl_rsna.choices import Stage
from fl_rsna.reading import read_json
from fl_rsna.reporting import scores, site_scores, stack_scores, stage_scores
from fl_rsna.reporting.cells import Column, Kind, Table, columns
from fl_rsna.reporting.class_scores import classes_section
from fl_rsna.reporting.headlines import headlines
from fl_rsna.reporting.pictures import pictures_section
from fl_rsna.reporting.plots import Plot
from fl_rsna.reporting.provenance import provenance, settings_table
from fl_rsna.reporting.round_plots import cost_plots, round_plots
from fl_rsna.reporting.score_plots import (
    joining_plot,
    matrix_plot,
    points_plot,
    ranking_plots,
    reliability_plot,
    sites_plot,
)
from fl_rsna.reporting.tables import RunRecord
from fl_rsna.reporting.task_words import area_name, level_titles, task_words
from fl_rsna.runs import COHORT_VIEW, COPY

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
        "stacking": _stacking(run),
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


def _stacking(run: RunRecord) -> dict[str, Any] | None:
    found = stack_scores.stacking(run)
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
    if not run.finished:
        return None
    if run.test_site is None:
        return {"tables": [asdict(_alone_table(run))], "plots": [], "missing": "", "resamples": None}
    titles = level_titles(run.task)
    tables = [scores.scores_table(run.test_site, level, titles[level]) for level in scores.levels(run.test_site)]
    return {
        "tables": [asdict(table) for table in tables],
        "plots": _plots(ranking_plots(run, run.folder)),
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
    scored, spread = bool(site_scores.by_site(run)), site_scores.spread(site_scores.defined_areas(run))
    if scored:
        tables: list[Table | None] = [site_scores.sites_table(run)]
        folded = [site_scores.labels_by_site_table(run), site_scores.points_by_site_table(run)]
    else:
        tables, folded = [site_scores.last_round_table(run)], []
    plots = [sites_plot(run), matrix_plot(run), joining_plot(run)]
    return {
        "tables": [asdict(table) for table in tables if table],
        "folded": [asdict(table) for table in folded if len(table.columns) > 1],
        "plots": _plots([plot for plot in plots if plot]),
        "spread": spread and {"name": area_name(run.quoted), "all": run.training_sites, **spread},
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
