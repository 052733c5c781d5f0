"""The section on calibration: predicted probability against observed frequency, before and after temperature scaling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fl_rsna.learning.metrics.figures import BinFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty
from fl_rsna.reporting.record.plotly import SQUARE, Plot, Trace, axes, diagonal, points
from fl_rsna.reporting.record.run_record import ScoredRecord
from fl_rsna.reporting.record.wording import level_titles, task_words
from fl_rsna.reporting.sections.scorecard import Cards, levels
from fl_rsna.reporting.sections.section import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """ECE and Brier scores of slices, in `folded` those of exams, and the reliability curves of slices."""

    tables: Sequence[Table]
    folded: Sequence[Table]
    plots: Sequence[Plot]


def build_calibration(run: ScoredRecord) -> Section | None:
    """Build the section; None of a record without scores."""
    if run.test_site is None:
        return None
    titles = level_titles(run.task)
    by_level = {name: cards for name, cards in levels(run.test_site).items() if _labels_with_curves(cards)}
    tables = [replace(calibration_table(cards), title=titles[name]) for name, cards in by_level.items()]
    plots = [reliability_plot(run.test_site["slice"], run.headline, task_words(run.task)["pictures"])] if tables else []
    return Section(title="Calibration", body=Calibration(tables=tables[:1], folded=tables[1:], plots=plots))


def calibration_table(cards: Cards) -> Table:
    """ECE and Brier score of each label before and after temperature scaling."""
    heads = columns(label="text", positive="number", temperature="threshold", ECE_before="score", ECE_after="score")
    heads += columns(Brier_before="score", Brier_after="score")
    rows = []
    for label, card in cards.items():
        curves = card["calibration"]["before"], card["calibration"]["after"]
        eces, briers = [of and of["ece"] for of in curves], [of and of["brier"] for of in curves]
        rows.append([label, card["auroc"]["positives"], card["temperature"], *eces, *briers])
    return without_empty(Table(title="Calibration", columns=heads, rows=rows))


def reliability_plot(cards: Cards, headline: str, pictures: str) -> Plot:
    """Plot the share of positives against the mean probability, by bin, before and after temperature scaling, for one label at a time.

    `pictures` is what the rows of a bin are called.
    """
    data, rows = [diagonal()], []
    labels = _labels_with_curves(cards)
    for label in labels:
        curves = cards[label]["calibration"]
        for i, (when, curve) in enumerate((("before", curves["before"]), ("after", curves["after"]))):
            bins = [of for of in curve["bins"] if of["count"]] if curve else []
            if bins:
                data += [
                    _reliability(bins, f"{when} temperature scaling", i, label, pictures),
                    _bars(bins, i, label, pictures),
                ]
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
        layout=axes(
            "predicted probability (mean of a bin)",
            "observed frequency",
            xaxis={**SQUARE, "anchor": "y2"},
            yaxis={**SQUARE, "domain": [0.34, 1]},
            yaxis2={"title": {"text": pictures}, "domain": [0, 0.2], "type": "log", "dtick": 1},
            height=440,
            barmode="group",
        ),
        note=f"Below: how many {pictures} are in each bin, on a logarithmic scale.",
        table=Table(title="Reliability", columns=heads, rows=rows),
        choices=labels,
        choice_name="Label",
        chosen=headline if headline in labels else labels[0],
    )


def _reliability(bins: Sequence[BinFigures], name: str, style: int, label: str, pictures: str) -> Trace:
    shares = [{"value": of["share"], "low": of["share_low"], "high": of["share_high"]} for of in bins]
    trace = points([of["mean"] for of in bins], shares, name, style, meta={"choice": label})
    look = {"color": f"--c{style}", "dash": ("solid", "dash")[style], "width": 1.6}
    return {**trace, "mode": "lines+markers", "line": look, "text": [f"{of['count']:,} {pictures}" for of in bins]}


def _bars(bins: Sequence[BinFigures], style: int, label: str, pictures: str) -> Trace:
    """Bars of how many rows are in each bin, below the curve."""
    x, y = [(of["low"] + of["high"]) / 2 for of in bins], [of["count"] for of in bins]
    return {
        "type": "bar", "x": x, "y": y, "yaxis": "y2", "name": f"{pictures} in the bin", "showlegend": False, "meta": {"choice": label},
        "marker": {"color": f"--c{style}"},
    }  # fmt: skip


def _labels_with_curves(cards: Cards) -> list[str]:
    return [label for label, card in cards.items() if card["calibration"]["before"]]
