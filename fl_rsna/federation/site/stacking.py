"""What a site does for a stacker: keeps what each fold's model says of patients it never saw, and grows trees on that.

Predictions of single slices stay at the site, beside what else it remembers of each fold's run. What leaves it are trees,
a loss a label, and the counts and scorecards every model's end has.
"""

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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

STACK = "stack"  # beside the instructions: the folds' runs, and all training slices of the sites that are asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a site can train and validate a stacker on: features [N, F], and the slices they are of."""

    train: Floats
    labels: Floats  # [N, L]
    validation: Floats
    table: pd.DataFrame  # of the validation slices, with the mean of the folds' probabilities


def keep_out_of_fold(message: Message, place: SitePaths) -> Message:
    """Ask the model in the message, a fold's, about that fold's patients and the validation part; remember what it says."""
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
    known = {f"{LABEL}{name}": data.labels[rows, i] for i, name in enumerate(task.labels)}  # NaN where nobody knows
    table = prediction_table(data, rows, found, task)
    table = table.assign(**known, **{STRANGER: np.arange(len(rows)) < len(strangers)})
    path = place.memory / instructions.run_id / OUT_OF_FOLD
    path.parent.mkdir(parents=True, exist_ok=True)
    write_fold_table(path, table, data.name)
    return reply_with(message, metrics={"num-examples": len(rows)})


def grow_trees(message: Message, place: SitePaths) -> Message:
    """One more tree a label on the site's out-of-fold features; under cyclic the whole forests with it."""
    instructions, asked = read_instructions(message), _read_stack_config(message)
    assert instructions.stacking is not None
    start, task, held = (
        time.perf_counter(),
        find_task(instructions.task),
        _read_held(message, place, instructions),
    )
    name = open_data(place, instructions.model).name
    if fault_of(instructions.faults, name, instructions.round) is FaultKind.crash:
        raise SiteCrashed("told to crash by faults.sites")
    share = len(held.train) / int(asked["slices"]) if instructions.stacking.method is Boosting.bagging else 1.0
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
    """Mean log loss of each label on the validation part; without labels that rest on too few under privacy.min_count."""
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
    """As for a network: remember what the final trees say of the validation part, and reply with counts of it."""
    instructions = read_instructions(message)
    task, held = find_task(instructions.task), _read_held(message, place, instructions)
    found = by_trees(_forests(message, held, task), held.validation, instructions.prior, task)
    return keep_and_count(message, place, instructions, with_probabilities(held.table, found, task))


def _read_stack_config(message: Message) -> dict[str, Any]:
    return dict(json.loads(str(record_in(message.content, CONFIG, ConfigRecord)[STACK])))


def _forests(message: Message, held: Held, task: Task) -> dict[str, Forest]:
    return unpack_trees(record_in(message.content, ARRAYS, ArrayRecord), task.labels, held.train.shape[1])


def _read_held(message: Message, place: SitePaths, instructions: Instructions) -> Held:
    paths = paths_of(place.memory, _read_stack_config(message)["runs"])
    return _read(paths, tuple(path.stat().st_mtime_ns for path in paths), instructions.task)


@lru_cache(maxsize=64)
def _read(paths: tuple[Path, ...], changed: tuple[int, ...], task_name: str) -> Held:
    """Kept between messages until a file changes."""
    task = find_task(task_name)
    own, others = read_tables(paths, task)
    return Held(
        train=stack_features(own, probabilities_in(own, task.labels)),
        labels=labels_in(own, task.labels),
        validation=stack_features(others, probabilities_in(others, task.labels)),
        table=others,
    )
