"""Write tables for a paper: as Markdown, as LaTeX that fits a journal's page, and as CSV.

All three write the same Table as the pages. Why a score or its interval is missing stands in a footnote below the table.
"""

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fl_rsna.reporting.record.cells import NONE, Kind, Table, format_cell

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "≥": r"$\geq$", "·": r"$\cdot$",
}  # fmt: skip
PAGE, COLUMN = 114, 55  # characters of \scriptsize side by side in 175 mm and in 85 mm, with the space between columns
GAP = 2  # characters between two columns
HEAD, WORDS = 13, 30  # most characters of a line in a heading, and in a cell of text
WORD = 20  # of which no word in a heading is broken
TEXT = (Kind.text, Kind.exact)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a paper's table: its text, the interval below it, and the number of its footnote; "" and 0 for none."""

    text: str
    interval: str = ""
    note: int = 0


@dataclass(slots=True)
class Notes:
    """The footnotes of a table, each once, in the order in which cells need them."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        """Return the number of a footnote, from 1."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def as_markdown(name: str, tables: Sequence[Table]) -> str:
    """Write the tables as Markdown below a heading with a name."""
    return "\n".join([f"# {_cell_md(name)}", "", *(_markdown(table) for table in tables)])


def as_tex(name: str, tables: Sequence[Table]) -> str:
    """Write the tables as LaTeX to \\input; they need the package booktabs.

    A table of more columns than a page is wide is set in parts below each other, each of which begins with the first column.
    """
    head = f"% fl_rsna, {name}: needs \\usepackage{{booktabs}}".replace("\n", " ")
    return "\n".join([head, *(_tex(table) for table in tables)])


def as_csv(table: Table) -> str:
    """Write a table as CSV with its numbers as they are; an estimate has three columns: its value, and the ends of its interval."""
    estimated = [any(isinstance(row[i], dict) for row in table.rows) for i in range(len(table.columns))]
    heads, rows = list[str](), [list[Any]() for _ in table.rows]
    for i, column in enumerate(table.columns):
        heads += [column.name, f"{column.name} low", f"{column.name} high"] if estimated[i] else [column.name]
        for row, written in zip(table.rows, rows, strict=True):
            cell = row[i]
            if not estimated[i]:
                written.append(cell)
            elif isinstance(cell, dict):
                written += [cell["value"], cell["low"], cell["high"]]
            else:
                written += [cell, None, None]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()


def _cells(table: Table) -> tuple[list[list[Cell]], list[str]]:
    """Return the table's cells, and its footnotes."""
    notes = Notes()
    rows = [
        [_cell(cell, column.kind, notes) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    return rows, notes.texts


def _cell(cell: Any, kind: Kind, notes: Notes) -> Cell:
    text = format_cell(cell, kind)
    if not isinstance(cell, dict):
        return Cell(text)
    if cell["value"] is None:
        return Cell(NONE, note=notes.number(text))
    value, _, rest = text.partition(" [")
    rest = rest.removesuffix("]")
    if cell["low"] is None:
        return Cell(value, note=notes.number(rest))
    low, _, high = rest.partition(", ")
    return Cell(value, f"{low} to {high}" if kind is Kind.signed else f"{low}–{high}")


def _markdown(table: Table) -> str:
    cells, notes = _cells(table)
    heads = " | ".join(_cell_md(column.name) for column in table.columns)
    rule = " | ".join(":---" if column.kind is Kind.text else "---:" for column in table.columns)
    rows = [" | ".join(_write_md(cell) for cell in row) for row in cells]
    said = [f"<sup>{number}</sup> {_cell_md(text)}  " for number, text in enumerate(notes, 1)]
    below = [*([table.note, ""] if table.note else []), *said, *([""] if said else [])]
    return "\n".join([f"## {table.title}", "", *(f"| {row} |" for row in (heads, rule, *rows)), "", *below])


def _write_md(cell: Cell) -> str:
    mark = f"<sup>{cell.note}</sup>" if cell.note else ""
    return f"{_cell_md(cell.text)}{f' ({cell.interval})' if cell.interval else ''}{mark}"


def _tex(table: Table) -> str:
    cells, notes = _cells(table)
    parts = split_columns(table)
    wide = "*" if max(sum(_widths(table)[i] + GAP for i in part) for part in parts) > COLUMN else ""
    lines = [rf"\begin{{table{wide}}}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}"]
    lines.append(rf"\caption{{{_cell_tex(table.title)}}}")
    for number, part in enumerate(parts):
        sides = "".join("l" if table.columns[i].kind in TEXT else "r" for i in part)
        heads = " & ".join(_stack(_wrap_heading(table.columns[i].name), sides[at]) for at, i in enumerate(part))
        rows = [" & ".join(_write_tex(row[i], sides[at]) for at, i in enumerate(part)) for row in cells]
        lines += [r"\par\medskip"] if number else []
        lines += [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", f"  {heads} \\\\", r"\midrule"]
        lines += [*(f"  {row} \\\\" for row in rows), r"\bottomrule", r"\end{tabular}"]
    said = [f"$^{{{number}}}${_cell_tex(text)}" for number, text in enumerate(notes, 1)]
    below = [*([_cell_tex(table.note)] if table.note else []), *said]
    lines += [r"\par\smallskip", rf"\parbox{{\linewidth}}{{{'; '.join(below)}.}}"] if below else []
    return "\n".join([*lines, rf"\end{{table{wide}}}", ""])


def split_columns(table: Table) -> list[list[int]]:
    """Divide a table's columns into as few parts as fit a page side by side, of about one width; each begins with the first column."""
    widths = [width + GAP for width in _widths(table)]
    fitting = _fill(widths, PAGE)
    tighter = (parts for room in range(1, PAGE) if len(parts := _fill(widths, room)) == len(fitting))
    return next(tighter, fitting)


def _fill(widths: Sequence[int], room: int) -> list[list[int]]:
    """Put columns of these widths into parts of at most `room` characters; a part has two columns at least."""
    parts, used = [[0]], widths[0]
    for i in range(1, len(widths)):
        if used + widths[i] > room and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0]
        parts[-1].append(i)
        used += widths[i]
    return parts


def _widths(table: Table) -> list[int]:
    """Measure each column in characters: the longest line of its heading and its cells."""
    cells, _ = _cells(table)
    found = []
    for i, column in enumerate(table.columns):
        lines = _wrap_heading(column.name)
        for row in cells:
            lines += [*textwrap.wrap(row[i].text, WORDS), row[i].interval]
        found.append(max(map(len, lines), default=1))
    return found


def _wrap_heading(name: str) -> list[str]:
    longest = max(map(len, name.split()), default=0)
    return textwrap.wrap(name, min(WORD, max(HEAD, longest)))


def _write_tex(cell: Cell, side: str) -> str:
    mark = f"$^{{{cell.note}}}$" if cell.note else ""
    lines = textwrap.wrap(cell.text.replace("\n", " "), WORDS) or [""]
    return _stack([*lines, *([cell.interval] if cell.interval else [])], side) + mark


def _stack(lines: Sequence[str], side: str) -> str:
    """Set lines below each other in one cell."""
    written = [_cell_tex(line) for line in lines]
    if len(written) < 2:
        return "".join(written)
    joined = r"\\".join(written)
    return rf"\shortstack[{side}]{{{joined}}}"


def _cell_md(text: str) -> str:
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def _cell_tex(text: str) -> str:
    return "".join(TEX.get(mark, mark) for mark in text).replace("\n", " ")
