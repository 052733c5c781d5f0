"""Print the end of a sweep: a table with a row for each job, why jobs failed, and where the comparison of the runs lies."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable
from rich.text import Text

from fl_rsna.reporting.record.console import console
from fl_rsna.run_folder.sweep_folder import Job, JobState, find_failed_jobs

WIDEST = 60  # characters of a job's settings on one line of the table


def say_sweep(sweep: Path, jobs: Sequence[Job], *, kept: bool, go_on: str | None) -> None:
    """Print what became of every job, say how the sweep goes on, and compare the runs where they are kept."""
    if any(job.row for job in jobs) or go_on is not None:
        console.print(sweep_table(sweep, jobs, kept=kept))
    for job in jobs:
        if job.sentence:
            console.print(Text(f"{job.label} failed: {job.sentence}", "red"), soft_wrap=True)
    if go_on is not None:
        console.print(f"go on with: {go_on}", soft_wrap=True, markup=False)
    if kept:
        _compare(sweep, jobs)


def sweep_table(sweep: Path, jobs: Sequence[Job], *, kept: bool) -> RichTable:
    """Make a table with a row for each job and all columns that any of them has."""
    names = dict.fromkeys(name for job in jobs for name in job.row if name != "run")
    bad = any(job.state is not JobState.finished for job in jobs)
    table = RichTable(title=f"sweep in {sweep}" if kept else "sweep")
    table.add_column("job", overflow="fold", min_width=min(WIDEST, max((len(job.label) for job in jobs), default=0)))
    for name in (*(["state"] if bad else []), *names):
        table.add_column(name, overflow="fold")
    for job in jobs:
        cells = [job.label, *([job.state.value] if bad else []), *(job.row.get(name, "") for name in names)]
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _compare(sweep: Path, jobs: Sequence[Job]) -> None:
    """Write the comparison of the sweep's runs into its folder, where it has several jobs and at least one left a run."""
    from fl_rsna.reporting.pages.comparison import write_comparison  # loads matplotlib: not before the first round
    from fl_rsna.reporting.pages.find_runs import runs_in

    folders = runs_in(sweep)
    if len(jobs) < 2 or not folders:
        return
    try:
        page = write_comparison(folders, sweep / "compare.html", failed=find_failed_jobs(sweep))
    except ValueError as error:
        console.print(f"no comparison: {error}", soft_wrap=True, markup=False)
    else:
        console.print(f"compare: {page}", soft_wrap=True, markup=False)
