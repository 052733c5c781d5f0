"""Answer the messages of a stacking: keep each fold's predictions of the patients that its training left out, and grow trees on them.

Predictions of single slices stay at the site, in its memory of each fold's run. It sends trees, a loss for each label, and the counts
and scorecards of every final model.
"""

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.codec import pack_trees, unpack_trees
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    Instructions,
    read_instructions,
    record_in,
    reply_with,
)
from fl_rsna.federation.protocol.minimum_count import rests_on_enough
from fl_rsna.federation.protocol.simulated import SiteCrashed, fault_of
from fl_rsna.federation.site.handlers import SitePaths, open_data, ready
from fl_rsna.federation.site.memory import recall
from fl_rsna.federation.site.scoring import keep_and_count
from fl_rsna.federation.site.stage_data import (
    OUT_OF_FOLD,
    STRANGER,
    build_stage_data,
    paths_of,
    read_tables,
    with_probabilities,
    write_fold_table,
)
from fl_rsna.learning.data.folds import fold_of
from fl_rsna.learning.inference.predict import LABEL, labels_in, prediction_table, probabilities_in
from fl_rsna.learning.inference.stacking import by_trees, stack_features
from fl_rsna.learning.metrics.metrics import label_losses
from fl_rsna.learning.models.trees import Floats, Forest, grow, margins
from fl_rsna.settings.federation import FaultKind
from fl_rsna.settings.stages import Boosting
from fl_rsna.task import Task, find_task

STACK = "stack"  # the record beside the instructions that holds StackFacts


class StackFacts(TypedDict):
    """The ids of the folds' runs, and the number of training slices of all sites that are asked."""

    runs: list[str]
    slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The data on which a site trains and validates a stacker: features [N, F] of its slices, and their labels."""

    train: Floats
    labels: Floats  # [N, L]
    validation: Floats
    table: pd.DataFrame  # the validation slices, with the mean of the folds' probabilities


def keep_out_of_fold(message: Message, place: SitePaths) -> Message:
    """Predict a fold's patients and the validation part with that fold's model in the message, and keep the predictions."""
    instructions = read_instructions(message)
    assert instructions.stacking is not None
    assert instructions.stacking.left_out is not None
    data = open_data(place, instructions.model)
    task, model = ready(
        message,
        data,
        instructions,
        recall(place.memory / instructions.run_id, instructions.accepted.get(data.name, 0), data.name),
    )
    strangers = np.flatnonzero(
        fold_of(data, task, instructions.stacking.folds, instructions.seed) == instructions.stacking.left_out
    )
    rows = np.concatenate([strangers, data.rows("validation")])
    found = build_stage_data(data, task, instructions).predict(model, rows)
    known = {f"{LABEL}{name}": data.labels[rows, i] for i, name in enumerate(task.labels)}  # NaN where unknown
    table = prediction_table(data, rows, found, task)
    table = table.assign(**known, **{STRANGER: np.arange(len(rows)) < len(strangers)})
    path = place.memory / instructions.run_id / OUT_OF_FOLD
    path.parent.mkdir(parents=True, exist_ok=True)
    write_fold_table(path, table, data.name)
    return reply_with(message, metrics={"num-examples": len(rows)})


def grow_trees(message: Message, place: SitePaths) -> Message:
    """Grow one more tree for each label on the site's out-of-fold features; under cyclic reply with the whole forests."""
    instructions, asked = read_instructions(message), _read_stack_config(message)
    assert instructions.stacking is not None
    start, task = time.perf_counter(), find_task(instructions.task)
    held = _read_held(message, place, instructions)
    name = open_data(place, instructions.model).name
    if fault_of(instructions.faults, name, instructions.round) is FaultKind.crash:
        raise SiteCrashed("told to crash by faults.sites")
    share = len(held.train) / asked["slices"] if instructions.stacking.method is Boosting.bagging else 1.0
    forests, grown = _forests(message, held, task), dict[str, Forest]()
    for i, label in enumerate(task.labels):
        before = margins(forests[label], held.train, instructions.prior[i])
        tree = grow(
            held.train, held.labels[:, i], before, instructions.stacking, rate=instructions.stacking.learning_rate * share,
            seed=derive_seed(instructions.seed, "tree", name, label, instructions.round), min_count=instructions.min_count,
        )  # fmt: skip
        grown[label] = [*(forests[label] if instructions.stacking.method is Boosting.cyclic else []), tree]
    arrays = pack_trees(grown, held.train.shape[1], dict(zip(task.labels, instructions.prior, strict=True)))
    metrics = {"num-examples": len(held.train), "steps": 1, "seconds": time.perf_counter() - start}
    return Message(RecordDict({ARRAYS: arrays, METRICS: MetricRecord(dict(metrics))}), reply_to=message)


def validate_trees(message: Message, place: SitePaths) -> Message:
    """Compute each label's mean log loss on the validation part, without labels of fewer than privacy.min_count slices or patients."""
    instructions = read_instructions(message)
    task, held = find_task(instructions.task), _read_held(message, place, instructions)
    labels = labels_in(held.table, task.labels)
    found = by_trees(_forests(message, held, task), held.validation, instructions.prior, task)
    enough = rests_on_enough(labels, held.table[task.group_key].to_numpy(), instructions.min_count)
    losses, known = label_losses(labels, found), ~np.isnan(labels)
    told_losses = {
        f"loss/{label}": float(losses[known[:, i], i].mean())
        for i, label in enumerate(task.labels)
        if enough[i] and known[:, i].any()
    }
    return reply_with(message, metrics={"num-examples": len(labels), **told_losses})


def count_trees(message: Message, place: SitePaths) -> Message:
    """Predict the validation part with the final trees, keep the predictions, and reply with counts."""
    instructions = read_instructions(message)
    task, held = find_task(instructions.task), _read_held(message, place, instructions)
    found = by_trees(_forests(message, held, task), held.validation, instructions.prior, task)
    return keep_and_count(message, place, instructions, with_probabilities(held.table, found, task))


def _read_stack_config(message: Message) -> StackFacts:
    found: StackFacts = json.loads(str(record_in(message.content, CONFIG, ConfigRecord)[STACK]))
    return found


def _forests(message: Message, held: Held, task: Task) -> dict[str, Forest]:
    return unpack_trees(record_in(message.content, ARRAYS, ArrayRecord), task.labels, held.train.shape[1])


def _read_held(message: Message, place: SitePaths, instructions: Instructions) -> Held:
    paths = paths_of(place.memory, _read_stack_config(message)["runs"])
    return _read(paths, tuple(path.stat().st_mtime_ns for path in paths), instructions.task)


@lru_cache(maxsize=64)
def _read(paths: tuple[Path, ...], changed: tuple[int, ...], task_name: str) -> Held:
    """Read the data of a stacker, which are kept between messages until a file changes."""
    task = find_task(task_name)
    own, others = read_tables(paths, task)
    return Held(
        train=stack_features(own, probabilities_in(own, task.labels)),
        labels=labels_in(own, task.labels),
        validation=stack_features(others, probabilities_in(others, task.labels)),
        table=others,
    )
