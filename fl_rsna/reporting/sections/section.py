"""What a section of a run's report is. Every other module here builds one: its figures, tables, plots and what a paper takes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fl_rsna.reporting.record.cells import Table


class Body(Protocol):
    """The dataclass of a section: its fields are the section's keys in report.json, and what its template shows."""

    @property
    def __dataclass_fields__(self) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a run's report.

    `title` is its name in the page's navigation. `paper` holds the tables that paper.md and paper.tex take of it.
    """

    title: str
    body: Body
    paper: Sequence[Table] = ()
