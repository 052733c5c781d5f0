"""A table as the page, report.json and the paper all show it: columns that know how their cells are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fl_rsna.reporting.record.run_record import interval, megabytes

NONE = "–"


class Kind(StrEnum):
    """How the cells of a column are written."""

    text = "text"
    number = "number"
    score = "score"  # between 0 and 1, or an estimate of such a number
    percent = "percent"  # a share, times 100
    signed = "signed"  # a difference of scores, or an estimate of one
    threshold = "threshold"  # a probability that may be small
    seconds = "seconds"
    megabytes = "megabytes"  # of a number of bytes
    exact = "exact"  # as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    kind: Kind = Kind.score


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`rows` hold plain values, as many as there are columns: strings, numbers, estimates as dictionaries, None."""

    title: str
    columns: Sequence[Column]
    rows: list[list[Any]]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), (
            f"{self.title}: a row has other columns than the table"
        )


def columns(**kinds: str) -> list[Column]:
    """Columns from name=kind; underscores in names become spaces."""
    return [Column(name=name.replace("_", " "), kind=Kind(kind)) for name, kind in kinds.items()]


def format_cell(cell: Any, kind: str) -> str:
    """A cell as text."""
    if cell is None:
        return NONE
    if isinstance(cell, dict):
        return interval(cell) if kind != Kind.signed else _format_signed_interval(cell)
    match Kind(kind):
        case Kind.number:
            return cell if isinstance(cell, str) else f"{cell:,}"  # <5: withheld
        case Kind.score:
            return f"{cell:.3f}"
        case Kind.percent:
            return f"{100 * cell:.1f}"
        case Kind.signed:
            return _format_signed(cell)
        case Kind.threshold:
            return f"{cell:.3g}"
        case Kind.seconds:
            return f"{cell:,.1f}"
        case Kind.megabytes:
            return megabytes(cell)
        case Kind.text | Kind.exact:
            return str(cell)


def without_empty(table: Table) -> Table:
    """The table without the columns, after the first, that hold nothing in any row."""
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i] is not None for row in table.rows)]
    return Table(
        title=table.title,
        columns=[table.columns[i] for i in kept],
        rows=[[row[i] for i in kept] for row in table.rows],
        note=table.note,
    )


def _format_signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _format_signed_interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return interval(estimate)
    if estimate["low"] is None:
        return f"{_format_signed(estimate['value'])} {interval(estimate).split(' ', 1)[1]}"
    return (
        f"{_format_signed(estimate['value'])} [{_format_signed(estimate['low'])}, {_format_signed(estimate['high'])}]"
    )
