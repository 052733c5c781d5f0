"""The tables a paper needs, in Markdown and in LaTeX with booktabs: cohort, performance, sites, operating points, cost."""

from collections.abc import Sequence

from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, format_cell
from fl_rsna.reporting.record.run_record import RunRecord
from fl_rsna.reporting.record.wording import level_titles, plural
from fl_rsna.reporting.sections import scorecard as scores
from fl_rsna.reporting.sections import sites as site_scores
from fl_rsna.reporting.sections import stages as stack_scores
from fl_rsna.reporting.sections import stages as stage_scores
from fl_rsna.reporting.sections.classes import class_tables

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "≥": r"$\geq$", "·": r"$\cdot$",
}  # fmt: skip
SECONDS_AN_HOUR = 3600


def paper_tables(run: RunRecord) -> list[Table]:
    """What the run can fill, in a paper's order."""
    tables = list[Table]()
    if run.test_site is not None and run.is_finished:
        by_level, titles = scores.levels(run.test_site), level_titles(run.task)
        tables += class_tables(run)
        tables += [
            scores.scores_table(run.test_site, level, f"Performance on the test site. {titles[level]}")
            for level in by_level
        ]
        if found := stage_scores.stages(run):
            tables.append(
                _retitle_table(found["compared"], "Both stages on the test site, differences paired over patients")
            )
        if stacked := stack_scores.stack_section(run):
            tables.append(
                _retitle_table(stacked["compared"], "Stacking on the test site, differences paired over patients")
            )
        if site_scores.by_site(run):
            tables.append(site_scores.sites_table(run))
        cards = by_level["slice"]
        if scores.has_points(cards):
            tables += [
                _retitle_table(scores.points_table(cards, point), f"Operating point: {name}")
                for point, name in scores.POINTS.items()
            ]
    if run.crops_from_truth:
        tables = [_retitle_table(table, f"{table.title}. NOT A RESULT: {TRUTH_SHOWN}") for table in tables]
    return [*([cohort_table(run)] if run.cohort else []), *tables, cost_table(run)]


def cohort_table(run: RunRecord) -> Table:
    """One row a site and part: patients, slices, positives by label."""
    pictures = plural(run.task.picture)
    heads = [*columns(site="text", part="text", patients="number"), Column(name=pictures, kind=Kind.number)]
    heads += [Column(name=label, kind=Kind.number) for label in run.labels]
    rows = [
        [site, part, held["patients"], held["slices"], *(held["positives"].get(label) for label in run.labels)]
        for site, parts in run.counts.items()
        for part, held in parts.items()
    ]
    return Table(title=f"Cohort by site, with positive {pictures} by label", columns=heads, rows=rows)


def cost_table(run: RunRecord) -> Table:
    summary, rounds = run.summary or {}, run.rounds
    played = summary.get("rounds", int(rounds["round"].max()) if not rounds.empty else 0)
    hours = summary.get("virtual_s")
    rows = [
        ["rounds", f"{played:,}"],
        ["training sites", f"{run.num_training_sites:,}"],
        ["seconds in all", format_cell(summary.get("wall_s"), Kind.seconds)],
        ["sent to the sites", format_cell(summary.get("bytes_down"), Kind.megabytes)],
        ["received from the sites", format_cell(summary.get("bytes_up"), Kind.megabytes)],
        [
            "hours between real sites (simulated)",
            format_cell(None if hours is None else hours / SECONDS_AN_HOUR, Kind.threshold),
        ],
        ["failures of sites", f"{len(run.failures):,}"],
    ]
    return Table(title="Cost", columns=columns(what="text", amount="exact"), rows=[list(row) for row in rows])


def as_markdown(name: str, tables: Sequence[Table]) -> str:
    return "\n".join([f"# {_cell_md(name)}", "", *(_markdown(table) for table in tables)])


def as_tex(name: str, tables: Sequence[Table]) -> str:
    """LaTeX tables to \\input; they need the package booktabs."""
    return "\n".join(
        [f"% {name}: needs \\usepackage{{booktabs}}".replace("\n", " "), *(_tex(table) for table in tables)]
    )


def _retitle_table(table: Table, title: str) -> Table:
    return Table(title=title, columns=table.columns, rows=table.rows, note=table.note)


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
