"""Check a configuration: every setting against its range, every group by its own module, and the groups against each other.

Some settings are only for Hounsfield slices or only for radiographs; some are only for one stage.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from fl_rsna.settings.config import Config
from fl_rsna.settings.data import check_data, kinds_of
from fl_rsna.settings.federation import check_faults, check_links
from fl_rsna.settings.fields import Range, list_settings
from fl_rsna.settings.model import check_model
from fl_rsna.settings.partition import (
    UNANNOTATED,
    check_annotated_task,
    check_noise,
    check_partition,
    check_test,
    check_unannotated,
)
from fl_rsna.settings.runtime import check_engine, check_tracking
from fl_rsna.settings.stages import Baseline, Stacker, Stage, check_stacking, most_rounds
from fl_rsna.settings.training import check_match, check_training
from fl_rsna.task import LabelKind, Rendering, find_task

OF_SLICES = (  # settings of CT slices, and the value each must have for radiographs
    ("model.neighbours", 0),
    ("train.smooth_z", 1),
    ("train.hu_shift", 0),
    ("train.hu_noise", 0),
)
MOST_INT = 2**63
FOLDER_NAMES = ("data.name", "partition.name", "run.name", "predict")


def check(config: Config) -> None:
    """Raise ValueError, which begins with the key, for the first setting that no command can work with.

    Ranges are checked first, contradictions after them. Settings without effect are not looked for here: fl_rsna/settings/effects.py does it.
    """
    check_numbers(config)
    for key, value, declared in list_settings(config):
        if declared.within is not None:
            _check_range(key, value, declared.within)
    for key in FOLDER_NAMES:
        name = _value(config, key)
        if name is not None and (not name or name != Path(name).name or name in (".", "..")):
            raise ValueError(f"{key}: expected a plain folder name, got {name!r}; put folders into paths.*")
    for key in (*FOLDER_NAMES, "paths.prepared", "paths.sites", "paths.runs"):
        path = str(_value(config, key))
        if (
            path != path.encode(errors="replace").decode()
        ):  # tables and pages cannot hold it, and Parquet cannot open it
            raise ValueError(f"{key}: expected a path in UTF-8, got {path!r}; rename that folder or choose another")
    task = find_task(config.data.task)
    check_match(config.match, task, config.train.sampling)
    check_partition(config.partition)
    check_noise(config.partition.noise, labels=task.labels)
    check_links(config.network)
    check_faults(config.faults, most_rounds(config))
    check_engine(config.engine)
    check_tracking(config.tracking)
    check_stacking(config.stacking, config.stage)
    config.strategy.check(config.train)
    check_data(config.data)
    check_model(config.model, config.data, config.train.trainable)
    check_training(config.train, task)
    check_unannotated(config.data.unannotated, "data.unannotated", task.labels)
    _check_contradictions(config)
    check_rendering(config)
    check_stage(config)


def _check_range(key: str, value: Any, within: Range) -> None:
    if any(value is other or value == other for other in within.besides):
        return
    if key == "partition.test" and isinstance(value, str | list):
        check_test(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: expected {within}, got {value}")
    elif key == "train.batch_size" and not isinstance(value, int):
        raise ValueError(f"{key}: expected a whole number, got {value:g}")
    elif not within.holds(value):
        raise ValueError(f"{key}: expected {within}, got {value:g}")


def check_numbers(value: Any, path: str = "") -> None:
    """Raise ValueError for a number, in whatever list, mapping or group, that is not finite or does not fit into 64 bits."""
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


def check_stage(config: Config) -> None:
    """Raise ValueError for settings that the chosen stage does not support, and for stage=sequence without an encoder."""
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
    """Raise ValueError for an image kind or a setting that does not fit the task's images."""
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


def _check_contradictions(config: Config) -> None:
    """Raise ValueError for settings of different groups that contradict each other."""
    task = find_task(config.data.task)
    if config.predict is not None and config.baseline in (Baseline.local, Baseline.gap):
        raise ValueError(
            f"predict: expected one final model, got baseline={config.baseline}, which has several; leave it out and use "
            "python -m fl_rsna.evaluate"
        )
    if config.stage is Stage.stacking and config.stacking.stacker is Stacker.xgboost and config.match.prevalence:
        raise ValueError(
            f"match.prevalence: expected nothing with stacking.stacker={config.stacking.stacker}, whose trees are grown for the "
            f"sites' own prevalence, got {config.match.prevalence}; say stacking.stacker=cnn"
        )
    for key, lacks in (
        ("data.unannotated", bool(config.data.unannotated)),
        ("partition.noise", any(UNANNOTATED in said for said in config.partition.noise.values())),
    ):
        if lacks:
            check_annotated_task(task, key)


def _value(config: Config, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)
