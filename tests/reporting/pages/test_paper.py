"""The tables of a paper: complete, and valid whatever the names."""

import json
import re
from pathlib import Path

from made_runs import LABELS, made_run

from fl_rsna.reporting.pages.run_page import as_markdown, as_tex, build_report, paper_tables, write_report
from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.reporting.record.run_record import read_run


def test_markdown_and_latex_hold_the_same_rows(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    write_report(folder)
    tables = paper_tables(build_report(read_run(folder)))
    markdown, tex = (folder / "paper.md").read_text(), (folder / "paper.tex").read_text()
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == markdown.count("\n## ") == len(tables)
    assert tex.count(r"\toprule") == tex.count(r"\midrule") == tex.count(r"\bottomrule") == len(tables)
    bodies = re.findall(r"\\midrule\n(.*?)\\bottomrule", tex, flags=re.DOTALL)
    assert [body.count("\\\\\n") for body in bodies] == [len(table.rows) for table in tables]
    blocks = markdown.split("\n## ")[1:]
    assert [block.count("\n|") - 2 for block in blocks] == [len(table.rows) for table in tables]


def test_performance_has_intervals_and_positives(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    tables = {table.title: table for table in paper_tables(build_report(read_run(folder)))}
    slices = tables["Performance on the test site. Slices"]
    assert [row[0] for row in slices.rows] == list(LABELS)
    names = [column.name for column in slices.columns]
    for row in slices.rows:
        told = dict(zip(names, row, strict=True))
        card = summary["test_site"]["slice"][row[0]]
        assert told["AUROC"] == card["auroc"]
        assert told["positive"] == card["auroc"]["positives"]
        assert told["AUROC, position alone"] == summary["test_site"]["controls"]["position"][row[0]]["auroc"]
    assert {"Cohort by site, with positive slices by label", "Cost"} <= tables.keys()
    assert sum(title.startswith("Operating point") for title in tables) == 3


def test_special_characters_are_escaped() -> None:
    bad = "a|b_50% & {x} $y$ #1 ~ ^ \\end"
    table = Table(title=bad, columns=columns(site="text", AUROC="score"), rows=[[bad, 0.5], ["site\nten", None]])
    tex = as_tex("run", [table])
    assert r"a|b\_50\% \& \{x\} \$y\$ \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}end & 0.500 \\" in tex
    assert "site ten & -- \\\\" in tex
    [row] = [line for line in as_markdown("run", [table]).splitlines() if line.endswith("| 0.500 |")]
    assert row.startswith(r"| a\|b\_50% & {x}")
