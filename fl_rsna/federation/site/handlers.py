"""Handle the messages to a site: answer the roll call, train the model in a message, and evaluate it.

In a stacking no difference of reported counts may be small. The counts of all training slices are reported once, and those without a
fold K times, once for each fold; each difference is a fold's count. So a label with a small count in any fold is withheld in all K
reports, and a site with a fold of few slices does not take part.
"""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from torch import nn

from fl_rsna.cohort.prepared.index import hash_id, read_facts
from fl_rsna.cohort.prepared.patients import are_placeholders, comparable
from fl_rsna.cohort.sites.site_folders import PartCounts, counts
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.codec import decode, encode, unpack
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    SECOND,
    SITE,
    Instructions,
    from_arrays,
    parse_record,
    read_instructions,
    record_in,
    reply_with,
)
from fl_rsna.federation.protocol.minimum_count import (
    is_small,
    pad_hashes,
    rests_on_enough,
    suppress_controls,
    suppress_counts,
    suppress_small,
)
from fl_rsna.federation.protocol.simulated import corrupt_model, fault_of
from fl_rsna.federation.site.heartbeat import keep_heartbeat
from fl_rsna.federation.site.memory import Memory, recall, remember
from fl_rsna.federation.site.stage_data import build_stage_data, network_of
from fl_rsna.learning.data.dataset import POOLED, OnPacked, SiteData, open_for, open_pooled, unheard
from fl_rsna.learning.data.folds import LEFT_OUT, fold_of, without_fold
from fl_rsna.learning.metrics.controls import controls_of, count_table
from fl_rsna.learning.metrics.metrics import aurocs, log_loss
from fl_rsna.learning.models.classifier import Classifier, find_shared_positions, personal_names
from fl_rsna.learning.models.flat import FlatModel, flatten, layout_sha256, positions, unflatten
from fl_rsna.learning.models.trees import xgboost
from fl_rsna.learning.training.client_update import PERSONAL, Round, SitePart, Vector, train_site
from fl_rsna.learning.training.train import EVALUATION_BATCH, choose_device, estimate_norm
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import ModelConfig, RunModel
from fl_rsna.settings.stages import Stacker, StackingConfig
from fl_rsna.strategies.find import find_strategy
from fl_rsna.task import LabelKind, Task, find_task
from fl_rsna.version import code_version

PACKING_LINE_S = 10.0  # between two lines about packing
LOST = "lost"  # the rounding error of the last change
NORM = "norm"  # values personal to the site: BatchNorm's, and the window


def counts_by_fold(
    data: SiteData, task: Task, stacking: StackingConfig, seed: int, k: int, whole: dict[str, PartCounts]
) -> dict[str, PartCounts]:
    """Return the counts without the fold that is left out, or `whole` where none is. Raises ValueError for a fold of 1 to k - 1 slices."""
    fold = fold_of(data, task, stacking.folds, seed)
    slices = np.bincount(fold[fold >= 0], minlength=stacking.folds)
    if any(is_small(int(count), k) for count in slices):
        raise ValueError(
            f"privacy.min_count: expected at least {k} slices in each of {stacking.folds} folds at every site, got fewer "
            "here; lower it or stacking.folds, or leave this site out"
        )
    if stacking.left_out is None:
        return whole
    rest = counts(without_fold(data, task, stacking.folds, stacking.left_out, seed).index, task)
    rest.pop(LEFT_OUT, None)
    few = {label for i, label in enumerate(task.labels) if _few(data.labels[:, i], fold, stacking.folds, k)}
    few |= {label for label, count in whole["train"]["positives"].items() if count is None}
    if few and task.kind is LabelKind.multi_class:
        few = set(task.labels)  # classes add up to all
    train = rest["train"]
    instructions = {label: None if label in few else count for label, count in train["positives"].items()}
    patients = None if k > 1 else suppress_small(train["patients"], k)
    return {**whole, "train": {**train, "patients": patients, "positives": instructions}}


def _few(labels: NDArray[np.float32], fold: NDArray[np.int64], folds: int, k: int) -> bool:
    """Tell whether any fold, or the rest without it, has 1 to k - 1 positives or negatives of one label [N]."""
    sides = [fold == number for number in range(folds)]
    sides += [(fold >= 0) & ~side for side in sides]
    return any(
        is_small(count, k)
        for side in sides
        for count in (int((labels[side] > 0).sum()), int((labels[side] == 0).sum()))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePaths:
    """The folders of a site's data, which are pooled where they are several, and the folder of its memory of runs.

    `cache` is where one folder's images are packed; without it they are packed inside the folder. `heartbeat` is a
    folder for its progress; `log` is the file for its failures, stderr without one. With `aloud` every message writes a line
    to stderr. A run whose privacy.min_count is below `min_count` is refused.
    """

    folders: tuple[Path, ...]
    memory: Path
    cache: Path | None = None
    heartbeat: Path | None = None
    log: Path | None = None
    aloud: bool = False
    min_count: int = 0


def roll_call(message: Message, place: SitePaths) -> Message:
    """Answer the roll call: the site's name, its counts, and hashes of its patients with the run's salt. No identifier leaves the site.

    Counts and controls are of the site's own labels, also where partition.noise made some of them wrong.
    """
    instructions = read_instructions(message)
    task = find_task(instructions.task)
    check_held(place.folders, task)
    with keep_heartbeat(place.heartbeat, site_of(place), 0, packing=True) as on_packed:
        data = _open(
            instructions.model,
            place.folders,
            place.cache,
            report_progress(place, on_packed) if place.aloud else on_packed,
        )
    train = data.rows("train")
    exclusive = task.kind is LabelKind.multi_class
    counted = {
        control.value: count_table(data.index.iloc[train], np.nan_to_num(data.labels[train]), control)
        for control in controls_of(task.rendering)
    }
    tables = {
        name: suppress_controls(table, instructions.min_count, exclusive=exclusive).tolist()
        for name, table in counted.items()
    }
    hashes = {hash_id(str(patient), instructions.salt) for patient in comparable(data.index, instructions.group_key)}
    answer = ConfigRecord(
        {
            "name": data.name,
            "version": code_version(),
            "cohort_sha256": data.cohort_sha256,
            "task": data.task,
            "image": data.image.value,
            "ids": data.ids or "",
            "counts": json.dumps(_report_counts(data, task, instructions)),
            "controls": json.dumps(tables),
            "patients": pad_hashes(hashes, instructions.min_count),
            **({"unannotated": list(data.unknown_labels)} if data.unknown_labels else {}),
            **({"placeholders": True} if are_placeholders(data.index).any() else {}),
        }
    )
    return Message(RecordDict({SITE: answer}), reply_to=message)


def check_held(folders: Iterable[Path], task: Task) -> None:
    """Refuse folders of another task or other labels than the run's, before their images are opened; raises ValueError."""
    for folder in folders:
        facts = read_facts(
            folder / "site.json",
            f"expected a site folder with site.json, got {folder}; give the folder of one site",
            by_hand=True,
        )
        held, labels = facts.get("task"), facts.get("labels")
        if held != task.name:
            raise ValueError(
                f"expected data of task {task.name}, got task {held} here; give this site a folder of the run's cohort"
            )
        if not isinstance(labels, list) or list(map(str, labels)) != list(task.labels):
            found = ", ".join(map(str, labels)) if isinstance(labels, list) else labels
            raise ValueError(
                f"expected the labels {', '.join(task.labels)} of task {task.name}, got {found} here; prepare this site's data again"
            )


def _report_counts(data: SiteData, task: Task, instructions: Instructions) -> dict[str, PartCounts]:
    """Count the slices that are trained and validated on; in a stacking check the counts of the folds, too."""
    exclusive = task.kind is LabelKind.multi_class
    whole = suppress_counts(counts(data.index, task), instructions.min_count, exclusive=exclusive)
    if instructions.stacking is None:
        return whole
    if instructions.stacking.stacker is Stacker.xgboost:
        xgboost()
    return counts_by_fold(data, task, instructions.stacking, instructions.seed, instructions.min_count, whole)


def train(message: Message, place: SitePaths) -> Message:
    """Train one round from the model in the message, or estimate BatchNorm's statistics under it; reply with the result."""
    instructions = read_instructions(message)
    folder, device = place.memory / instructions.run_id, choose_device(instructions.train.device)
    data = leave_fold_out(open_data(place, instructions.model), instructions)
    accepted = instructions.accepted.get(data.name, 0)
    memory = recall(folder, accepted, data.name)
    task, model = ready(message, data, instructions, memory)
    arrays = record_in(message.content, ARRAYS, ArrayRecord)
    received = from_arrays(arrays)
    second: Vector | None = unpack(arrays[SECOND]) if SECOND in arrays else None  # such as SCAFFOLD's control variate
    personal = personal_names(model, instructions.model)
    own = positions(model, personal)
    if instructions.estimate:
        assert isinstance(model, Classifier)
        # the slices that training draws from
        drawn = build_stage_data(data, task, instructions).objective().draw(np.random.default_rng(0))
        result = estimate_norm(model, data, rows=drawn, batch_size=EVALUATION_BATCH, device=device)
        part = SitePart(result=result, remembered={}, second=None if second is None else np.zeros_like(second))
    else:
        with keep_heartbeat(place.heartbeat, data.name, instructions.round) as on_batch:
            round_ = replace(
                _round(instructions, data, task, device, second, place.memory),
                personal=frozenset(personal),
                on_batch=on_batch,
            )
            part = train_site(model, round_, memory, find_strategy(instructions.strategy).train)
    trained = flatten(model)
    exact = ~find_shared_positions(model, instructions.model)
    sent, lost = _encode_update(trained, received, instructions.precision_up, memory, exact)
    kept = {**part.remembered, **({NORM: trained.floats[own]} if own.any() else {}), **lost}
    remember(folder, instructions.round, kept, data.name, accepted=accepted, keep_all=instructions.keep_all)
    result, kind = part.result, fault_of(instructions.faults, data.name, instructions.round)
    counted = {"num-examples": result.examples, "steps": result.steps, "seconds": result.seconds}
    loss = {} if result.loss is None else {"loss": result.loss}
    if kind is not None:
        is_change = instructions.precision_up is not Precision.fp32
        start = FlatModel(np.zeros_like(sent.floats), sent.integers) if is_change else received
        sent = corrupt_model(kind, start, sent)
    return reply_with(
        message,
        metrics={**counted, **loss},
        model=sent,
        second=part.second,
        precision=instructions.precision_up,
        exact=exact,
    )


def _encode_update(
    trained: FlatModel, received: FlatModel, precision: Precision, memory: Memory, exact: NDArray[np.bool_]
) -> tuple[FlatModel, Memory]:
    """Return the part of the trained model that is sent, and the rounding error that the site must keep.

    In float32 the model itself is sent, else its change from the model in the message, which the server adds to its own; so layers
    that are personal to the site arrive unchanged, whatever the site began with. Under int8 the rounding error is added to the next
    round's change: error feedback (Seide et al. 2014; Karimireddy et al. 2019, arXiv:1901.09847).
    """
    if precision is Precision.fp32:
        return trained, {}
    change = trained.floats - received.floats
    if precision is not Precision.int8:
        return FlatModel(change, trained.integers), {}
    change = change + memory.get(LOST, np.float32(0))
    return FlatModel(change, trained.integers), {LOST: change - decode(encode(change, precision, exact))}


def evaluate(message: Message, place: SitePaths) -> Message:
    """Score the model in the message, with the layers personal to the site, on its validation part: log loss, and AUROC by label.

    A personal model that the site keeps, as under Ditto, is scored, too, as `personal/...`.
    """
    instructions = read_instructions(message)
    data = open_data(place, instructions.model)
    memory = recall(place.memory / instructions.run_id, instructions.accepted.get(data.name, 0), data.name)
    task, model = ready(message, data, instructions, memory)
    metrics = _scores(model, data, task, instructions, place.memory)
    if PERSONAL in memory:
        unflatten(FlatModel(memory[PERSONAL], flatten(model).integers), model)
        metrics |= {
            f"personal/{name}": value for name, value in _scores(model, data, task, instructions, place.memory).items()
        }
    return reply_with(message, metrics={"num-examples": len(data.rows("validation")), **metrics})


def _scores(model: nn.Module, data: SiteData, task: Task, instructions: Instructions, memory: Path) -> dict[str, float]:
    rows = data.rows("validation")
    found = build_stage_data(data, task, instructions, memory).predict(model, rows)
    truth = data.labels[rows]
    if not rows.size:
        return {}
    enough = rests_on_enough(truth, data.index[task.group_key].to_numpy()[rows], instructions.min_count)
    areas = aurocs(truth, found, task, enough).items()
    known = {f"auroc/{name}": area for name, area in areas if area is not None}
    return {"loss": log_loss(truth, found, task), **known}


def _round(
    instructions: Instructions, data: SiteData, task: Task, device: torch.device, second: Vector | None, memory: Path
) -> Round[Any]:
    return Round(
        data=data,
        objective=build_stage_data(data, task, instructions, memory).objective(),
        task=task,
        norm=instructions.model.norm,
        train=instructions.train,
        strategy=instructions.strategy,
        learning_rate=instructions.learning_rate,
        seed=derive_seed(instructions.seed, "train", data.name, instructions.round),
        device=device,
        prior=instructions.prior,
        kept=instructions.kept,
        second=second,
    )


def ready(message: Message, data: SiteData, instructions: Instructions, memory: Memory) -> tuple[Task, nn.Module]:
    """Return the task and the model in the message, with the layers that are personal to the site. Raises ValueError for another layout."""
    task = find_task(instructions.task)
    model = network_of(instructions, task, data.image)
    if layout_sha256(model) != instructions.layout_sha256:
        raise ValueError(
            f"expected the server's model layout, got another at site {data.name}; run the same version everywhere"
        )
    flat = from_arrays(record_in(message.content, ARRAYS, ArrayRecord))
    if NORM in memory:
        floats = flat.floats.copy()
        floats[positions(model, personal_names(model, instructions.model))] = memory[NORM]
        flat = FlatModel(floats, flat.integers)
    unflatten(flat, model)
    return task, model


def _open(model: ModelConfig, folders: tuple[Path, ...], cache: Path | None, on_packed: OnPacked = unheard) -> SiteData:
    if len(folders) == 1:
        return open_for(model, folders[0], cache=cache, on_packed=on_packed)
    assert cache is None, "a pack is of one folder"
    return open_pooled(model, folders, on_packed=on_packed)


def site_of(place: SitePaths) -> str:
    """Return a site's name before its data are open: that of its folder."""
    return place.folders[0].name if len(place.folders) == 1 else POOLED


def report_progress(place: SitePaths, on_packed: OnPacked) -> OnPacked:
    """Extend `on_packed` by a line on stderr every PACKING_LINE_S seconds, because the first message may take an hour."""
    last = time.monotonic()

    def on_image(done: int, images: int) -> None:
        nonlocal last
        on_packed(done, images)
        if time.monotonic() - last >= PACKING_LINE_S:
            last = time.monotonic()
            print(f"{site_of(place)}  packs its images: {done:,} of {images:,}", file=sys.stderr, flush=True)

    return on_image


def leave_fold_out(data: SiteData, instructions: Instructions) -> SiteData:
    """Return the site without the fold that the instructions leave out: no slice of it is in any part."""
    if instructions.stacking is None or instructions.stacking.left_out is None:
        return data
    task = find_task(instructions.task)
    return without_fold(data, task, instructions.stacking.folds, instructions.stacking.left_out, instructions.seed)


def open_data(place: SitePaths, model: ModelConfig) -> SiteData:
    """Open a site's data, which are kept between messages until its files change."""
    files = [folder / name for folder in place.folders for name in ("site.json", "index.csv")]
    changed = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)
    return _open_cached(json.dumps(asdict(model)), place.folders, place.cache, changed)


@lru_cache(maxsize=64)
def _open_cached(model: str, folders: tuple[Path, ...], cache: Path | None, changed: tuple[int, ...]) -> SiteData:
    """Open a site's data; `model` is the JSON of its settings, which can be a key of the cache."""
    return _open(parse_record(RunModel, json.loads(model)), folders, cache)
