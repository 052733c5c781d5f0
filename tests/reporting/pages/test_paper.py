"""The tables of a paper: complete, and valid whatever the names."""

import json
import re
from pathlib import Path

from made_runs import LABELS, made_run

from fl_rsna.reporting.pages.run_page import build_report, paper_tables, write_report
from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.reporting.record.paper import COLUMN, PAGE, as_csv, as_markdown, as_tex, split_columns
from fl_rsna.reporting.record.run_record import read_run


def test_markdown_and_latex_hold_the_same_rows(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    write_report(folder)
    tables = paper_tables(build_report(read_run(folder)))
    markdown, tex = (folder / "paper.md").read_text(), (folder / "paper.tex").read_text()
    begun, ended = (re.findall(rf"\\{word}{{(table\*?)}}", tex) for word in ("begin", "end"))
    assert begun == ended
    assert len(begun) == markdown.count("\n## ") == len(tables)
    rows = [len(table.rows) for table in tables for _ in split_columns(table)]
    assert tex.count(r"\toprule") == tex.count(r"\midrule") == tex.count(r"\bottomrule") == len(rows)
    bodies = re.findall(r"\\midrule\n(.*?)\\bottomrule", tex, flags=re.DOTALL)
    assert [body.count("\\\\\n") for body in bodies] == rows
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


def estimate(value: float | None, low: float | None, high: float | None, patients: int) -> dict[str, object]:
    return {
        "value": value, "low": low, "high": high, "positives": patients, "negatives": 9, "positive_patients": patients
    }  # fmt: skip


def test_why_an_interval_is_missing_is_a_footnote_once() -> None:
    few, none = estimate(0.5, None, None, 2), estimate(None, None, None, 0)
    rows = [["a", estimate(0.5, 0.25, 0.75, 9)], ["b", few], ["c", few], ["d", none]]
    table = Table(title="T", columns=columns(label="text", AUROC="score"), rows=rows)
    tex, markdown = as_tex("run", [table]), as_markdown("run", [table])
    assert r"  a & \shortstack[r]{0.500\\0.250--0.750} \\" in tex
    assert [line for line in tex.splitlines() if line.startswith(("  b", "  c", "  d"))] == [
        r"  b & 0.500$^{1}$ \\", r"  c & 0.500$^{1}$ \\", r"  d & --$^{2}$ \\"
    ]  # fmt: skip
    assert r"$^{1}$no interval: 2 positive patients; $^{2}$undefined: no positives." in tex
    assert "| a | 0.500 (0.250–0.750) |" in markdown
    assert markdown.count("2 positive patients") == 1


def test_a_table_of_many_columns_is_set_in_parts_that_fit_a_page() -> None:
    heads = columns(site="text", **{f"score_{n}": "score" for n in range(40)})
    table = Table(title="T", columns=heads, rows=[["site-1", *[estimate(0.5, 0.25, 0.75, 9)] * 40]])
    parts = split_columns(table)
    assert all(part[0] == 0 for part in parts)
    assert sorted(i for part in parts for i in part[1:]) == list(range(1, 41))
    assert max(len(part) - 1 for part in parts) * (len("0.250–0.750") + 2) <= PAGE - len("site-1")
    assert as_tex("run", [table]).count(r"\begin{tabular}") == len(parts) > 1
    narrow = Table(title="T", columns=heads[:3], rows=[table.rows[0][:3]])
    assert r"\begin{table}" in as_tex("run", [narrow])
    assert COLUMN < PAGE


def test_a_heading_breaks_between_words() -> None:
    heads = columns(run="text", intraparenchymal="score", **{"AUROC any, worst site": "score"})
    tex = as_tex("run", [Table(title="T", columns=heads, rows=[["a", 0.5, 0.5]])])
    assert r"  run & intraparenchymal & \shortstack[r]{AUROC any,\\worst site} \\" in tex


def test_csv_holds_the_numbers_as_they_are() -> None:
    rows = [["a,b", estimate(0.123456, 0.1, 0.2, 9), 3], ["c", None, None]]
    table = Table(title="T", columns=columns(run="text", AUROC="score", n="number"), rows=rows)
    assert as_csv(table).splitlines() == ["run,AUROC,AUROC low,AUROC high,n", '"a,b",0.123456,0.1,0.2,3', "c,,,,"]
