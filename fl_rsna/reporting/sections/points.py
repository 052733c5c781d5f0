"""The section on operating points: what the thresholds that the sites chose give on the test site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.plotly import SHARE, Plot, axes
from fl_rsna.reporting.record.plotly import points as marks
from fl_rsna.reporting.record.run_record import ScoredRecord
from fl_rsna.reporting.record.wording import level_titles
from fl_rsna.reporting.sections.scorecard import POINTS, SHORT_POINTS, Cards, levels
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.summary import ChosenPoints


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsOfLevel:
    """The tables of one level, a table an operating point."""

    title: str
    tables: Sequence[Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Tables by level, slices first; the plot of slices; and every threshold. `missing` says why there are none."""

    missing: str
    chosen_on: str
    levels: Sequence[PointsOfLevel]
    plots: Sequence[Plot]
    thresholds: Table | None


def build_points(run: ScoredRecord) -> Section | None:
    """Build the section; None of a record without scores."""
    if run.test_site is None:
        return None
    chosen = run.thresholds
    by_level = {name: cards for name, cards in levels(run.test_site).items() if has_points(cards)}
    if chosen is None or not by_level:
        missing = "No site's counts arrived when thresholds were to be chosen, or no label had both positives and negatives: there are none."
        return Section(
            title="Operating points", body=Points(missing=missing, chosen_on="", levels=[], plots=[], thresholds=None)
        )
    titles = level_titles(run.task)
    tables = {name: [points_table(cards, point) for point in POINTS] for name, cards in by_level.items()}
    body = Points(
        missing="",
        chosen_on=chosen["chosen_on"],
        levels=[PointsOfLevel(title=titles[name], tables=of_level) for name, of_level in tables.items()],
        plots=[points_plot(next(iter(by_level.values())), run.test_data)],
        thresholds=thresholds_table(chosen, titles),
    )
    paper = [replace(table, title=f"Operating point: {table.title}") for table in tables.get("slice", ())]
    return Section(title="Operating points", body=body, paper=paper)


def has_points(cards: Cards) -> bool:
    """Whether any label has a threshold."""
    return any(found for card in cards.values() for found in card["points"].values())


def points_table(cards: Cards, point: str) -> Table:
    """One row a label: the threshold chosen at the sites, and every count and rate it gives here."""
    heads = columns(
        label="text", threshold="threshold", sensitivity="score", specificity="score", TP="number", FP="number"
    )
    heads += columns(TN="number", FN="number", PPV="score", NPV="score", F1="score", FN_rate="score")
    rows = []
    for label, card in cards.items():
        of = card["points"].get(point)
        counts = [None] * 11 if of is None else [
            of["threshold"], of["sensitivity"], of["specificity"], of["tp"], of["fp"], of["tn"], of["fn"], of["ppv"], of["npv"], of["f1"],
            of["false_negative_rate"],
        ]  # fmt: skip
        rows.append([label, *counts])
    return Table(title=POINTS[point], columns=heads, rows=rows)


def thresholds_table(chosen: ChosenPoints, titles: Mapping[str, str]) -> Table:
    """One row a label and level: the thresholds as the sites' validation parts chose them."""
    heads = [Column(name="label", kind=Kind.text), Column(name="level", kind=Kind.text)]
    heads += [Column(name=name, kind=Kind.threshold) for name in POINTS.values()]
    rows = [
        [label, titles[level], *(of_label.get(point) for point in POINTS)]
        for level, by_label in {"slice": chosen["slice"], **chosen["exam"]}.items()
        for label, of_label in by_label.items()
    ]
    return Table(title="Thresholds", columns=heads, rows=rows)


def points_plot(cards: Cards, test_data: str) -> Plot:
    """Plot the sensitivity and specificity of each label at the operating point that is chosen above the plot."""
    data, rows = [], []
    for point, name in SHORT_POINTS.items():
        held = {label: found for label, card in cards.items() if (found := card["points"].get(point))}
        rates = {
            "sensitivity": [found["sensitivity"] for found in held.values()],
            "specificity": [found["specificity"] for found in held.values()],
        }
        data += [marks(held, found, rate, i, meta={"choice": name}) for i, (rate, found) in enumerate(rates.items())]
        rows += [[label, name, found["sensitivity"], found["specificity"]] for label, found in held.items()]
    return Plot(
        name="points",
        title=f"Sensitivity and specificity on {test_data}",
        data=data,
        layout=axes("label", "sensitivity, specificity", yaxis=SHARE, scattermode="group", scattergap=0.7),
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
