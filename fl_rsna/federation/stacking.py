"""The story of a stacking: a slice model a fold, what each says of patients it never saw, and a second model on that."""

import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from flwr.serverapp import Grid

from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.federation.fold_runs import FoldRun, play_folds
from fl_rsna.federation.messages import OUT_OF_FOLD, Instructions, instruct
from fl_rsna.federation.records import read_model, recorder, write_round
from fl_rsna.federation.replies import BelowQuorum, SiteReply, address, hear
from fl_rsna.federation.setting import Setting, announce, call_sites
from fl_rsna.federation.stack_ending import finish_stack
from fl_rsna.federation.stack_progress import STACK_STATE, StackProgress, load_stack
from fl_rsna.federation.tree_rounds import Stacking, play_trees
from fl_rsna.learning.stack_features import stack_features
from fl_rsna.runs import RunFolder


def run_stacking(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a model of every fold and a stacker on them, and write the whole run folder; fold-1, fold-2, ... lie in it.

    A killed run goes on in the fold or the round it was at. Raises ValueError before anything is trained when the roll
    call refuses; BelowQuorum and FloatingPointError as an ordinary run, after summary.json says failed.
    """
    setting = call_sites(grid, config, cohort, run)
    try:
        folds = play_folds(grid, config, cohort, run)
        announce(setting, config.stacking.rounds)
        stacking = _begin(setting, folds)
        play_trees(stacking)
        finish_stack(stacking, folds)
    except (BelowQuorum, FloatingPointError) as error:
        run.event("run_failed", reason=str(error))
        run.write_json("summary.json", {"status": "failed", "reason": str(error), "rounds": config.stacking.rounds})
        raise


def _begin(setting: Setting, folds: list[FoldRun]) -> Stacking:
    """The state to go on from: the folder's checkpoint, or round 0, before which every site was asked about every fold."""
    path, task = setting.run.checkpoints / STACK_STATE, setting.test.task
    models = [read_model(fold.model, setting.network) for fold in folds]
    found = np.asarray(np.mean([setting.test.probabilities(model) for model in models], axis=0), np.float32)
    features = stack_features(setting.test.slices, found)
    if path.exists():
        progress = load_stack(path, features.shape[1])
        setting.run.rewind(progress.round)
        setting.run.event("resumed", round=progress.round)
        return Stacking(setting=setting, progress=progress, test=features, mean=found)
    setting.run.rewind(-1)
    start = time.perf_counter()
    heard = [_ask(setting, fold) for fold in folds]
    progress = StackProgress(
        run_id=secrets.token_hex(8),
        runs=[fold.run_id for fold in folds],
        able=_able(setting, heard),
        forests={label: [] for label in task.labels},
    )
    for reply in (reply for replies in heard for reply in replies):
        progress.bytes_down, progress.bytes_up = (
            progress.bytes_down + reply.bytes_down,
            progress.bytes_up + reply.bytes_up,
        )
        progress.failures += bool(reply.error)
    progress.seconds = time.perf_counter() - start
    stacking = Stacking(setting=setting, progress=progress, test=features, mean=found)
    write_round(setting.run, task, 0, {**setting.test.point(found), "seconds": progress.seconds})
    stacking.save()
    return stacking


def _ask(setting: Setting, fold: FoldRun) -> list[SiteReply]:
    """Send a fold's model to every site, which keeps what it says of that fold's patients."""
    model = read_model(fold.model, setting.network)
    messages, down = address(setting.sites, OUT_OF_FOLD, model, instruct(_told(setting, fold)), 0)
    record = recorder(setting.run, f"out of fold {fold.number + 1}", 0)
    heard = hear(setting.sites, setting.deliver(messages), lambda reply: None, bytes_down=down, on_reply=record)
    return [reply for reply, _ in heard]


def _told(setting: Setting, fold: FoldRun) -> Instructions:
    """As in the fold's own run, so that a site's personal layers of that run are found."""
    assert setting.told.stacking is not None
    stacking = replace(setting.told.stacking, left_out=fold.number)
    return replace(setting.told, run_id=fold.run_id, accepted=fold.accepted, stacking=stacking)


def _able(setting: Setting, heard: Iterable[list[SiteReply]]) -> list[str]:
    """Sites that have an answer of every fold; raises BelowQuorum when they are too few."""
    failed = {reply.site: reply.error for replies in heard for reply in replies if reply.error}
    able = [site.name for site in setting.sites if site.name not in failed]
    needed = max(1, math.ceil(setting.config.strategy.quorum * len(setting.sites)))
    if len(able) < needed:
        said = "; ".join(f"{site}: {error}" for site, error in failed.items())
        raise BelowQuorum(f"out of fold: {len(able)} of {len(setting.sites)} sites replied, {needed} needed ({said})")
    return able
