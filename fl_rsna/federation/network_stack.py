"""A stacker that is a network along the series: the rounds, strategies and end of any run, on the folds' predictions."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.choices import Norm
from fl_rsna.config import Config
from fl_rsna.federation.asking_folds import ask_folds, mean_on_test_site
from fl_rsna.federation.ending import finish, write_last
from fl_rsna.federation.fold_runs import FoldRun
from fl_rsna.federation.held_out import HeldOut
from fl_rsna.federation.material import new_network, of_stack
from fl_rsna.federation.replies import BelowQuorum
from fl_rsna.federation.rounds import begin, play_rounds
from fl_rsna.federation.sequence_told import head_training
from fl_rsna.federation.setting import Setting, announce
from fl_rsna.federation.stack_ending import of_all_parts, shas_of, stack_summary
from fl_rsna.federation.stack_logits import in_index
from fl_rsna.federation.stack_told import StackTold
from fl_rsna.learning.flat import flatten, layout_sha256, parameter_positions, positions
from fl_rsna.learning.model import set_training
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import choose_device


def stack_by_network(setting: Setting, folds: list[FoldRun]) -> None:
    """Raises BelowQuorum and FloatingPointError as an ordinary run, leaving its last models in checkpoints/."""
    mean = mean_on_test_site(setting, folds)
    second = _second(setting, folds, mean)
    announce(second)
    progress = begin(second)
    try:
        asked = ask_folds(setting, folds)
        if progress.round == 0:
            progress.bytes_down, progress.bytes_up = asked.bytes_down, asked.bytes_up
            progress.failures, progress.seconds = asked.failures, asked.seconds
        second = replace(second, sites=asked.sites(second))
        play_rounds(second, progress)
    except (BelowQuorum, FloatingPointError):
        write_last(second, progress)
        raise

    def more(summary: dict[str, Any], found: NDArray[np.float32]) -> dict[str, Any]:
        stacker = {"stacker": setting.config.stacking.stacker.value, "parameters": int(second.parameters.sum())}
        return {
            **of_all_parts(summary, folds),
            "stage": setting.config.stage.value,
            "stacking": {**stacker, **stack_summary(second, folds, found, mean)},
        }

    finish(second, progress, more, {"folds": shas_of(folds)})


def _second(setting: Setting, folds: list[FoldRun], mean: NDArray[np.float32]) -> Setting:
    """The setting of the stacker's rounds, with a test site that shows the mean of the folds' models."""
    config, task, data = _config_of(setting.config), setting.test.task, setting.test.data
    shape = config.sequence
    stack = StackTold(
        runs=tuple(fold.run_id for fold in folds), width=shape.width, layers=shape.layers, dropout=shape.dropout
    )
    model = replace(setting.told.model, norm=Norm.average, recalibrate=False)
    told = replace(setting.told, model=model, train=config.train, learning_rate=config.train.learning_rate, stack=stack)
    network = new_network(told, task, data.image, derive_seed(config.seed, "initial stacker"))
    set_training(network, config.model.norm, config.train.trainable)
    logits = in_index(data.index, setting.test.predictions(mean), task)
    told = replace(told, layout_sha256=layout_sha256(network))
    return replace(
        setting,
        config=config,
        told=told,
        test=HeldOut(data, task, told, of_stack(data, task, told, logits, choose_device(config.train.device))),
        network=network,
        initial=flatten(network),
        parameters=parameter_positions(network),
        stepped=parameter_positions(network),
        trained=positions(network, (name for name, _ in network.named_parameters())),
    )


def _config_of(config: Config) -> Config:
    """Rounds and training of the stacker in place of the slice models'; nothing of it is BatchNorm."""
    found, own = copy.deepcopy(config), config.sequence
    found.rounds = own.rounds or config.stacking.rounds
    found.model = replace(config.model, norm=Norm.average, recalibrate=False)
    found.train = head_training(config)
    return found
