"""A stacking's first models: one ordinary run of the slice stage a fold, in which every site leaves that fold out."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fl_rsna.choices import Stage
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config, ModelConfig
from fl_rsna.federation.progress import load_progress
from fl_rsna.federation.records import STATE
from fl_rsna.federation.rounds import run_rounds
from fl_rsna.learning.saved import read_saved
from fl_rsna.ownership import held
from fl_rsna.run_end import end_in_folder
from fl_rsna.runs import MANIFEST, MODEL, Listener, RunFolder, fold_folder, is_finished, read_summary, start_run

SHOWN = (
    "waiting",
    "roll_call",
    "round_start",
    "site_done",
    "site_failed",
    "round_end",
    "resumed",
)  # of a fold, in the whole's display


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """A finished run of one fold."""

    number: int  # from 0
    folder: Path
    run_id: str
    accepted: dict[str, int]  # a site's last round that entered its model: what is personal there is of that round
    summary: dict[str, Any]
    config: ModelConfig  # as its run left it: what its predictions are corrected for is of that run

    @property
    def model(self) -> Path:
        return self.folder / MODEL


def play_folds(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> list[FoldRun]:
    """Run every fold that is not finished, one after the other, each going on where it was killed. Raises as `run_rounds`."""
    device = str(run.read_json(MANIFEST)["device"])
    for number in range(config.stacking.folds):
        folder = fold_folder(run.folder, number)
        if is_finished(folder):
            continue
        part = _config_of(config, number, resume=folder.exists())
        with held(folder):
            fold = start_run(folder, part, cohort, device, (_shown_in(run),))
            run.event("fold_start", fold=number + 1, folds=config.stacking.folds)
            with end_in_folder(fold, part):
                run_rounds(grid, part, cohort, fold)
        run.event("fold_end", fold=number + 1, folds=config.stacking.folds)
    return [_read(fold_folder(run.folder, number), number) for number in range(config.stacking.folds)]


def _config_of(config: Config, number: int, *, resume: bool) -> Config:
    part = copy.deepcopy(config)
    part.stage, part.stacking.left_out, part.resume = Stage.slice, number, resume
    return part


def _shown_in(run: RunFolder) -> Listener:
    """Rounds of a fold for those who watch the whole; its own end is not the whole's."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind in SHOWN:
            run.tell(kind, fields)

    return listen


def _read(folder: Path, number: int) -> FoldRun:
    summary, run = read_summary(folder), RunFolder(folder)
    accepted = load_progress(run.checkpoints / STATE, run.identity()).accepted
    config = read_saved(folder / MODEL).config
    return FoldRun(
        number=number, folder=folder, run_id=summary["run_id"], accepted=accepted, summary=summary, config=config
    )
