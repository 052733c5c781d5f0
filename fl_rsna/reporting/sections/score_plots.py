"""Plots of the final model: ranking, operating points, calibration, sites, and every model at every site."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.common.hashes import read_table
from fl_rsna.learning.metrics.ranking import pr_points, roc_points
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.plotly import (
    SHARE,
    SQUARE,
    Plot,
    Trace,
    area_axis,
    axes,
    category_axis,
    diagonal,
    line,
    points,
)
from fl_rsna.reporting.record.run_record import RunRecord, area_of
from fl_rsna.reporting.record.wording import area_title, task_words
from fl_rsna.reporting.sections.scorecard import POINTS, SHORT_POINTS, Cards, is_calibrated
from fl_rsna.reporting.sections.sites import areas_by_site, cross_site, gain_table, matrix_table
from fl_rsna.run_folder.run_folder import COPY

NUMBERED_SITES = 10  # whose AUROCs stand in the cells of the matrix


def roc_pr_plots(run: RunRecord, folder: Path) -> list[Plot]:
    """ROC and precision-recall curves on the test site, from the predictions of the final model."""
    path = folder / "predictions.parquet"
    if not run.is_finished or not path.exists():
        return []
    table, pictures = read_table(path, COPY, hashed=False), task_words(run.task)["pictures"]
    roc, pr = ({label: found for label in run.labels if (found := of(table, label))} for of in (_roc, _pr))
    return [
        _curve_plot(
            "roc", f"ROC curves, test-site {pictures}", "false positive rate", "sensitivity", roc, [diagonal()]
        ),
        _curve_plot(
            "pr", f"Precision and recall, test-site {pictures}", "recall (sensitivity)", "precision (PPV)", pr, []
        ),
    ]


def _roc(table: pd.DataFrame, label: str) -> tuple[list[float], list[float]] | None:
    found = roc_points(*_extract_predictions(table, label))
    return (found["fpr"], found["tpr"]) if found["fpr"] else None


def _pr(table: pd.DataFrame, label: str) -> tuple[list[float], list[float]] | None:
    found = pr_points(*_extract_predictions(table, label))
    return (found["recall"], found["precision"]) if found["recall"] else None


def _extract_predictions(table: pd.DataFrame, label: str) -> tuple[Any, Any]:
    return table[f"label_{label}"].to_numpy(np.float32), table[f"probability_{label}"].to_numpy(np.float32)


def _curve_plot(
    name: str, title: str, x: str, y: str, found: Mapping[str, tuple[list[float], list[float]]], ground: list[Trace]
) -> Plot:
    data = [
        line(*xy, label, i, width=2.8 if i == 0 else 1.4, markers=False) for i, (label, xy) in enumerate(found.items())
    ]
    heads = [Column(name="label", kind=Kind.text), Column(name=x), Column(name=y)]
    rows = [[label, *pair] for label, xy in found.items() for pair in zip(*xy, strict=True)]
    layout = axes(x, y, xaxis=SQUARE, yaxis=SQUARE)
    return Plot(
        name=name,
        title=title,
        data=[*ground, *data],
        layout=layout,
        table=Table(title=title, columns=heads, rows=rows),
    )


def points_plot(cards: Cards) -> Plot:
    """Sensitivity and specificity of each label at the operating point that is chosen above the plot."""
    data, rows = [], []
    for point, name in SHORT_POINTS.items():
        held = {label: card["points"][point] for label, card in cards.items() if card.get("points", {}).get(point)}
        for i, rate in enumerate(("sensitivity", "specificity")):
            data.append(points(held, [found[rate] for found in held.values()], rate, i, meta={"choice": name}))
        rows += [[label, name, found["sensitivity"], found["specificity"]] for label, found in held.items()]
    return Plot(
        name="points",
        title="Sensitivity and specificity on the test site",
        data=data,
        layout=axes("", "", yaxis=SHARE, scattermode="group", scattergap=0.7),
        table=Table(
            title="Sensitivity and specificity",
            columns=columns(label="text", operating_point="text", sensitivity="score", specificity="score"),
            rows=rows,
        ),
        choices=list(SHORT_POINTS.values()),
        choice_name="Operating point",
        chosen=SHORT_POINTS[next(iter(POINTS))],
        wide=True,
    )


def reliability_plot(cards: Cards, headline: str, pictures: str) -> Plot:
    """Share of positives against mean probability, by bin, before and after temperature scaling, for one label at a time.

    `pictures` is what the rows of a bin are called.
    """
    data, rows = [diagonal()], []
    labels = [label for label, card in cards.items() if is_calibrated({label: card})]
    for label in labels:
        for i, when in enumerate(("before", "after")):
            curve = cards[label]["calibration"].get(when)
            bins = [of for of in curve["bins"] if of["count"]] if curve else []
            data += [_reliability(bins, f"{when} temperature scaling", i, label, pictures)] if bins else []
            rows += [
                [label, when, of["count"], of["mean"], of["share"], of["share_low"], of["share_high"]] for of in bins
            ]
    heads = [*columns(label="text", temperature_scaling="text"), Column(name=pictures, kind=Kind.number)]
    heads += columns(mean_probability="threshold")
    heads += columns(share_positive="score", low="score", high="score")
    return Plot(
        name="reliability",
        title="Reliability",
        data=data,
        layout=axes("mean probability of a bin", f"share of its {pictures} positive", xaxis=SQUARE, yaxis=SQUARE),
        table=Table(title="Reliability", columns=heads, rows=rows),
        choices=labels,
        choice_name="Label",
        chosen=headline if headline in labels else labels[0],
    )


def _reliability(bins: list[dict[str, Any]], name: str, style: int, label: str, pictures: str) -> Trace:
    shares = [{"value": of["share"], "low": of["share_low"], "high": of["share_high"]} for of in bins]
    trace = points([of["mean"] for of in bins], shares, name, style, meta={"choice": label})
    look = {"color": f"--c{style}", "dash": ("solid", "dash")[style], "width": 1.6}
    return {**trace, "mode": "lines+markers", "line": look, "text": [f"{of['count']:,} {pictures}" for of in bins]}


def sites_plot(run: RunRecord) -> Plot | None:
    """AUROC that the run is judged by at each site with its interval, from the worst to the best, and on the test site."""
    areas = {site: area for site, area in areas_by_site(run).items() if area["value"] is not None}
    if not areas:
        return None
    order = sorted(areas, key=lambda site: float(areas[site]["value"]))
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
    """AUROC of each site's own model, and this run's, at every site."""
    matrix = cross_site(run)
    if not matrix:
        return None
    table = matrix_table(matrix)
    sites, values = list(next(iter(matrix.values()))), [row[1:] for row in table.rows]
    few = len(matrix) <= NUMBERED_SITES
    cells: Trace = {
        "type": "heatmap", "x": sites, "y": list(matrix), "z": values, "zmin": 0, "zmax": 1,
        "colorscale": "--scale", "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1},
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
    """What each site gains by joining, from the most that is lost to the most that is gained."""
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
