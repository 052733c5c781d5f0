"""For whom a model is good: its scores by site, the worst of them, every model at every site, and who gains by joining."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty
from fl_rsna.reporting.record.run_record import RunRecord, area_of, areas_in
from fl_rsna.reporting.record.wording import area_name, plural
from fl_rsna.reporting.sections.classes import FIGURES
from fl_rsna.reporting.sections.scorecard import POINTS, SCORES, SHORT_POINTS
from fl_rsna.task import MACRO

GLOBAL = "this run"  # its row in the cross-site matrix


def by_site(run: RunRecord) -> dict[str, dict[str, Any]]:
    """Each site's CARD of the headline label on its validation part; empty when the run has none."""
    sites = (run.summary or {}).get("sites", {})
    return {site: card["slice"][run.headline] for site, card in sites.items() if run.headline in card.get("slice", {})}


def areas_by_site(run: RunRecord) -> dict[str, dict[str, Any]]:
    """Each site's estimate of the AUROC that the run is judged by, on its validation part; empty when the run has none."""
    if run.primary_label != MACRO:
        return {site: card["auroc"] for site, card in by_site(run).items()}
    sites = (run.summary or {}).get("sites", {})
    return {site: area_of(card, MACRO) for site, card in sites.items() if card.get("classes")}


def sites_table(run: RunRecord) -> Table:
    """One row a site: of labels the headline's scores, of classes those of all together."""
    return _labels_table(run) if run.primary_label != MACRO else _classes_table(run)


def _classes_table(run: RunRecord) -> Table:
    cards = {site: card for site, card in (run.summary or {}).get("sites", {}).items() if card.get("classes")}
    heads = [*columns(site="text", rarest_class="number"), *(Column(name=name) for name in FIGURES.values())]
    heads += [Column(name="log loss"), *columns(patients="number")]
    heads += [Column(name=plural(run.task.picture), kind=Kind.number)]
    rows = [
        [
            site,
            area_of(card, MACRO)["positives"],
            *(card["classes"]["slice"][figure] for figure in FIGURES),
            card["log_loss"],
            card.get("patients"),
            card.get("slices"),
        ]
        for site, card in cards.items()
    ]
    return without_empty(Table(title="Final model on each site's validation part", columns=heads, rows=rows))


def _labels_table(run: RunRecord) -> Table:
    sites = (run.summary or {}).get("sites", {})
    heads = columns(
        site="text", positive="number", AUROC="score", average_precision="score", log_loss="score", Brier="score"
    )
    heads += [*columns(ECE="score", patients="number"), Column(name=plural(run.task.picture), kind=Kind.number)]
    heads += columns(patients_positive="number")
    rows = [
        [
            site,
            card["auroc"]["positives"],
            *(card.get(name) for name in SCORES),
            sites[site].get("patients"),
            sites[site].get("slices"),
            card["auroc"].get("positive_patients"),
        ]
        for site, card in by_site(run).items()
    ]
    return without_empty(
        Table(title=f"Final model on each site's validation part, {run.headline}", columns=heads, rows=rows)
    )


def last_round_table(run: RunRecord) -> Table | None:
    """What a run without scorecards by site knows of its sites: the last round's validation, without intervals."""
    told = run.sites[(run.sites["phase"] == "validation") & run.sites["aurocs"].notna()]
    if told.empty:
        return None
    last = told[told["round"] == told["round"].max()]
    names = dict.fromkeys([*run.labels, run.primary_label])
    rows = [
        [str(row.site), *(areas_in(row.aurocs).get(f"auroc_{name}") for name in names), _number(row.loss)]
        for row in last.itertuples()
    ]
    heads = [Column(name="site", kind=Kind.text), *(Column(name=area_name(name)) for name in names)]
    title = f"Validation parts in round {int(told['round'].max())}"
    return Table(title=title, columns=[*heads, Column(name="log loss")], rows=rows)


def labels_by_site_table(run: RunRecord) -> Table:
    """AUROC of every label at every site."""
    sites = (run.summary or {}).get("sites", {})
    heads = [Column(name="site", kind=Kind.text), *(Column(name=label) for label in run.labels)]
    rows = [
        [site, *(card["slice"].get(label, {}).get("auroc") for label in run.labels)] for site, card in sites.items()
    ]
    return Table(title="AUROC of every label by site", columns=heads, rows=rows)


def points_by_site_table(run: RunRecord) -> Table:
    """What the common thresholds give at each site, for the headline label."""
    heads = [Column(name="site", kind=Kind.text)]
    heads += [
        Column(name=f"{rate}, {name}") for name in SHORT_POINTS.values() for rate in ("sensitivity", "specificity")
    ]
    rows = [
        [
            site,
            *(
                (card.get("points", {}).get(point) or {}).get(r)
                for point in POINTS
                for r in ("sensitivity", "specificity")
            ),
        ]
        for site, card in by_site(run).items()
    ]
    title = f"Sensitivity and specificity by site, {run.headline}"
    return without_empty(Table(title=title, columns=heads, rows=rows))


def spread(areas: Mapping[str, float]) -> dict[str, Any] | None:
    """The worst and the best site, and how far sites are apart; None without two sites whose AUROC is defined."""
    if len(areas) < 2:
        return None
    worst, best = min(areas, key=lambda site: areas[site]), max(areas, key=lambda site: areas[site])
    values = list(areas.values())
    return {
        "sites": len(values),
        "worst": worst,
        "least": areas[worst],
        "median": statistics.median(values),
        "best": best,
        "most": areas[best],
        "deviation": statistics.stdev(values),
    }


def find_site_aurocs(run: RunRecord) -> dict[str, float]:
    """Each site's AUROC that the run is judged by, where it is defined: the final model's, else the last round's."""
    if areas := areas_by_site(run):
        return {site: area["value"] for site, area in areas.items() if area["value"] is not None}
    table = last_round_table(run)
    place = 1 + [*dict.fromkeys([*run.labels, run.primary_label])].index(run.primary_label)
    return {row[0]: row[place] for row in table.rows if row[place] is not None} if table else {}


def cross_site(run: RunRecord) -> dict[str, dict[str, float | None]]:
    """AUROC that the run is judged by, model of -> at site: each site's own model, and this run's at the sites it was scored at."""
    matrix = run.alone.get("matrix", {})
    found = {
        model: {site: scores.get(f"auroc/{run.primary_label}") for site, scores in at_sites.items()}
        for model, at_sites in matrix.items()
    }
    areas = find_site_aurocs(run)
    return found | ({GLOBAL: {site: areas.get(site) for site in next(iter(found.values()))}} if found and areas else {})


def matrix_table(matrix: Mapping[str, Mapping[str, float | None]]) -> Table:
    sites = list(next(iter(matrix.values())))
    heads = [Column(name="model of", kind=Kind.text), *(Column(name=f"at {site}") for site in sites)]
    rows = [[model, *(at.get(site) for site in sites)] for model, at in matrix.items()]
    return Table(title="Every model at every site", columns=heads, rows=rows)


def gain_table(run: RunRecord) -> Table | None:
    """What each site gains by joining: AUROC of this run's model minus its own model's, on its validation part."""
    matrix = cross_site(run)
    if GLOBAL not in matrix:
        return None
    paired = run.gap.get("sites", {})
    rows: list[list[Any]] = []
    for site, own in ((site, matrix[site].get(site)) for site in matrix if site != GLOBAL):
        joined = matrix[GLOBAL].get(site)
        plain = joined - own if joined is not None and own is not None else None
        rows.append([site, own, joined, paired.get(site, {}).get(run.primary_label, {}).get("difference", plain)])
    heads = columns(site="text", own_model="score", this_run="score", gain="signed")
    return Table(title="Who gains by joining", columns=heads, rows=rows)


def _number(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
