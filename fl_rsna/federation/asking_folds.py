"""Every site is asked about every fold by that fold's model, once; what it says stays there."""

import math
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.hashed import read_record, write_record
from fl_rsna.federation.fold_runs import FoldRun
from fl_rsna.federation.held_out import HeldOut
from fl_rsna.federation.messages import OUT_OF_FOLD, Instructions, instruct
from fl_rsna.federation.out_of_fold import check_tables
from fl_rsna.federation.progress import GONE
from fl_rsna.federation.records import read_model, recorder
from fl_rsna.federation.replies import BelowQuorum, SiteReply, address, hear
from fl_rsna.federation.rollcall import Site
from fl_rsna.federation.setting import Setting
from fl_rsna.learning.stacked import mean_of_folds
from fl_rsna.reading import reading

ASKED = "out_of_fold.json"  # in checkpoints/


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFolds:
    """Sites that have an answer of every fold, and what asking took."""

    able: list[str]
    bytes_down: int
    bytes_up: int
    failures: int
    seconds: float

    def sites(self, setting: Setting) -> list[Site]:
        return [site for site in setting.sites if site.name in self.able]


def ask_folds(setting: Setting, folds: list[FoldRun]) -> AskedFolds:
    """What was asked before a kill is not asked again. Raises BelowQuorum when too few sites have an answer of every fold."""
    path = setting.run.checkpoints / ASKED
    if path.exists():
        with reading(path, "what sites said of the folds", GONE):
            asked = AskedFolds(**read_record(path, GONE, setting.run.identity())["asked"])
        check_tables(setting.run.site_memory, asked.able, [fold.run_id for fold in folds])
        return asked
    start = time.perf_counter()
    replies = [reply for fold in folds for reply in _ask(setting, fold)]
    found = AskedFolds(
        able=_able(setting, replies),
        bytes_down=sum(reply.bytes_down for reply in replies),
        bytes_up=sum(reply.bytes_up for reply in replies),
        failures=sum(bool(reply.error) for reply in replies),
        seconds=time.perf_counter() - start,
    )
    write_record(path, {**setting.run.identity(), "asked": asdict(found)})
    return found


def mean_on_test_site(setting: Setting, folds: list[FoldRun]) -> NDArray[np.float32]:
    """Probabilities [N, L] of the test slices, the mean of the folds' models."""
    data, task = setting.test.data, setting.test.task
    found = [
        HeldOut(data, task, _told(setting, fold)).probabilities(read_model(fold.model, setting.network))
        for fold in folds
    ]
    return mean_of_folds(found)


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
    return replace(setting.told, model=fold.config, run_id=fold.run_id, accepted=fold.accepted, stacking=stacking)


def _able(setting: Setting, replies: list[SiteReply]) -> list[str]:
    failed = {reply.site: reply.error for reply in replies if reply.error}
    able = [site.name for site in setting.sites if site.name not in failed]
    needed = max(1, math.ceil(setting.config.strategy.quorum * len(setting.sites)))
    if len(able) < needed:
        said = "; ".join(f"{site}: {error}" for site, error in failed.items())
        raise BelowQuorum(f"out of fold: {len(able)} of {len(setting.sites)} sites replied, {needed} needed ({said})")
    return able
