"""What values settings may have: one table of ranges, and the contradictions no range can state."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_rsna.config import Config, ModelName, Norm, Trainable

Rule = Callable[[float], bool]

RANGES: tuple[tuple[str, Rule, tuple[str, ...]], ...] = (  # (what is expected, the rule, the settings it holds for)
    ("0 or more", lambda value: value >= 0, ("seed", "partition.seed", "demo.seed", "engine.workers", "engine.gpus_per_worker", "prepare.workers")),
    ("0 or more", lambda value: value >= 0, ("train.weight_decay", "train.rotate_deg", "train.hu_shift")),
    ("1 or more", lambda value: value >= 1, ("rounds", "partition.num_sites", "train.local_epochs")),
    ("1 or more", lambda value: value >= 1, ("demo.patients", "demo.slices_per_series")),
    ("2 or more", lambda value: value >= 2, ("train.batch_size",)),
    ("16 or more", lambda value: value >= 16, ("data.size", "model.image_size", "demo.size")),
    ("more than 0", lambda value: value > 0, ("partition.alpha", "train.learning_rate", "strategy.timeout_s")),
    ("more than 0, up to 1", lambda value: 0 < value <= 1, ("strategy.fraction",)),
    ("0 to 1", lambda value: 0 <= value <= 1, ("data.max_rejected", "strategy.quorum", "train.zoom", "train.shift")),
    ("0 to less than 1", lambda value: 0 <= value < 1, ("model.dropout",)),
    ("between 0 and 1", lambda value: 0 < value < 1, ("partition.test", "partition.validation")),
)  # fmt: skip
FOLDER_NAMES = ("data.name", "partition.name", "run.name")


def check(config: Config) -> None:
    """Refuse values no command can work with; raises ValueError with the key's path."""
    for expected, rule, keys in RANGES:
        for key in keys:
            value = _value(config, key)
            if not rule(value):
                raise ValueError(f"{key}: expected {expected}, got {value:g}")
    for key in FOLDER_NAMES:
        name = _value(config, key)
        if name is not None and (not name or name != Path(name).name or name in (".", "..")):
            raise ValueError(f"{key}: expected a plain folder name, got {name!r}; put folders into paths.*")
    _check_contradictions(config)


def _check_contradictions(config: Config) -> None:
    model = config.model
    if model.pretrained and model.name is not ModelName.efficientnet_lite0:
        raise ValueError(
            f"model.pretrained: expected false for {model.name}, whose ImageNet weights would need a download; "
            "set model.pretrained=false or model=efficientnet_lite0"
        )
    if model.norm is Norm.frozen and not model.pretrained:
        raise ValueError(
            "model.norm: expected average without ImageNet weights, got frozen, which keeps untrained statistics"
        )
    if config.train.trainable is Trainable.head and not model.pretrained:
        raise ValueError(
            "train.trainable: expected all without ImageNet weights, got head, which would use random features"
        )


def _value(config: Config, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)
