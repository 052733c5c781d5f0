"""The tables a paper needs, in Markdown and in LaTeX with booktabs: cohort, performance, sites, operating points, cost."""

from collections.abc import Sequence
from dataclasses import replace

from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.reporting.pages.report import Report
from fl_rsna.reporting.record.cells import Kind, Table, format_cell

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "≥": r"$\geq$", "·": r"$\cdot$",
}  # fmt: skip
# The sections that a paper takes tables of, in its order.
ORDER = ("cohort", "classes", "scorecard", "stages", "stacking", "sites", "points", "cost")
SCORES = frozenset(ORDER) - {"cohort", "cost"}


def paper_tables(report: Report) -> list[Table]:
    """The tables of a paper in its order; those of scores say so where annotations decided what the model was shown."""
    tables = []
    for name in ORDER:
        section = report.sections[name]
        for table in section.paper if section else ():
            warned = report.state.crops_from_truth and name in SCORES
            tables.append(replace(table, title=f"{table.title}. NOT A RESULT: {TRUTH_SHOWN}") if warned else table)
    return tables


def as_markdown(name: str, tables: Sequence[Table]) -> str:
    """Write the tables as Markdown below a heading with the run's name."""
    return "\n".join([f"# {_cell_md(name)}", "", *(_markdown(table) for table in tables)])


def as_tex(name: str, tables: Sequence[Table]) -> str:
    """Write the tables as LaTeX to \\input; they need the package booktabs."""
    return "\n".join(
        [f"% {name}: needs \\usepackage{{booktabs}}".replace("\n", " "), *(_tex(table) for table in tables)]
    )


def _markdown(table: Table) -> str:
    heads = " | ".join(_cell_md(column.name) for column in table.columns)
    rule = " | ".join(":---" if column.kind is Kind.text else "---:" for column in table.columns)
    rows = [" | ".join(_cell_md(text) for text in texts) for texts in _texts(table)]
    return "\n".join([f"## {table.title}", "", *(f"| {row} |" for row in (heads, rule, *rows)), ""])


def _tex(table: Table) -> str:
    sides = "".join("l" if column.kind is Kind.text else "r" for column in table.columns)
    heads = " & ".join(_cell_tex(column.name) for column in table.columns)
    rows = [f"  {' & '.join(_cell_tex(text) for text in texts)} \\\\" for texts in _texts(table)]
    begin = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_cell_tex(table.title)}}}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
    ]
    end = [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*begin, f"  {heads} \\\\", r"\midrule", *rows, *end])


def _texts(table: Table) -> list[list[str]]:
    return [
        [format_cell(cell, column.kind) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]


def _cell_md(text: str) -> str:
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def _cell_tex(text: str) -> str:
    return "".join(TEX.get(mark, mark) for mark in text).replace("\n", " ")
