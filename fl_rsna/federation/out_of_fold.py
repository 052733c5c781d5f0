"""What every fold's model said of a site's patients: a table a fold, in what the site remembers of that fold's run."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.hashed import read_table, write_table
from fl_rsna.federation.messages import checked_run
from fl_rsna.federation.site_state import GONE
from fl_rsna.learning.predictions import PROBABILITY, probabilities_in
from fl_rsna.task import Task

OUT_OF_FOLD = "out_of_fold.parquet"
STRANGER = "stranger"  # of the fold's patients, whom the model never saw; else of the validation part


def paths_of(memory: Path, runs: Iterable[str]) -> tuple[Path, ...]:
    """A path a fold's run; raises ValueError for a fold about which this site was not asked."""
    paths = tuple(memory / checked_run(run) / OUT_OF_FOLD for run in runs)
    for number, path in enumerate(paths, 1):
        if not path.exists():
            raise ValueError(
                f"expected what the model of fold {number} says of this site's patients, got none; "
                "the site failed when it was asked"
            )
    return paths


def check_tables(memory: Path, sites: Sequence[str], runs: Sequence[str]) -> None:
    """Refuse to go on where a table at a simulated site, below `memory`/<site>, is not what was written there."""
    for site in sites if memory.is_dir() else ():
        for path in paths_of(memory / site, runs):
            read_table(path, GONE, {"run_id": path.parent.name, "site": site})


def write_fold_table(path: Path, table: pd.DataFrame, site: str) -> None:
    write_table(path, table, {"run_id": path.parent.name, "site": site})


def read_tables(paths: Iterable[Path], task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training slices, each as the model that never saw its patient has it; and the validation slices, as the mean of all."""
    tables = [read_table(path, GONE, {"run_id": path.parent.name}) for path in paths]
    own = pd.concat([table[table[STRANGER]] for table in tables], ignore_index=True)
    assert own["image_id"].is_unique, "a slice is in two folds"
    others = [table[~table[STRANGER]].reset_index(drop=True) for table in tables]
    assert all(table["image_id"].equals(others[0]["image_id"]) for table in others)
    mean = np.mean([probabilities_in(table, task.labels) for table in others], axis=0)
    return own.drop(columns=STRANGER), with_probabilities(others[0].drop(columns=STRANGER), mean, task)


def with_probabilities(table: pd.DataFrame, found: NDArray[np.floating], task: Task) -> pd.DataFrame:
    """The table with other probabilities [N, L]."""
    columns = {f"{PROBABILITY}{name}": found[:, i].astype(np.float32) for i, name in enumerate(task.labels)}
    return table.assign(**columns)
