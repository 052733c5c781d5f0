"""The section on classes that exclude each other: figures over all classes, the accuracy of each, and the confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.learning.metrics.figures import CellFigures, ClassesFigures, EstimateFigures
from fl_rsna.learning.metrics.scorecard import CardFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.plotly import Plot, Trace, axes, category_axis, colour_bar
from fl_rsna.reporting.record.run_record import ScoredRecord, control_of, interval
from fl_rsna.reporting.record.wording import task_words, with_article
from fl_rsna.reporting.sections.section import Section
from fl_rsna.task import MACRO, Task

FIGURES = {
    "macro_auroc": "macro AUROC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "mean_average_precision": "mAP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The figures of all classes, accuracy by class at each level, the published names by their initials, and the confusion matrices."""

    figures: Table
    by_class: Sequence[Table]
    names: Mapping[str, str]
    plots: Sequence[Plot]


def build_classes(run: ScoredRecord) -> Section | None:
    """Build the section; None of a record without classes, or without scores."""
    if run.test_site is None or "classes" not in run.test_site:
        return None
    levels = class_levels(run.test_site, run.task)
    body = Classes(
        figures=figures_table(levels, control_of(run.test_site["controls"], MACRO), run.test_data),
        by_class=[by_class_table(of, run.task, title) for title, of in levels.items()],
        names={short: run.task.published[i] for i, short in enumerate(initials(run.task).values())},
        plots=[confusion_plot(levels, run.task, run.test_data)],
    )
    confusion = [confusion_table(of, run.task, title) for title, of in levels.items()]
    return Section(title="Classes", body=body, paper=[body.figures, *body.by_class, *confusion])


def class_levels(card: CardFigures | None, task: Task) -> dict[str, ClassesFigures]:
    """Scores of classes by the title of their level: images, studies; none of a scorecard of labels, or of no scorecard."""
    if card is None or "classes" not in card:
        return {}
    words, found = task_words(task), card["classes"]
    levels = {words["pictures"].capitalize(): found["slice"]}
    if exams := found.get("exam"):
        levels[words["exams"].capitalize()] = exams
    return levels


def overall(of_level: ClassesFigures) -> list[EstimateFigures]:
    """The figures of all classes together, in the order of FIGURES."""
    return [
        of_level["macro_auroc"], of_level["balanced_accuracy"], of_level["accuracy"], of_level["mean_average_precision"]
    ]  # fmt: skip


def initials(task: Task) -> dict[str, str]:
    """The initials of each label's published name, NFP of Negative for Pneumonia; the whole name where two have the same."""
    short = ["".join(word[0] for word in name.split()).upper() for name in task.published]
    return dict(zip(task.labels, short if len(set(short)) == len(short) else task.published, strict=True))


def figures_table(
    levels: Mapping[str, ClassesFigures], controls: Mapping[str, EstimateFigures], test_data: str
) -> Table:
    """One row a level: the figures of all classes together; of images also what the controls reach without looking at them."""
    heads = [Column(name="level", kind=Kind.text), *(Column(name=name) for name in FIGURES.values())]
    heads += [Column(name=f"macro AUROC, {control} alone") for control in controls]
    pictures = next(iter(levels))
    rows = [
        [
            title,
            *overall(of),
            *(area if title == pictures else None for area in controls.values()),
        ]
        for title, of in levels.items()
    ]
    return Table(title=f"All classes together, on {test_data}", columns=heads, rows=rows)


def by_class_table(of_level: ClassesFigures, task: Task, title: str) -> Table:
    """One row a class by its initials, and the total."""
    named = sorted((short, of_level["classes"][label]["accuracy"]) for label, short in initials(task).items())
    rows = [
        [name, found["positives"], found["value"], _percent_interval(found)]
        for name, found in (*named, ("total", of_level["accuracy"]))
    ]
    heads = [*columns(n="number"), Column(name="accuracy, %", kind=Kind.percent), Column(name="95% interval", kind=Kind.exact)]  # fmt: skip
    return Table(title=f"Accuracy by class. {title}", columns=[Column(name="class", kind=Kind.text), *heads], rows=rows)


def confusion_table(of_level: ClassesFigures, task: Task, title: str) -> Table:
    """One row a true class: how often it was taken for each, and that in percent of its rows."""
    short = initials(task)
    heads = columns(true_class="text")
    heads += [Column(name=f"as {name}", kind=Kind.number) for name in short.values()]
    heads += [Column(name=f"% as {name}", kind=Kind.percent) for name in short.values()]
    rows: list[list[Any]] = []
    for label, row in of_level["confusion"].items():
        cells = list(row.values())
        rows.append([short[label], *(cell["count"] for cell in cells), *(cell["share"]["value"] for cell in cells)])
    return Table(title=f"Confusion matrix. {title}", columns=heads, rows=rows)


def confusion_plot(levels: Mapping[str, ClassesFigures], task: Task, test_data: str) -> Plot:
    """Plot how often a class was taken for each, as a share of the true class and counted, for one level at a time."""
    names = list(initials(task).values())
    return Plot(
        name="confusion",
        title=f"Confusion matrix on {test_data}",
        data=[_cells(of, names, title) for title, of in levels.items()],
        layout=axes(
            "named by the model",
            "true class",
            xaxis=category_axis(names),
            yaxis={**category_axis(names), "autorange": "reversed"},
            height=360,
        ),
        table=_all_levels([confusion_table(of, task, title) for title, of in levels.items()], list(levels)),
        note=f"{with_article(task.picture).capitalize()} or {task.exam} is named by its likeliest class; colour is the share of the true class.",
        choices=list(levels),
        choice_name="Level",
        chosen=next(iter(levels)),
        wide=True,
    )


def _all_levels(tables: list[Table], titles: list[str]) -> Table:
    """Put the tables under each other, each row with the title of its level."""
    rows = [[title, *row] for title, table in zip(titles, tables, strict=True) for row in table.rows]
    heads = [Column(name="level", kind=Kind.text), *tables[0].columns]
    return Table(title="Confusion matrix", columns=heads, rows=rows)


def _cells(of_level: ClassesFigures, names: list[str], title: str) -> Trace:
    rows = [list(row.values()) for row in of_level["confusion"].values()]
    return {
        "type": "heatmap", "x": names, "y": names, "z": [[cell["share"]["value"] for cell in row] for row in rows],
        "text": [[_format_cell(cell) for cell in row] for row in rows], "texttemplate": "%{text}", "zmin": 0, "zmax": 1,
        "colorscale": "--scale", "colorbar": colour_bar("share of the true class"), "xgap": 1, "ygap": 1,
        "hovertemplate": "true %{y}, named %{x}: %{text}<extra></extra>", "meta": {"choice": title},
    }  # fmt: skip


def _format_cell(cell: CellFigures) -> str:
    share = cell["share"]["value"]
    return f"{cell['count']:,}" if share is None else f"{cell['count']:,}<br>{100 * share:.1f}%"


def _percent_interval(found: EstimateFigures) -> str:
    """An accuracy's interval in percent, or why there is none."""
    if found["value"] is None:
        return interval(found)
    if found["low"] is None or found["high"] is None:
        return interval(found).split("[", 1)[1].rstrip("]")
    return f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def class_lines(card: CardFigures, task: Task) -> list[str]:
    """Write the figures of all classes as lines for the console, a line a figure and level."""
    return [
        f"{name} of {len(task.labels)} classes, {title.lower()}: {interval(found)}"
        for title, of in class_levels(card, task).items()
        for name, found in zip(FIGURES.values(), overall(of), strict=True)
    ]
