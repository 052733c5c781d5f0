"""Check a configuration: one table of ranges, and the contradictions that no range can state.

Some settings mean something for Hounsfield slices, or for radiographs, only; some go with one stage only.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from fl_rsna.settings.choices import (
    Baseline,
    Correction,
    EngineName,
    PartitionKind,
    Precision,
    Sampling,
    Stacker,
    Stage,
    StrategyName,
    Weighting,
    kinds_of,
)
from fl_rsna.settings.config import (
    Config,
    EngineConfig,
    LinkConfig,
    PartitionConfig,
    StrategyConfig,
    TrackingConfig,
    TrainConfig,
)
from fl_rsna.settings.faults import parse_fault
from fl_rsna.settings.model import check_model
from fl_rsna.settings.noise import check_annotated_task, check_noise, check_unannotated
from fl_rsna.task import LabelKind, Rendering, find_task

OF_SLICES = (  # settings, and what they are where there are neither series nor Hounsfield units
    ("model.neighbours", 0),
    ("train.smooth_z", 1),
    ("train.hu_shift", 0),
    ("train.hu_noise", 0),
)
Rule = Callable[[float], bool]
MOST_VIEWS = 8  # of learning/models/tta.py
MOST_INT = 2**63
RANGES: tuple[tuple[str, Rule, tuple[str, ...]], ...] = (  # (what is expected, the rule, the settings it holds for)
    ("0 or more", lambda value: value >= 0, ("seed", "partition.seed", "demo.seed", "prepare.workers", "privacy.min_count")),
    ("0 or more, or null", lambda value: value >= 0, ("engine.workers",)),
    ("0 to 1, or null", lambda value: 0 <= value <= 1, ("engine.gpus_per_worker",)),
    ("0 or more", lambda value: value >= 0, ("partition.fold", "train.weight_decay", "train.rotate_deg", "train.hu_shift")),
    ("0 or more", lambda value: value >= 0, ("train.mixup", "train.focal_gamma")),
    ("1 or more", lambda value: value >= 1, ("rounds", "partition.num_sites", "partition.lacking", "train.local_epochs")),
    ("1 or more", lambda value: value >= 1, ("demo.patients", "demo.slices_per_series", "strategy.min_sites", "strategy.window")),
    ("1 or more", lambda value: value >= 1, ("strategy.chosen", "faults.slowdown")),
    ("1 or more", lambda value: value >= 1, ("deploy.attempts",)),
    ("0 or more", lambda value: value >= 0, ("deploy.patience_s",)),
    ("1 or more", lambda value: value >= 1, ("stacking.rounds",)),
    ("2 to 10", lambda value: 2 <= value <= 10, ("stacking.folds",)),
    ("1 to 8", lambda value: 1 <= value <= 8, ("stacking.depth",)),
    ("0 or more", lambda value: value >= 0, ("stacking.min_child_weight", "stacking.l2")),
    ("more than 0, up to 1", lambda value: 0 < value <= 1, ("stacking.learning_rate", "stacking.rows", "stacking.columns")),
    ("0 or more, or null", lambda value: value >= 0, ("stacking.left_out",)),
    ("1 or more, or null", lambda value: value >= 1, ("train.local_steps", "train.patience")),
    ("0 or more", lambda value: value >= 0, ("strategy.malicious", "strategy.q", "strategy.mu", "strategy.personal", "strategy.adjustment")),
    ("0 or more", lambda value: value >= 0, ("network.latency_s", "network.step_s", "network.usd_per_gigabyte", "network.usd_per_hour")),
    ("more than 0", lambda value: value > 0, ("strategy.server_learning_rate", "strategy.alpha", "strategy.temperature", "strategy.tau")),
    ("more than 0", lambda value: value > 0, ("strategy.max_update", "network.down_mbit", "network.up_mbit")),
    ("more than 0, or null", lambda value: value > 0, ("faults.deadline_s",)),
    ("0 to less than 1", lambda value: 0 <= value < 1, ("train.momentum", "strategy.server_momentum", "strategy.beta_1", "strategy.beta_2")),
    ("0 to less than 1", lambda value: 0 <= value < 1, ("strategy.ema_decay", "train.cutout", "train.hu_noise")),
    ("0 to less than 1", lambda value: 0 <= value < 1, ("train.soft_between", "train.label_smoothing", "train.contrast")),
    ("more than 0, up to 1", lambda value: 0 < value <= 1, ("train.mixup_share",)),
    ("more than 0, up to 1e6", lambda value: 0 < value <= 1e6, ("train.negatives",)),
    ("an odd number, 1 or more", lambda value: value % 2 == 1, ("train.smooth_z",)),
    ("0 to less than 0.5", lambda value: 0 <= value < 0.5, ("strategy.trim",)),
    ("0 to 1", lambda value: 0 <= value <= 1, ("faults.dropout", "faults.stragglers")),
    ("2 or more, or auto", lambda value: value >= 2, ("train.batch_size",)),
    ("1 or more", lambda value: value >= 1, ("sequence.layers", "sequence.local_epochs", "sequence.batch_size", "sequence.copies")),
    ("1 or more, or null", lambda value: value >= 1, ("sequence.rounds",)),
    ("a multiple of 8 from 8 to 1024", lambda value: value % 8 == 0 and 8 <= value <= 1024, ("sequence.width",)),
    ("more than 0", lambda value: value > 0, ("sequence.learning_rate",)),
    ("16 or more", lambda value: value >= 16, ("data.size", "model.image_size", "demo.size")),
    ("more than 0, up to 1e6", lambda value: 0 < value <= 1e6, ("partition.alpha",)),
    ("more than 0", lambda value: value > 0, ("train.learning_rate", "strategy.timeout_s", "deploy.first_timeout_s")),
    ("more than 0, up to 1", lambda value: 0 < value <= 1, ("strategy.fraction",)),
    ("0 to 1", lambda value: 0 <= value <= 1, ("train.brightness",)),
    ("0 to 1", lambda value: 0 <= value <= 1, ("data.max_rejected", "strategy.quorum", "train.zoom", "train.shift")),
    ("0 to 10", lambda value: 0 <= value <= 10, ("partition.sigma",)),
    ("0 to less than 1", lambda value: 0 <= value < 1, ("model.dropout", "sequence.dropout")),
    ("0 to 8", lambda value: 0 <= value <= 8, ("model.neighbours",)),
    (f"1 to {MOST_VIEWS}", lambda value: 1 <= value <= MOST_VIEWS, ("model.tta",)),
    ("more than 0, at most 1", lambda value: 0 < value <= 1, ("train.layer_decay",)),
    ("more than 0, at most 1", lambda value: 0 < value <= 1, ("model.norm_momentum", "model.kept_negatives")),
    ("between 0 and 1", lambda value: 0 < value < 1, ("partition.test", "partition.validation")),
)  # fmt: skip
FOLDER_NAMES = ("data.name", "partition.name", "run.name", "predict")


def check_stage(config: Config) -> None:
    """Refuse a second stage on nothing, an encoder that nobody asks, and what has no second stage."""
    encoder, stage = config.sequence.encoder, config.stage
    if stage is Stage.sequence and not encoder:
        raise ValueError(
            "sequence.encoder: expected a run or model file for stage=sequence, got nothing; "
            "say sequence.encoder=runs/<name>, or stage=both"
        )
    if stage is not Stage.sequence and encoder:
        raise ValueError(
            f"sequence.encoder: expected nothing with stage={stage}, got {encoder}; say stage=sequence or leave it out"
        )
    if stage is Stage.sequence and config.start is not None:
        raise ValueError(
            f"start: expected nothing with stage=sequence, whose head begins as its slice model, got {config.start}; leave it out"
        )
    if config.start is not None and (stage is Stage.stacking or config.stacking.left_out is not None):
        asked = "stage=stacking" if stage is Stage.stacking else "stacking.left_out"
        raise ValueError(
            f"start: expected nothing with {asked}, whose model may have seen no patient of the fold it leaves out, "
            f"got {config.start}; leave it out"
        )
    if stage is not Stage.slice and config.baseline not in (Baseline.none, Baseline.central):
        raise ValueError(
            f"baseline: expected none or central with stage={stage}, got {config.baseline}; every site alone has no second stage"
        )
    if stage in (Stage.sequence, Stage.both) and find_task(config.data.task).kind is not LabelKind.multi_label:
        raise ValueError(f"stage: expected slice for classes, got {stage}: blends are chosen label by label")


def check_rendering(config: Config) -> None:
    """Raises ValueError with the key's path."""
    task = find_task(config.data.task)
    kinds = kinds_of(task.rendering)
    if config.data.image not in kinds:
        raise ValueError(
            f"data.image: expected {' or '.join(kinds)} for task {task.name}, got {config.data.image}; say task={task.name}, "
            "which chooses it"
        )
    match task.rendering:
        case Rendering.hounsfield:
            return
        case Rendering.radiograph:
            for key, off in OF_SLICES:
                group, name = key.split(".")
                if (asked := getattr(getattr(config, group), name)) != off:
                    raise ValueError(
                        f"{key}: expected {off} for task {task.name}, whose images are no slices, got {asked}"
                        + ("; say train.brightness and train.contrast" if key.startswith("train.hu_") else "")
                    )


def check(config: Config) -> None:
    """Refuse values no command can work with; raises ValueError with the key's path.

    Ranges come first, contradictions after them. What has no effect in a run is the command's to refuse: fl_rsna/settings/effects.py.
    """
    check_numbers(config)
    for expected, rule, keys in RANGES:
        for key in keys:
            value = _value(config, key)
            if expected.endswith(f", or {'null' if value is None else value}"):
                continue
            if key == "partition.test" and isinstance(value, str | list):
                _check_test(value)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{key}: expected {expected}, got {value}")
            elif key == "train.batch_size" and not isinstance(value, int):
                raise ValueError(f"{key}: expected a whole number, got {value:g}")
            elif not rule(value):
                raise ValueError(f"{key}: expected {expected}, got {value:g}")
    for key in FOLDER_NAMES:
        name = _value(config, key)
        if name is not None and (not name or name != Path(name).name or name in (".", "..")):
            raise ValueError(f"{key}: expected a plain folder name, got {name!r}; put folders into paths.*")
    for key in (*FOLDER_NAMES, "paths.prepared", "paths.sites", "paths.runs"):
        check_utf8(key, str(_value(config, key)))
    _check_match(config)
    _check_partition(config.partition)
    check_noise(config.partition.noise, labels=find_task(config.data.task).labels)
    _check_links(config.network)
    _check_faults(config)
    _check_engine(config.engine)
    _check_tracking(config.tracking)
    _check_stacking(config)
    _check_strategy(config.strategy)
    _check_contradictions(config)
    _check_labels_learned(config)
    check_rendering(config)
    check_stage(config)


def check_utf8(key: str, path: str) -> None:
    """Refuse a folder to write into whose name is not UTF-8, which tables and pages cannot say and Parquet cannot open."""
    if path != path.encode(errors="replace").decode():
        raise ValueError(f"{key}: expected a path in UTF-8, got {path!r}; rename that folder or choose another")


def check_numbers(value: Any, path: str = "") -> None:
    """Refuse every number, however deep it lies, that is not finite or that no 64 bits hold; raises ValueError with its path."""
    if is_dataclass(value):
        for field in fields(value):
            check_numbers(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            check_numbers(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: expected a finite number, got {value:g}")
    elif isinstance(value, int) and abs(value) >= MOST_INT:
        raise ValueError(f"{path}: expected a number below 2^63, got one of {len(f'{abs(value):x}') * 4} bits")


def _check_match(config: Config) -> None:
    """Refuse a prevalence of no label, or that no set of slices can have."""
    stated, task = config.match.prevalence, find_task(config.data.task)
    for label, share in stated.items():
        if label not in task.labels:
            raise ValueError(f"match.prevalence: expected {', '.join(task.labels)}, got {label}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"match.prevalence.{label}: expected a share between 0 and 1, got {share}")
    if stated and task.kind is LabelKind.multi_class:
        raise ValueError(f"match.prevalence: expected nothing in a task of classes, got {stated}; leave it out")
    if stated and config.train.sampling is Sampling.under:
        raise ValueError(
            "match.prevalence: expected every slice to be drawn, got train.sampling=under, whose correction undoes what is "
            "drawn and not what is stated; say train.sampling=all or weighted"
        )
    most = max(stated, key=lambda label: stated[label], default=None)
    if most is not None and task.union in stated and stated[most] > stated[task.union]:
        raise ValueError(
            f"match.prevalence.{task.union}: expected at least that of {most}, {stated[most]:g}, got {stated[task.union]:g}"
        )


def _check_links(network: LinkConfig) -> None:
    """Refuse sites of no speed or out of reach for good, and one-byte models, for which there is nothing to round against."""
    for site, speed in network.speeds.items():
        if not speed > 0:
            raise ValueError(f"network.speeds: expected more than 0, got {speed:g} for {site}")
    for site, share in network.downtime.items():
        if not 0 <= share < 1:
            raise ValueError(f"network.downtime: expected 0 to less than 1, got {share:g} for {site}")
    if network.precision_down is Precision.int8:
        raise ValueError(
            "network.precision_down: expected fp32, fp16 or bf16, got int8, which only changes can travel in; use precision_up"
        )


def _check_faults(config: Config) -> None:
    """Refuse faults that cannot be read, and those of rounds that no stage of the run has."""
    rounds = most_rounds(config)
    for site, word in config.faults.sites.items():
        if parse_fault(word).first > rounds:
            raise ValueError(
                f"faults.sites: expected a round from 1 to {rounds}, the last of this run, got {word} for {site}; "
                "say an earlier one or more rounds"
            )


def most_rounds(config: Config) -> int:
    """Rounds of the longest stage of a run."""
    of_head = config.sequence.rounds or config.rounds
    match config.stage:
        case Stage.slice:
            return config.rounds
        case Stage.sequence:
            return of_head
        case Stage.both:
            return max(config.rounds, of_head)
        case Stage.stacking:
            by_network = config.stacking.stacker is Stacker.cnn and config.sequence.rounds
            return max(config.rounds, by_network or config.stacking.rounds)


def _check_test(value: str | list[Any]) -> None:
    """Refuse a list whose ids are not as they were typed: 1e5 and true are no ids unless quoted."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value)
        and not Path(value).is_file()
    ):
        raise ValueError(f"partition.test: expected a share without quotes, got {value!r}; say partition.test={value}")
    if not value:
        raise ValueError("partition.test: expected a share, a site, a list of patients or a file of them, got nothing")
    for item in value if isinstance(value, list) else ():
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(
                f"partition.test: expected ids, got {item}, which is none; quote it: partition.test=[\"'...'\"]"
            )


def _check_partition(part: PartitionConfig) -> None:
    if part.assignment is not None and part.kind is not PartitionKind.explicit:
        raise ValueError(
            f"partition.assignment: expected nothing with {part.kind} sites, got {part.assignment}; say partition=explicit"
        )
    if part.folds is None:
        if part.fold != 0:
            raise ValueError(f"partition.fold: expected partition.folds beside it, got fold {part.fold} of nothing")
        return
    if part.folds < 2:
        raise ValueError(f"partition.folds: expected 2 or more, got {part.folds}")
    if part.fold >= part.folds:
        raise ValueError(f"partition.fold: expected 0 to {part.folds - 1} of {part.folds} folds, got {part.fold}")
    if part.test != PartitionConfig().test:
        raise ValueError(
            f"partition.test: expected nothing beside partition.folds, whose fold is the test site, got {part.test}; leave one out"
        )


def _check_engine(engine: EngineConfig) -> None:
    """Refuse an address nobody can answer at, and a number of workers where the cluster decides it."""
    if engine.address is None:
        return
    if engine.name is not EngineName.ray:
        raise ValueError(
            f"engine.address: expected nothing with engine={engine.name}, got {engine.address}; say engine=ray"
        )
    if engine.address != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d+", engine.address):
        raise ValueError(
            f"engine.address: expected host:port of a Ray cluster's head or auto, got {engine.address!r}; ray status shows it"
        )
    if engine.workers is not None:
        raise ValueError(
            f"engine.workers: expected nothing beside engine.address, whose cluster has one worker a CPU, or as many as "
            f"engine.gpus_per_worker allows, got {engine.workers}; leave it out"
        )


def _check_tracking(tracking: TrackingConfig) -> None:
    """Refuse an address nobody uses and a name that services cannot take."""
    if tracking.mlflow_uri is not None and not tracking.mlflow:
        raise ValueError(
            f"tracking.mlflow_uri: expected nothing without MLflow, got {tracking.mlflow_uri}; say tracking=mlflow"
        )
    if tracking.wandb_online and not tracking.wandb:
        raise ValueError("tracking.wandb_online: expected false without Weights & Biases, got true; say tracking=wandb")
    if not re.fullmatch(r"[\w.-]{1,128}", tracking.project, re.ASCII):
        raise ValueError(
            f"tracking.project: expected letters, digits, dots, dashes and underscores, got {tracking.project!r}"
        )


def _check_strategy(strategy: StrategyConfig) -> None:
    """Refuse what a strategy's paper has no place for, and what would change another thing than it says."""
    plain = StrategyConfig()
    if strategy.name is StrategyName.scaffold and strategy.weighting is not Weighting.equal:
        raise ValueError(
            f"strategy.weighting: expected equal with strategy.name=scaffold, whose control variates end where sites count alike, got "
            f"{strategy.weighting}; say strategy=scaffold or strategy.weighting=equal"
        )
    if strategy.name is StrategyName.feddyn:
        for key in ("server_learning_rate", "server_schedule"):
            value, expected = getattr(strategy, key), getattr(plain, key)
            if value != expected:
                raise ValueError(
                    f"strategy.{key}: expected {expected} with strategy.name=feddyn, whose server takes no step of its own, got {value}; leave it out"
                )


def _check_stacking(config: Config) -> None:
    stacking, left_out = config.stacking, config.stacking.left_out
    if left_out is not None and left_out >= stacking.folds:
        raise ValueError(
            f"stacking.left_out: expected 0 to {stacking.folds - 1} of {stacking.folds} folds, got {left_out}"
        )
    if left_out is not None and config.stage is not Stage.slice:
        why = (
            ", which leaves out every fold once"
            if config.stage is Stage.stacking
            else ": only a slice model leaves one out"
        )
        raise ValueError(f"stacking.left_out: expected null with stage={config.stage}{why}, got {left_out}")
    if config.stage is Stage.stacking and stacking.stacker is Stacker.xgboost and config.match.prevalence:
        raise ValueError(
            f"match.prevalence: expected nothing with stacking.stacker={stacking.stacker}, whose trees are grown for the sites' own "
            f"prevalence, got {config.match.prevalence}; say stacking.stacker=cnn"
        )


def _check_contradictions(config: Config) -> None:
    data = config.data
    if config.predict is not None and config.baseline in (Baseline.local, Baseline.gap):
        raise ValueError(
            f"predict: expected one final model, got baseline={config.baseline}, which has several; leave it out and use "
            "python -m fl_rsna.evaluate"
        )
    if data.unlabelled and data.labels is not None:
        raise ValueError(
            f"data.labels: expected nothing with data.unlabelled=true, got {data.labels}; leave one of them out"
        )
    check_model(config)


def _check_labels_learned(config: Config) -> None:
    """Refuse what a task's labels have no meaning for, and shares of positives that nobody could know."""
    task, train, plain = find_task(config.data.task), config.train, TrainConfig()
    check_unannotated(config.data.unannotated, "data.unannotated", task.labels)
    for key, lacks in (
        ("data.unannotated", bool(config.data.unannotated)),
        ("partition.noise", any("unannotated" in said for said in config.partition.noise.values())),
    ):
        if lacks:
            check_annotated_task(task, key)
    if config.model.class_weights:
        raise ValueError(
            f"model.class_weights: expected nothing, for the run sets them, got {config.model.class_weights}; "
            "say train.label_weights=prevalence"
        )
    if config.model.kept_negatives != 1:
        raise ValueError(
            f"model.kept_negatives: expected nothing, for the run sets it, got {config.model.kept_negatives:g}; "
            "say train.sampling=under train.negatives=..."
        )
    if train.sampling is Sampling.under and task.union is None:
        raise ValueError(f"train.sampling: expected all or weighted for task {task.name}, which has no union label")
    if task.kind is LabelKind.multi_class and train.soft_between != plain.soft_between:
        raise ValueError(
            f"train.soft_between: expected {plain.soft_between} for classes, which exclude each other, got {train.soft_between}"
        )
    if (
        config.strategy.name is StrategyName.fedavg_logit_adjusted
        and train.sampling is Sampling.weighted
        and train.correction is Correction.none
    ):
        raise ValueError(
            "train.correction: expected prior with weighted sampling and strategy=fedavg_logit_adjusted, which needs the "
            "sites' true shares of positives, got none"
        )


def _value(config: Config, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)
