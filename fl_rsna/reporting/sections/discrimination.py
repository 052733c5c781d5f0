"""The section on discrimination: how well the model tells exams, and slices, with a label from those without.

ROC curve with its 95% band and operating points, precision and recall with the prevalence, probabilities by truth, net benefit, and
the AUROC of subgroups. All are of the test site's predictions or of new scans, and bands rest on the draws of patients of the scorecard's intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.common.hashes import read_table
from fl_rsna.learning.metrics.bootstrap import Drawn, draw_patients, estimate, support
from fl_rsna.learning.metrics.curves import BARS, BENEFIT, Band, count_by_truth, net_benefit, roc_band
from fl_rsna.learning.metrics.exams import Aggregate, exam_probabilities, group_exams
from fl_rsna.learning.metrics.figures import EstimateFigures, PointFigures
from fl_rsna.learning.metrics.ranking import pr_points, rank, roc_points
from fl_rsna.learning.metrics.scorecard import HeldOutFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.plotly import SQUARE, Plot, Trace, axes, diagonal, line, points
from fl_rsna.reporting.record.run_record import ScoredRecord
from fl_rsna.reporting.record.wording import label_in_words, plural
from fl_rsna.reporting.sections.scorecard import SHORT_POINTS, Cards
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.run_folder import COPY, PREDICTIONS
from fl_rsna.task import LabelKind

OF = Column(name="label and level", kind=Kind.text)  # the first column of each plot's numbers
FEW_POSITIVE = 3  # slices of an exam with little of the finding
LEAST_BENEFIT = -0.05  # below it a decision curve is not drawn
THIRDS = ("lowest", "middle", "highest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination:
    """The plots of one label at a time, of exams and of slices, and of the headline label's subgroups.

    `resamples` is how many draws of patients the bands rest on.
    """

    plots: Sequence[Plot]
    resamples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one level where a label is known: truth, probability and draws of their patients, and the label's operating points.

    `name` says level and label as a reader chooses them.
    """

    name: str
    what: str
    truth: NDArray[np.float32]
    found: NDArray[np.float64]
    drawn: Drawn
    points: Mapping[str, PointFigures | None]

    def select(self, mask: NDArray[np.bool_]) -> "Rows":
        """The rows where `mask` [N] is True."""
        return Rows(
            name=self.name,
            what=self.what,
            truth=self.truth[mask],
            found=self.found[mask],
            drawn=self.drawn.among(mask),
            points=self.points,
        )


def build_discrimination(run: ScoredRecord) -> Section | None:
    """Build the section; None of a record without predictions or scores."""
    path = run.folder / PREDICTIONS
    if run.test_site is None or not path.exists():
        return None
    table, test = read_table(path, COPY, hashed=False), run.test_site
    known = table[[f"label_{label}" for label in run.labels]].notna().any(axis=1)
    table = table[
        table[run.task.group_key].isin(table.loc[known, run.task.group_key])
    ]  # as the scorecard leaves the others out
    every = [rows for rows in _rows_by_level(run, table, test) if 0 < rows.truth.sum() < len(rows.truth)]
    if not every:
        return None
    plots = [plot(every, run.test_data) for plot in (roc_plot, pr_plot, scores_plot, benefit_plot)]
    plots += subgroup_plots(run, table, test)
    return Section(title="Discrimination", body=Discrimination(plots=plots, resamples=test["resamples"]))


def _draws(run: ScoredRecord, table: pd.DataFrame, test: HeldOutFigures) -> Drawn:
    """The draws of patients that the scorecard's intervals rest on."""
    return draw_patients(table[run.task.group_key].to_numpy(), seed=run.draws_seed, resamples=test["resamples"])


def _rows_by_level(run: ScoredRecord, table: pd.DataFrame, test: HeldOutFigures) -> Iterator[Rows]:
    """Every label at exam level, where there are exams, the headline label first, and then every label of slices."""
    task, drawn = run.task, _draws(run, table, test)
    order = [run.headline, *(label for label in run.labels if label != run.headline)]
    labels = table[[f"label_{label}" for label in order]].to_numpy(np.float32)
    found = table[[f"probability_{label}" for label in order]].to_numpy(np.float64)
    levels: list[tuple[str, NDArray[np.float32], NDArray[np.float64], Drawn, Cards]] = []
    for aggregate, of_labels in list(test["exam"].items())[:1]:
        exams = group_exams(labels, table[task.group_key].to_numpy(), table[task.exam_key].to_numpy(), task.kind)
        of_exams = exam_probabilities(found, exams, Aggregate(aggregate))
        levels.append((plural(task.exam), exams.labels, of_exams, drawn.of_rows(exams.patients), of_labels))
    levels.append((plural(task.picture), labels, found, drawn, test["slice"]))
    for what, truth, scores, of_level, cards in levels:
        for i, label in enumerate(order):
            known: NDArray[np.bool_] = ~np.isnan(truth[:, i])
            yield Rows(
                name=f"{label}, {what}",
                what=what,
                truth=truth[known, i],
                found=scores[known, i],
                drawn=of_level.among(known),
                points=cards[label]["points"] if label in cards else {},
            )


def roc_plot(every: Sequence[Rows], test_data: str) -> Plot:
    """Plot sensitivity against the false positive rate, with the 95% band and the operating points."""
    data, body = [diagonal()], []
    for rows in every:
        curve, meta = roc_points(rows.truth, rows.found), _meta(rows)
        band = roc_band(rows.truth, rows.found, rows.drawn)
        data += [_band(band, meta)] if band else []
        data.append(line(_short(curve["fpr"]), _short(curve["tpr"]), "model", 0, width=2.4, markers=False, **meta))
        marks = {point: of for point, of in rows.points.items() if of is not None}
        for i, (point, of) in enumerate(marks.items()):
            specificity, sensitivity = of["specificity"]["value"], of["sensitivity"]["value"]
            if specificity is not None and sensitivity is not None:
                spot = points([1 - specificity], [sensitivity], SHORT_POINTS.get(point, point), 1 + i, **meta)
                data.append({**spot, "text": [f"threshold {of['threshold']:.3g}"]})
        low, high = (
            ({}, {}) if band is None else (dict(zip(band.fpr, ends, strict=True)) for ends in (band.low, band.high))
        )
        body += [
            [rows.name, rate, float(np.interp(rate, curve["fpr"], curve["tpr"])), low.get(rate), high.get(rate)]
            for rate in (low or np.linspace(0, 1, 21).tolist())
        ]
    heads = [
        OF,
        *columns(false_positive_rate="score", sensitivity="score", low="score", high="score"),
    ]
    return _choice_plot(
        every,
        test_data,
        name="roc",
        title="ROC curve",
        data=data,
        layout=axes("false positive rate (1 − specificity)", "sensitivity", xaxis=SQUARE, yaxis=SQUARE),
        table=Table(title="ROC curve and its 95% band", columns=heads, rows=body),
        note="Band: 95% interval of sensitivity at each false positive rate, over patients; none where too few have or lack the label. "
        "Marks: operating points that validation data chose.",
    )


def _band(band: Band, meta: Mapping[str, Any]) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _short([*band.fpr, *band.fpr[::-1]]),
        "y": _short([*band.high, *band.low[::-1]]),
        "fill": "toself",
        "fillcolor": "--c0",
        "opacity": 0.2,
        "line": {"width": 0},
        "name": "95% band",
        "hoverinfo": "skip",
        **meta,
    }


def pr_plot(every: Sequence[Rows], test_data: str) -> Plot:
    """Plot precision against recall, and the prevalence, which is the precision of calling every row positive."""
    data, body = [], []
    for rows in every:
        curve, meta = pr_points(rows.truth, rows.found, 100), _meta(rows)
        share = float(rows.truth.mean())
        recall, precision = _short(curve["recall"]), _short(curve["precision"])
        data.append(line(recall, precision, "model", 0, width=2.4, markers=False, **meta))
        data.append(line([0, 1], [share, share], f"prevalence {share:.3f}", 2, markers=False, **meta))
        body += [[rows.name, *pair, share] for pair in zip(recall, precision, strict=True)]
    heads = [
        OF,
        *columns(recall="score", precision="score", prevalence="score"),
    ]
    return _choice_plot(
        every,
        test_data,
        name="pr",
        title="Precision and recall",
        data=data,
        layout=axes("recall (sensitivity)", "precision (PPV)", xaxis=SQUARE, yaxis=SQUARE),
        table=Table(title="Precision and recall", columns=heads, rows=body),
        note="Precision depends on the prevalence, the dotted line.",
    )


def scores_plot(every: Sequence[Rows], test_data: str) -> Plot:
    """Plot how the probabilities of rows with and without the label are distributed, with the thresholds."""
    data: list[Trace] = []
    body: list[list[Any]] = []
    centres = [(i + 0.5) / BARS for i in range(BARS)]
    for rows in every:
        counts, meta = count_by_truth(rows.truth, rows.found), _meta(rows)
        shares = [of / max(1, of.sum()) for of in counts]
        for i, (name, of, share) in enumerate(zip(("with the label", "without"), counts, shares, strict=True)):
            data.append(
                {
                    "type": "bar",
                    "x": centres,
                    "y": _short(share),
                    "name": f"{name} ({of.sum():,})",
                    "marker": {"color": f"--c{1 - i}"},
                    "text": [f"{count:,} {rows.what}" for count in of.tolist()],
                    "textposition": "none",
                    **meta,
                }
            )
        top = float(max(share.max() for share in shares))
        for i, (point, found) in enumerate(rows.points.items()):
            if found is not None:
                at = found["threshold"]
                data.append(line([at, at], [0, top], SHORT_POINTS.get(point, point), 2 + i, markers=False, **meta))
        body += [
            [rows.name, i / BARS, *(int(of[i]) for of in counts)] for i in range(BARS) if counts[0][i] or counts[1][i]
        ]
    heads = [
        OF,
        *columns(probability_from="score", with_the_label="number", without="number"),
    ]
    return _choice_plot(
        every,
        test_data,
        name="scores",
        title="Probabilities by truth",
        data=data,
        layout=axes("probability", "share of its group", xaxis=SQUARE, yaxis={"rangemode": "tozero"}),
        table=Table(title="Probabilities by truth", columns=heads, rows=body),
        note="Each group's bars add up to 1. Lines: the operating points' thresholds.",
    )


def benefit_plot(every: Sequence[Rows], test_data: str) -> Plot:
    """Plot the decision curve: net benefit of the model, of calling all rows positive, and of calling none."""
    data, body = [], []
    for rows in every:
        model, everyone = net_benefit(rows.truth, rows.found)
        meta = _meta(rows)
        x = _short(BENEFIT)
        for i, (name, y) in enumerate((("model", model), ("all positive", everyone), ("none positive", 0 * model))):
            shown = [value if value >= LEAST_BENEFIT else None for value in _short(y)]
            data.append(line(x, shown, name, i, markers=False, width=2.4 if not i else 1.4, **meta))
        body += [[rows.name, *of] for of in zip(x, _short(model), _short(everyone), strict=True)]
    heads = [
        OF,
        Column(name="threshold probability"),
        *columns(model="signed", all_positive="signed"),
    ]
    return _choice_plot(
        every,
        test_data,
        name="benefit",
        title="Decision curve",
        data=data,
        layout=axes("threshold probability", "net benefit", xaxis=SQUARE),
        table=Table(title="Net benefit", columns=heads, rows=body),
        note="Net benefit per case: true positives minus false positives times the odds of the threshold (Vickers and Elkin 2006).",
    )


def subgroup_plots(run: ScoredRecord, table: pd.DataFrame, test: HeldOutFigures) -> list[Plot]:
    """Plot the headline label's AUROC by subgroup as a forest; none where labels are classes."""
    if run.task.kind is LabelKind.multi_class:
        return []
    found = list(_subgroups(run, table, test))
    areas = {name: _area(rows, exams=exams) for name, rows, exams in found}
    known = {name: area for name, area in areas.items() if area["value"] is not None}
    if len(known) < 2:
        return []
    names = [
        f"{name} ({area['positives']} of {(area['positives'] or 0) + (area['negatives'] or 0)} positive)"
        for name, area in known.items()
    ]
    rows: list[list[Any]] = [
        [name, area["positives"], area["negatives"], area["positive_patients"], area] for name, area in areas.items()
    ]
    heads = columns(subgroup="text", positive="number", negative="number", patients_positive="number", AUROC="score")
    label = label_in_words(run.task, run.headline)
    return [
        Plot(
            name="subgroups",
            title=f"AUROC of {label} by subgroup",
            data=[points(names, list(known.values()), "AUROC", 0, across=True, showlegend=False)],
            layout=axes(
                "AUROC",
                "subgroup",
                xaxis=SQUARE,
                yaxis={"type": "category", "showgrid": False, "autorange": "reversed"},
                height=60 + 26 * len(names),
            ),
            table=Table(title=f"AUROC of {label} by subgroup", columns=heads, rows=rows),
            note=f"Subgroups of {plural(run.task.exam)} with a label are compared with all without {label}. Small groups have no interval.",
            wide=True,
        )
    ]


def _subgroups(run: ScoredRecord, table: pd.DataFrame, test: HeldOutFigures) -> Iterator[tuple[str, Rows, bool]]:
    """Name the subgroups: exams with each other label, with few and with more positive slices, and slices by third of their exam."""
    task, by_level = run.task, {rows.name: rows for rows in _rows_by_level(run, table, test)}
    exams, pictures = plural(task.exam), plural(task.picture)
    slices = by_level[f"{run.headline}, {pictures}"]
    whole = by_level.get(f"{run.headline}, {exams}")
    if whole is not None:
        yield f"all {exams}", whole, True
        for label in run.labels:
            other = by_level[f"{label}, {exams}"]
            if label not in (run.headline, task.union) and len(other.truth) == len(whole.truth):
                yield f"{exams} with {label}", whole.select((other.truth > 0) | (whole.truth == 0)), True
        keys = [table[task.group_key], table[task.exam_key]]
        counts = (table[f"label_{run.headline}"] == 1).groupby(keys, sort=True).sum().to_numpy()
        if len(counts) == len(whole.truth):
            none, few = whole.truth == 0, counts <= FEW_POSITIVE
            yield f"{exams} with 1 to {FEW_POSITIVE} positive {pictures}", whole.select(none | few), True
            yield f"{exams} with more than {FEW_POSITIVE} positive {pictures}", whole.select(none | ~few), True
    yield f"all {pictures}", slices, False
    if "rank" in table and len(slices.truth) == len(table):
        place = table.groupby([task.group_key, task.exam_key])["rank"].rank(pct=True, method="first").to_numpy()
        for i, third in enumerate(THIRDS):
            inside = (place > i / 3) & (place <= (i + 1) / 3)
            if inside.any():
                yield f"{pictures} of the {third} third", slices.select(inside), False


def _area(rows: Rows, *, exams: bool) -> EstimateFigures:
    """The AUROC of these rows with its interval, which rests on as many patients as the scorecard's does."""
    rests_on = support(rows.drawn, rows.truth)
    drawn = rows.drawn if rests_on.enough else rows.drawn.point_only()
    values = rank(rows.truth, rows.found, drawn).auroc
    carriers = rests_on.patients if exams and values[0] != 1 else rests_on.fewest
    return estimate(values, rests_on, carriers).to_json()


def _meta(rows: Rows) -> dict[str, Any]:
    """What makes a trace be drawn only while its rows are chosen."""
    return {"meta": {"choice": rows.name}}


def _choice_plot(every: Sequence[Rows], test_data: str, *, title: str, **more: Any) -> Plot:
    """Build a plot that draws one label and level at a time."""
    names = [rows.name for rows in every]
    return Plot(title=f"{title} on {test_data}", choices=names, choice_name="Of", chosen=names[0], **more)


def _short(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Numbers with four digits behind the point: a plot shows no more."""
    return [round(float(value), 4) for value in values]
