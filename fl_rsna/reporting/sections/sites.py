"""The section by site: for whom a model is good, the worst site, every model at every site, and who gains by joining."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty
from fl_rsna.reporting.record.plotly import Plot, Trace, area_axis, axes, category_axis, colour_bar, line, points
from fl_rsna.reporting.record.run_record import RunRecord, area_of, areas_in
from fl_rsna.reporting.record.wording import area_name, area_title, plural
from fl_rsna.reporting.sections.classes import FIGURES, overall
from fl_rsna.reporting.sections.scorecard import SHORT_POINTS
from fl_rsna.reporting.sections.section import Section
from fl_rsna.task import MACRO

GLOBAL = "this run"  # its row in the cross-site matrix
NUMBERED_SITES = 10  # whose AUROCs stand in the cells of the matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The worst and the best site, and how far sites are apart, by an AUROC with a `name`.

    `sites` of `all` training sites have it.
    """

    name: str
    all: int
    sites: int
    worst: str
    least: float
    median: float
    best: str
    most: float
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Scores by site: of the final model with intervals (`of_final_model`), else of the last round. `missing` says why not the first."""

    tables: Sequence[Table]
    folded: Sequence[Table]
    plots: Sequence[Plot]
    spread: Spread | None
    of_final_model: bool
    missing: str


def build_sites(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    scored = bool(run.cards)
    of_last_round = None if scored else last_round_table(run)
    tables = [sites_table(run)] if scored else [of_last_round] if of_last_round else []
    folded = [labels_by_site_table(run), points_by_site_table(run)] if scored else []
    plots = [sites_plot(run), matrix_plot(run), gain_plot(run)]
    body = Sites(
        tables=tables,
        folded=[table for table in folded if len(table.columns) > 1],
        plots=[plot for plot in plots if plot],
        spread=measure_spread(run),
        of_final_model=scored,
        missing="" if scored or not run.test_site else "No site answered with scores of the final model.",
    )
    return Section(title="Sites", body=body, paper=tables if scored and run.test_site is not None else [])


def areas_by_site(run: RunRecord) -> dict[str, EstimateFigures]:
    """Each site's estimate of the AUROC that the run is judged by, on its validation part; empty while there are none."""
    return {site: area_of(card, run.primary_label) for site, card in run.cards.items()}


def sites_table(run: RunRecord) -> Table:
    """One row a site: of labels the headline's scores, of classes those of all together."""
    title, pictures = "Final model on each site's validation part", plural(run.task.picture)
    rows: list[list[Any]] = []
    if run.primary_label == MACRO:
        heads = [*columns(site="text", rarest_class="number"), *(Column(name=name) for name in FIGURES.values())]
        heads += [Column(name="log loss"), *columns(patients="number"), Column(name=pictures, kind=Kind.number)]
        for site, card in run.cards.items():
            figures = overall(card["classes"]["slice"])
            rows.append(
                [site, area_of(card, MACRO)["positives"], *figures, card["log_loss"], card["patients"], card["slices"]]
            )
        return without_empty(Table(title=title, columns=heads, rows=rows))
    heads = columns(
        site="text", positive="number", AUROC="score", average_precision="score", log_loss="score", Brier="score"
    )
    heads += [*columns(ECE="score", patients="number"), Column(name=pictures, kind=Kind.number)]
    heads += columns(patients_positive="number")
    for site, card in run.cards.items():
        of = card["slice"][run.headline]
        scores = [of["auroc"], of["average_precision"], of["log_loss"], of["brier"], of["ece"]]
        counts = [card["patients"], card["slices"], of["auroc"]["positive_patients"]]
        rows.append([site, of["auroc"]["positives"], *scores, *counts])
    return without_empty(Table(title=f"{title}, {run.headline}", columns=heads, rows=rows))


def last_round_table(run: RunRecord) -> Table | None:
    """One row a site: its validation in the last round, without intervals; None where no site has validated."""
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
    """One row a site: the AUROC of every label."""
    heads = [Column(name="site", kind=Kind.text), *(Column(name=label) for label in run.labels)]
    rows = [[site, *(card["slice"][label]["auroc"] for label in run.labels)] for site, card in run.cards.items()]
    return Table(title="AUROC of every label by site", columns=heads, rows=rows)


def points_by_site_table(run: RunRecord) -> Table:
    """One row a site: sensitivity and specificity of the headline label at the common thresholds."""
    heads = [Column(name="site", kind=Kind.text)]
    heads += [
        Column(name=f"{rate}, {name}") for name in SHORT_POINTS.values() for rate in ("sensitivity", "specificity")
    ]
    rows: list[list[Any]] = []
    for site, card in run.cards.items():
        points = [card["slice"][run.headline]["points"].get(point) for point in SHORT_POINTS]
        rates = [[of["sensitivity"], of["specificity"]] if of else [None, None] for of in points]
        rows.append([site, *(rate for pair in rates for rate in pair)])
    title = f"Sensitivity and specificity by site, {run.headline}"
    return without_empty(Table(title=title, columns=heads, rows=rows))


def measure_spread(run: RunRecord) -> Spread | None:
    """The spread over sites of the AUROC that the run is judged by; None without two sites where it is defined."""
    areas = find_site_aurocs(run)
    if len(areas) < 2:
        return None
    worst, best = min(areas, key=lambda site: areas[site]), max(areas, key=lambda site: areas[site])
    values = list(areas.values())
    return Spread(
        name=area_name(run.primary_label),
        all=run.num_training_sites,
        sites=len(values),
        worst=worst,
        least=areas[worst],
        median=statistics.median(values),
        best=best,
        most=areas[best],
        deviation=statistics.stdev(values),
    )


def find_site_aurocs(run: RunRecord) -> dict[str, float]:
    """Each site's AUROC that the run is judged by, where it is defined: the final model's, else the last round's."""
    if areas := areas_by_site(run):
        return {site: area["value"] for site, area in areas.items() if area["value"] is not None}
    table = last_round_table(run)
    place = 1 + [*dict.fromkeys([*run.labels, run.primary_label])].index(run.primary_label)
    return {row[0]: row[place] for row in table.rows if row[place] is not None} if table else {}


def cross_site(run: RunRecord) -> dict[str, dict[str, float | None]]:
    """The AUROC that the run is judged by, by the model's site and the scored site: each site's own model, and this run's."""
    matrix = {} if run.alone is None else run.alone["matrix"]
    found = {
        model: {site: scores.get(f"auroc/{run.primary_label}") for site, scores in at_sites.items()}
        for model, at_sites in matrix.items()
    }
    areas = find_site_aurocs(run)
    return found | ({GLOBAL: {site: areas.get(site) for site in next(iter(found.values()))}} if found and areas else {})


def matrix_table(matrix: Mapping[str, Mapping[str, float | None]]) -> Table:
    """One row a model, one column a site it was scored at."""
    sites = list(next(iter(matrix.values())))
    heads = [Column(name="model of", kind=Kind.text), *(Column(name=f"at {site}") for site in sites)]
    rows = [[model, *(at.get(site) for site in sites)] for model, at in matrix.items()]
    return Table(title="Every model at every site", columns=heads, rows=rows)


def gain_table(run: RunRecord) -> Table | None:
    """One row a site: AUROC of its own model and of this run's, on its validation part, and the gain by joining; None without them."""
    matrix = cross_site(run)
    if GLOBAL not in matrix:
        return None
    paired = {} if run.gap is None else run.gap.sites
    rows: list[list[Any]] = []
    for site in [name for name in matrix if name != GLOBAL]:
        own, joined = matrix[site].get(site), matrix[GLOBAL].get(site)
        plain = joined - own if joined is not None and own is not None else None
        gain = paired[site][run.primary_label]["difference"] if site in paired else plain
        rows.append([site, own, joined, gain])
    heads = columns(site="text", own_model="score", this_run="score", gain="signed")
    return Table(title="Who gains by joining", columns=heads, rows=rows)


def sites_plot(run: RunRecord) -> Plot | None:
    """Plot each site's AUROC with its interval, from the worst to the best, and the test site's; None without any."""
    areas = {site: area for site, area in areas_by_site(run).items() if area["value"] is not None}
    if not areas:
        return None
    order = sorted(areas, key=lambda site: areas[site]["value"] or 0.0)
    data = [points(order, [areas[site] for site in order], "site's validation part", 0)]
    if run.test_site:
        area = area_of(run.test_site, run.primary_label)["value"]
        data.append(line([order[0], order[-1]], [area, area], "test site", 1, markers=False))
    heads = columns(site="text", positive="number", AUROC="score")
    return Plot(
        name="sites",
        title=f"{area_title(run.primary_label)} by site",
        data=data,
        layout=axes("sites, from the worst to the best", "AUROC", yaxis=area_axis(data), xaxis=category_axis(order)),
        table=Table(
            title="By site", columns=heads, rows=[[site, areas[site]["positives"], areas[site]] for site in order]
        ),
        wide=True,
    )


def matrix_plot(run: RunRecord) -> Plot | None:
    """Plot the AUROC of each site's own model, and this run's, at every site; None where no site trained alone."""
    matrix = cross_site(run)
    if not matrix:
        return None
    table = matrix_table(matrix)
    sites, values = list(next(iter(matrix.values()))), [row[1:] for row in table.rows]
    few = len(matrix) <= NUMBERED_SITES
    cells: Trace = {
        "type": "heatmap", "x": sites, "y": list(matrix), "z": values, "zmin": 0, "zmax": 1,
        "colorscale": "--scale", "colorbar": colour_bar("AUROC"),
        "hovertemplate": "model of %{y} at %{x}: %{z:.3f}<extra></extra>",
    }  # fmt: skip
    if few:
        cells |= {"texttemplate": "%{z:.2f}", "xgap": 1, "ygap": 1}
    size = {"height": 320 if few else 560}
    return Plot(
        name="matrix",
        title=f"{area_title(run.primary_label)}: every model at every site",
        data=[cells],
        layout=axes(
            "at site",
            "model of",
            xaxis=category_axis(sites),
            yaxis={**category_axis(list(matrix)), "autorange": "reversed"},
            **size,
        ),
        table=table,
        wide=True,
    )


def gain_plot(run: RunRecord) -> Plot | None:
    """Plot what each site gains by joining, from the most that is lost to the most that is gained; None without it."""
    table = gain_table(run)
    if table is None:
        return None
    gains = {
        row[0]: row[3] if isinstance(row[3], dict) else {"value": row[3], "low": None, "high": None}
        for row in table.rows
    }
    order = sorted(
        (site for site, gain in gains.items() if gain["value"] is not None), key=lambda s: float(gains[s]["value"])
    )
    zero = {"zeroline": True, "zerolinecolor": "--soft", "zerolinewidth": 1}
    return Plot(
        name="joining",
        title=f"{area_title(run.primary_label)}: this run's model minus the site's own",
        data=[points(order, [gains[site] for site in order], "gain", 0, showlegend=False)],
        layout=axes(
            "sites, from the most lost to the most gained", "difference", yaxis=zero, xaxis=category_axis(order)
        ),
        table=table,
        wide=True,
    )


def _number(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
