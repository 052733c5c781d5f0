"""The story of a stacking: a slice model a fold, what each says of patients it never saw, and a second model on that."""

import secrets

from flwr.serverapp import Grid

from fl_rsna.choices import Stacker
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.federation.asking_folds import ask_folds, mean_on_test_site
from fl_rsna.federation.fold_runs import FoldRun, play_folds
from fl_rsna.federation.network_stack import stack_by_network
from fl_rsna.federation.out_of_fold import check_tables
from fl_rsna.federation.records import write_round
from fl_rsna.federation.setting import Setting, announce, call_sites
from fl_rsna.federation.stack_ending import finish_trees
from fl_rsna.federation.stack_progress import STACK_STATE, StackProgress, load_stack
from fl_rsna.federation.tree_rounds import Stacking, play_trees
from fl_rsna.learning.stack_features import stack_features
from fl_rsna.runs import TABLES, RunFolder


def run_stacking(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a model of every fold and a stacker on them, and write the whole run folder; fold-1, fold-2, ... lie in it.

    A killed run goes on in the fold or the round it was at. Raises ValueError before anything is trained when the roll
    call refuses; BelowQuorum and FloatingPointError as an ordinary run.
    """
    setting = call_sites(grid, config, cohort, run)
    folds = play_folds(grid, config, cohort, run)
    match config.stacking.stacker:
        case Stacker.xgboost:
            _stack_by_trees(setting, folds)
        case Stacker.cnn:
            stack_by_network(setting, folds)


def _stack_by_trees(setting: Setting, folds: list[FoldRun]) -> None:
    announce(setting, setting.config.stacking.rounds)
    stacking = _begin(setting, folds)
    play_trees(stacking)
    finish_trees(stacking, folds)


def _begin(setting: Setting, folds: list[FoldRun]) -> Stacking:
    """The state to go on from: the folder's checkpoint, or round 0, before which every site was asked about every fold."""
    path, task, mean = setting.run.checkpoints / STACK_STATE, setting.test.task, mean_on_test_site(setting, folds)
    features = stack_features(setting.test.slices, mean)
    if path.exists():
        progress, facts = load_stack(path, features.shape[1], setting.run.identity())
        check_tables(setting.run.site_memory, progress.able, progress.runs)
        changed = setting.run.rewind(progress.round, facts.get(TABLES))
        setting.run.event("resumed", round=progress.round)
        for text in changed:
            setting.run.event("warning", text=text)
        return Stacking(setting=setting, progress=progress, test=features, mean=mean)
    setting.run.rewind(-1)
    asked = ask_folds(setting, folds)
    progress = StackProgress(
        run_id=secrets.token_hex(8),
        runs=[fold.run_id for fold in folds],
        able=asked.able,
        forests={label: [] for label in task.labels},
        bytes_down=asked.bytes_down,
        bytes_up=asked.bytes_up,
        failures=asked.failures,
        seconds=asked.seconds,
    )
    stacking = Stacking(setting=setting, progress=progress, test=features, mean=mean)
    write_round(setting.run, task, 0, {**setting.test.point(mean), "seconds": progress.seconds})
    stacking.save()
    return stacking
