"""Run the folds of a stacking: an ordinary run of the slice stage for each, in which every site leaves that fold out.

Then every site predicts, once for each fold, that fold's patients with that fold's model; the predictions stay at the site.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.hashes import read_record, write_record
from fl_rsna.common.ownership import hold_lock
from fl_rsna.common.reading import refuse_unreadable
from fl_rsna.federation.protocol.messages import OUT_OF_FOLD, Instructions, instruct
from fl_rsna.federation.server.ask import SiteReply, ask, model_content, recorder, require_quorum, sum_traffic
from fl_rsna.federation.server.checkpoint import GONE, load_progress
from fl_rsna.federation.server.context import RunContext
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.rounds import run_rounds
from fl_rsna.federation.server.run_log import STATE, read_model
from fl_rsna.federation.server.scoring.held_out_site import HeldOut
from fl_rsna.federation.site.stage_data import check_tables
from fl_rsna.learning.inference.stacking import mean_of_folds
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.run_folder.run_end import end_in_folder
from fl_rsna.run_folder.run_folder import (
    MANIFEST,
    MODEL,
    Listener,
    RunFolder,
    fold_folder,
    is_finished,
    read_summary,
    start_run,
)
from fl_rsna.run_folder.summary import SummaryInBrief
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import RunModel
from fl_rsna.settings.stages import Stage

SHOWN = (
    "waiting",
    "roll_call",
    "round_start",
    "site_done",
    "site_failed",
    "round_end",
    "resumed",
)  # the events of a fold that displays of the whole run show
ASKED = "out_of_fold.json"  # in checkpoints/


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """A finished run of one fold."""

    number: int  # from 0
    folder: Path
    run_id: str
    accepted: dict[str, int]  # by site: its last round that entered the model, whose personal layers it uses
    summary: SummaryInBrief
    config: RunModel  # as its run saved it, with the corrections of its predictions

    @property
    def model(self) -> Path:
        """Return the file of the fold's final model."""
        return self.folder / MODEL


def play_folds(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> list[FoldRun]:
    """Run the folds that are not finished, one after the other; a fold that was killed goes on. Raises the errors of `run_rounds`."""
    device = str(run.read_json(MANIFEST)["device"])
    for number in range(config.stacking.folds):
        folder = fold_folder(run.folder, number)
        if is_finished(folder):
            continue
        part = _config_of(config, number, resume=folder.exists())
        with hold_lock(folder):
            fold = start_run(folder, part, cohort, device, (_make_listener(run),))
            run.event("fold_start", fold=number + 1, folds=config.stacking.folds)
            with end_in_folder(fold, part):
                run_rounds(grid, part, cohort, fold)
        run.event("fold_end", fold=number + 1, folds=config.stacking.folds)
    return [_read(fold_folder(run.folder, number), number) for number in range(config.stacking.folds)]


def _config_of(config: Config, number: int, *, resume: bool) -> Config:
    part = copy.deepcopy(config)
    part.stage, part.stacking.left_out, part.resume = Stage.slice, number, resume
    return part


def _make_listener(run: RunFolder) -> Listener:
    """Make a listener that shows a fold's rounds to the displays of the whole run, but not the fold's end."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind in SHOWN:
            run.tell(kind, fields)

    return listen


def _read(folder: Path, number: int) -> FoldRun:
    summary, run = cast(SummaryInBrief, read_summary(folder)), RunFolder(folder)
    accepted = load_progress(run.checkpoints / STATE, run.identity()).accepted
    config = read_saved(folder / MODEL).config
    return FoldRun(
        number=number, folder=folder, run_id=summary["run_id"], accepted=accepted, summary=summary, config=config
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFolds:
    """The sites that have predictions of every fold, and the traffic and time it took to ask for them."""

    able: list[str]
    bytes_down: int
    bytes_up: int
    failures: int
    seconds: float

    def sites(self, context: RunContext) -> list[Site]:
        """Return the sites of the run that have predictions of every fold."""
        return [site for site in context.sites if site.name in self.able]


def ask_folds(context: RunContext, folds: list[FoldRun]) -> AskedFolds:
    """Send every fold's model to every site, which keeps its predictions of that fold; a run that goes on does not ask again.

    Raises BelowQuorum when too few sites have predictions of every fold.
    """
    path = context.run.checkpoints / ASKED
    if path.exists():
        with refuse_unreadable(path, "what sites said of the folds", GONE):
            asked = AskedFolds(**read_record(path, GONE, context.run.identity())["asked"])
        check_tables(context.run.site_memory, asked.able, [fold.run_id for fold in folds])
        return asked
    start = time.perf_counter()
    replies = list[SiteReply]()
    for fold in folds:
        model = read_model(fold.model, context.network)
        content = model_content(model, instruct(_build_instructions(context, fold)))
        record = recorder(context.run, f"out of fold {fold.number + 1}", 0)
        replies += ask(context, context.sites, OUT_OF_FOLD, content, round_=0, on_reply=record)
    failed = {reply.site for reply in replies if reply.error}
    able = [site.name for site in context.sites if site.name not in failed]
    require_quorum("out of fold", len(able), len(context.sites), context.config.strategy, replies)
    found = AskedFolds(able=able, **sum_traffic(replies), seconds=time.perf_counter() - start)
    write_record(path, {**context.run.identity(), "asked": asdict(found)})
    return found


def mean_on_test_site(context: RunContext, folds: list[FoldRun]) -> NDArray[np.float32]:
    """Predict the test slices by the mean of the folds' models: probabilities [N, L]."""
    data, task = context.test.data, context.test.task
    found = [
        HeldOut(data, task, _build_instructions(context, fold)).probabilities(read_model(fold.model, context.network))
        for fold in folds
    ]
    return mean_of_folds(found)


def _build_instructions(context: RunContext, fold: FoldRun) -> Instructions:
    """Make the instructions of the fold's own run, so that a site finds its personal layers of that run."""
    assert context.instructions.stacking is not None
    stacking = replace(context.instructions.stacking, left_out=fold.number)
    return replace(
        context.instructions, model=fold.config, run_id=fold.run_id, accepted=fold.accepted, stacking=stacking
    )
