"""The end of a --multirun: a table with one row a job, and the page that compares their runs."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from fl_rsna.reporting.console import console


class SweepTable(Callback):
    """Collects what each job of a sweep returns and prints it together; does nothing in a single run."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, dict[str, Any]]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        result = getattr(job_return, "_return_value", None)
        if isinstance(result, dict):
            self._rows.append((" ".join(job_return.overrides or []), result))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not self._rows:
            return
        table = Table(title="sweep")
        for name in ("overrides", *self._rows[0][1]):
            table.add_column(name, overflow="fold")
        for overrides, result in self._rows:
            table.add_row(overrides, *(Text(str(value)) for value in result.values()))
        console.print(table)
        _compare(Path(config.hydra.sweep.dir))


def _compare(sweep: Path) -> None:
    """Leave the comparison of the sweep's runs in its folder, where at least two came to something."""
    from fl_rsna.reporting.comparison import write_comparison  # these load matplotlib: not before the first round
    from fl_rsna.reporting.found_runs import find_runs

    folders = find_runs(sweep)
    if len(folders) > 1:
        console.print(f"compare: {write_comparison(folders, sweep / 'compare.html')}", soft_wrap=True)
