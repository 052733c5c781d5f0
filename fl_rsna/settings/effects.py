"""Where each setting acts. One that acts nowhere in a run is refused where somebody typed it, and named where a file chose it.

Every setting of config.py stands in NEEDS, some in several rows: it acts where all of them hold. A value in OFF asks for
nothing, so nothing is said of it; neither is anything said of a default that nobody typed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any

from fl_rsna.common.id_scheme import can_be_guessed
from fl_rsna.settings.choices import (
    Averaging,
    Baseline,
    Correction,
    Device,
    EngineName,
    ImageKind,
    LabelWeights,
    Loss,
    Norm,
    Optimizer,
    PartitionKind,
    Sampling,
    Schedule,
    Stacker,
    Stage,
    StrategyName,
    Trainable,
)
from fl_rsna.settings.config import Config, DeployConfig, is_demo
from fl_rsna.settings.validation import most_rounds
from fl_rsna.task import LabelKind, Rendering, find_task


class Command(StrEnum):
    """Who reads the settings; a doctor reads them as simulate does."""

    prepare = "prepare"
    deal = "partition"
    simulate = "simulate"
    coordinate = "coordinate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of which command; `image` is the kind of the images as they lie there, or as they will."""

    config: Config
    command: Command = Command.simulate
    image: ImageKind


Need = Callable[[Asked], bool]

OF_EACH = (StrategyName.fedmedian, StrategyName.fedtrimmedavg, StrategyName.krum, StrategyName.multikrum, StrategyName.bulyan)  # fmt: skip
UNWEIGHTED = (*OF_EACH, StrategyName.qfedavg)
BOOSTED = "the trees of stage=stacking stacking.stacker=xgboost"
SLICES, ANYTHING = "a slice model to train: stage=slice, both or stacking", "nothing"


def _always(asked: Asked) -> bool:
    return True


def _prepares(asked: Asked) -> bool:
    """Files are made into images: the user's, or synthetic ones."""
    config = asked.config
    return asked.command in (Command.prepare, Command.simulate) and (config.data.dicom is not None or is_demo(config))


def _finds_ids(asked: Asked) -> bool:
    """Original ids are looked up among hashed ones."""
    part = asked.config.partition
    return part.kind is PartitionKind.explicit or isinstance(part.test, list | str)


def _trains_slices(asked: Asked) -> bool:
    return asked.config.stage is not Stage.sequence


def _trains_head(asked: Asked) -> bool:
    return asked.config.stage in (Stage.sequence, Stage.both)


def _trains_along_series(asked: Asked) -> bool:
    return _trains_head(asked) or (_stacks(asked) and asked.config.stacking.stacker is Stacker.cnn)


def _stacks(asked: Asked) -> bool:
    return asked.config.stage is Stage.stacking


def _boosts(asked: Asked) -> bool:
    return _stacks(asked) and asked.config.stacking.stacker is Stacker.xgboost


def _several(asked: Asked) -> bool:
    return asked.config.baseline in (Baseline.none, Baseline.gap)


def _by(*names: StrategyName) -> tuple[str, Need]:
    return f"strategy={' or '.join(names)}", lambda asked: asked.config.strategy.name in names


NEEDS: tuple[tuple[str, Need, tuple[str, ...]], ...] = (  # (what is needed, whether it is there, the settings it holds for)
    (ANYTHING, _always, ("data.name", "data.task", "seed", "stage", "baseline", "start", "predict", "resume", "run.name", "run.keep")),
    (ANYTHING, _always, ("allow_unknown_patients",)),
    (ANYTHING, _always, ("paths.prepared", "paths.sites", "paths.runs", "privacy.min_count", "match.prevalence")),
    (ANYTHING, _always, ("prepare.workers", "partition.kind", "partition.name", "partition.test", "partition.folds", "partition.fold")),
    (ANYTHING, _always, ("partition.assignment", "partition.validation", "partition.group", "partition.seed", "partition.layout")),
    (ANYTHING, _always, ("partition.allow_missing_labels", "partition.noise", "model.kept_negatives", "model.class_weights")),
    (ANYTHING, _always, ("train.optimizer", "train.schedule", "train.weight_decay", "train.smooth_z", "train.label_smoothing")),
    (ANYTHING, _always, ("train.soft_between", "train.loss", "train.label_weights", "train.device", "train.select")),
    (ANYTHING, _always, ("sequence.encoder", "stacking.left_out", "strategy.name", "strategy.quorum")),
    (ANYTHING, _always, ("strategy.max_update", "strategy.averaging", "faults.dropout", "faults.stragglers", "faults.deadline_s")),
    (ANYTHING, _always, ("network.down_mbit", "network.up_mbit", "network.latency_s", "network.step_s")),
    (ANYTHING, _always, ("network.precision_down", "network.precision_up")),
    (ANYTHING, _always, ("network.usd_per_gigabyte", "network.usd_per_hour", "engine.name", "engine.workers", "engine.address")),
    (ANYTHING, _always, ("tracking.tensorboard", "tracking.mlflow", "tracking.mlflow_uri", "tracking.wandb", "tracking.wandb_online")),
    (ANYTHING, _always, tuple(f"deploy.{field.name}" for field in fields(DeployConfig))),
    # data
    ("python -m fl_rsna.prepare or simulate", lambda asked: asked.command is not Command.deal,
     ("data.dicom", "data.labels", "data.size", "data.image", "data.max_rejected", "data.unlabelled", "data.unannotated", "data.test_set")),
    ("data.dicom, whose files it is about", lambda asked: asked.config.data.dicom is not None,
     ("data.labels", "data.max_rejected", "data.unlabelled", "data.unannotated", "data.test_set", "prepare.engine")),
    ("images to prepare: data.dicom, or the synthetic cohort", _prepares, ("data.size", "data.image", "prepare.workers")),
    ("ids to hash or to find: data.dicom, partition=explicit, or patients in partition.test",
     lambda asked: _prepares(asked) or _finds_ids(asked), ("data.hash_ids", "data.salt")),
    ("data.hash_ids=true", lambda asked: asked.config.data.hash_ids, ("data.salt",)),
    ("no data of yours: the synthetic cohort is drawn only without data.name and data.dicom",
     lambda asked: is_demo(asked.config) and asked.config.data.dicom is None,
     ("demo.patients", "demo.slices_per_series", "demo.size", "demo.seed")),
    ("a task of slices: a synthetic film has none", lambda asked: find_task(asked.config.data.task).rendering is Rendering.hounsfield,
     ("demo.slices_per_series",)),
    # partition
    ("sites to choose: partition=explicit has as many as the file names",
     lambda asked: asked.config.partition.kind is not PartitionKind.explicit, ("partition.num_sites",)),
    ("partition=dirichlet", lambda asked: asked.config.partition.kind is PartitionKind.dirichlet, ("partition.alpha",)),
    ("partition=quantity", lambda asked: asked.config.partition.kind is PartitionKind.quantity, ("partition.sigma",)),
    ("partition=specialist", lambda asked: asked.config.partition.kind is PartitionKind.specialist, ("partition.lacking",)),
    # model
    (SLICES, _trains_slices,
     ("model.name", "model.pretrained", "model.image_size", "model.norm", "model.norm_momentum", "model.recalibrate", "model.dropout",
      "model.backbone", "model.weights", "model.neighbours", "model.window", "model.crop", "model.tta")),
    ("BatchNorm that is trained: model.norm=average, local or local_stats, and train.trainable=all",
     lambda asked: asked.config.model.norm in (Norm.average, Norm.local, Norm.local_stats) and _trains_all(asked), ("model.norm_momentum",)),
    ("model.norm=average and train.trainable=all",
     lambda asked: asked.config.model.norm is Norm.average and _trains_all(asked), ("model.recalibrate",)),
    ("no start, whose weights a run begins with instead", lambda asked: asked.config.start is None, ("model.weights",)),
    # train
    (SLICES, _trains_slices,
     ("train.trainable", "train.local_epochs", "train.local_steps", "train.batch_size", "train.learning_rate", "train.layer_decay",
      "train.mixup", "train.mixup_share", "train.sampling", "train.negatives", "train.correction", "train.amp")),
    ("train.local_steps=null, which replaces it", lambda asked: asked.config.train.local_steps is None, ("train.local_epochs",)),
    ("train.optimizer=sgd", lambda asked: asked.config.train.optimizer is Optimizer.sgd, ("train.momentum",)),
    ("train.trainable=all, whose layers are several", lambda asked: _trains_all(asked), ("train.layer_decay",)),
    ("images to augment: a slice model to train, or a head with sequence.copies=2 or more",
     lambda asked: _trains_slices(asked) or asked.config.sequence.copies > 1,
     ("train.flip", "train.rotate_deg", "train.zoom", "train.shift", "train.hu_shift", "train.hu_noise", "train.brightness",
      "train.contrast", "train.cutout")),
    ("images in Hounsfield units", lambda asked: asked.image is ImageKind.hu,
     ("train.hu_shift", "train.hu_noise")),
    ("images without Hounsfield units, windows or films",
     lambda asked: asked.image is not ImageKind.hu, ("train.brightness", "train.contrast")),
    ("train.mixup above 0", lambda asked: asked.config.train.mixup > 0, ("train.mixup_share",)),
    ("train.loss=focal", lambda asked: asked.config.train.loss is Loss.focal, ("train.focal_gamma",)),
    ("train.sampling=under", lambda asked: asked.config.train.sampling is Sampling.under, ("train.negatives",)),
    ("train.sampling=under or weighted, or classes with train.label_weights=prevalence", lambda asked: _is_corrected(asked),
     ("train.correction",)),
    ("train.device=auto or cuda", lambda asked: asked.config.train.device is not Device.cpu, ("train.amp",)),
    ("rounds of at least train.patience + 2", lambda asked: (asked.config.train.patience or 0) + 2 <= most_rounds(asked.config),
     ("train.patience",)),
    # sequence and stacking
    ("stage=slice, both or stacking, or sequence.rounds=null, which replaces it",
     lambda asked: _trains_slices(asked) or asked.config.sequence.rounds is None, ("rounds",)),
    ("stage=sequence or both", _trains_head, ("sequence.head", "sequence.copies")),
    ("stage=sequence or both, or stacking.stacker=cnn", _trains_along_series,
     ("sequence.width", "sequence.layers", "sequence.dropout", "sequence.rounds", "sequence.learning_rate", "sequence.local_epochs",
      "sequence.batch_size")),
    ("stage=stacking", _stacks, ("stacking.stacker", "stacking.rounds")),
    ("stage=stacking or stacking.left_out", lambda asked: _stacks(asked) or asked.config.stacking.left_out is not None,
     ("stacking.folds",)),
    ("sequence.rounds=null, which replaces it", lambda asked: _boosts(asked) or asked.config.sequence.rounds is None, ("stacking.rounds",)),
    (BOOSTED, _boosts,
     ("stacking.method", "stacking.learning_rate", "stacking.depth", "stacking.min_child_weight", "stacking.l2", "stacking.rows",
      "stacking.columns")),
    # strategy
    ("several sites at once: baseline=none or gap", _several,
     ("strategy.fraction", "strategy.min_sites", "strategy.weighting", "strategy.adjustment")),
    ("strategy.fraction below 1, or every site is sampled", lambda asked: asked.config.strategy.fraction < 1, ("strategy.min_sites",)),
    ("a strategy that takes a mean of its own weights", lambda asked: asked.config.strategy.name not in UNWEIGHTED, ("strategy.weighting",)),
    ("sites on machines of their own: python -m fl_rsna.coordinate", lambda asked: asked.command is Command.coordinate,
     ("strategy.lost", "strategy.timeout_s")),
    ("strategy.averaging=ema", lambda asked: asked.config.strategy.averaging is Averaging.ema, ("strategy.ema_decay",)),
    ("strategy.averaging=window", lambda asked: asked.config.strategy.averaging is Averaging.window, ("strategy.window",)),
    (f"a strategy that takes a step: none of {', '.join(OF_EACH)} and feddyn",
     lambda asked: asked.config.strategy.name not in (*OF_EACH, StrategyName.feddyn),
     ("strategy.server_learning_rate", "strategy.server_schedule")),
    (*_by(StrategyName.fedavgm), ("strategy.server_momentum",)),
    (*_by(StrategyName.fedadam, StrategyName.fedyogi), ("strategy.beta_1", "strategy.beta_2")),
    (*_by(StrategyName.fedadagrad, StrategyName.fedadam, StrategyName.fedyogi), ("strategy.tau",)),
    (*_by(StrategyName.fedtrimmedavg), ("strategy.trim",)),
    (*_by(StrategyName.krum, StrategyName.multikrum, StrategyName.bulyan), ("strategy.malicious",)),
    (*_by(StrategyName.multikrum), ("strategy.chosen",)),
    (*_by(StrategyName.qfedavg), ("strategy.q",)),
    (*_by(StrategyName.fedprox, StrategyName.moon), ("strategy.mu",)),
    (*_by(StrategyName.moon), ("strategy.temperature",)),
    (*_by(StrategyName.feddyn), ("strategy.alpha",)),
    (*_by(StrategyName.ditto), ("strategy.personal",)),
    (*_by(StrategyName.fedavg_logit_adjusted), ("strategy.adjustment",)),
    # where and how
    (
        "sites apart: baseline=none, local or gap",
        lambda asked: asked.config.baseline is not Baseline.central,
        ("faults.sites", "network.speeds", "network.downtime"),
    ),
    ("faults.stragglers above 0", lambda asked: asked.config.faults.stragglers > 0, ("faults.slowdown",)),
    ("engine=ray and train.device=auto or cuda",
     lambda asked: asked.config.engine.name is EngineName.ray and asked.config.train.device is not Device.cpu, ("engine.gpus_per_worker",)),
    ("tracking.mlflow=true or tracking.wandb=true", lambda asked: asked.config.tracking.mlflow or asked.config.tracking.wandb,
     ("tracking.project",)),
)  # fmt: skip

OFF: dict[str, tuple[Any, ...]] = {  # values that ask for nothing
    **dict.fromkeys(("train.hu_shift", "train.hu_noise", "train.rotate_deg", "train.zoom", "train.shift", "train.cutout"), (0,)),
    **dict.fromkeys(("train.momentum", "train.mixup", "train.focal_gamma", "train.brightness", "train.contrast"), (0,)),
    **dict.fromkeys(("strategy.server_momentum", "strategy.trim", "strategy.malicious", "strategy.q", "strategy.mu"), (0,)),
    **dict.fromkeys(("strategy.personal", "strategy.adjustment", "model.dropout", "sequence.dropout", "model.neighbours"), (0,)),
    **dict.fromkeys(("train.flip", "train.amp", "model.recalibrate", "model.pretrained", "data.hash_ids", "data.unlabelled"), (False,)),
    **dict.fromkeys(("strategy.min_sites", "strategy.fraction", "strategy.server_learning_rate", "faults.slowdown"), (1,)),
    **dict.fromkeys(("train.layer_decay", "data.max_rejected", "model.tta", "sequence.copies"), (1,)),
    "data.test_set": (False,),
    "train.correction": (Correction.none,),
    "strategy.server_schedule": (Schedule.constant,),
    "strategy.weighting": ("equal",),  # of strategies that weigh all sites alike
}  # fmt: skip
INSTEAD = {
    **dict.fromkeys(("train.hu_shift", "train.hu_noise"), "say train.brightness and train.contrast"),
    **dict.fromkeys(("train.brightness", "train.contrast"), "say train.hu_shift and train.hu_noise"),
}
BOUNDS = (
    "strategy.min_sites",
    "train.patience",
)  # what never binds in this run is only named: it may in another of a sweep

READ: dict[Command, tuple[str, ...]] = {  # beginnings of the settings that a step before a run reads
    Command.prepare: ("data.", "prepare.", "paths."),
    Command.deal: ("data.", "partition.", "paths."),
}
SIMULATED = (
    "data.",
    "prepare.",
    "demo.",
    "partition.",
    "engine.",
    "predict",
)  # of no account between machines, but for
DEPLOYED = ("data.name", "data.task", "partition.name")


def _trains_all(asked: Asked) -> bool:
    return asked.config.train.trainable is Trainable.all


def _is_corrected(asked: Asked) -> bool:
    train, kind = asked.config.train, find_task(asked.config.data.task).kind
    of_classes = kind is LabelKind.multi_class and train.label_weights is LabelWeights.prevalence
    return train.sampling is not Sampling.all or of_classes


def settings(config: Any, path: str = "") -> dict[str, Any]:
    """Every setting by its key, as in train.hu_shift."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value, key = getattr(config, field.name), f"{path}{field.name}"
        found |= settings(value, f"{key}.") if is_dataclass(value) else {key: value}
    return found


def find_need(key: str, asked: Asked) -> str | None:
    """What a setting would need to act; None where it acts."""
    if (other := _command_of(key, asked.command)) is not None:
        return f"python -m fl_rsna.{other}"
    return next((need for need, holds, keys in NEEDS if key in keys and not holds(asked)), None)


def _command_of(key: str, command: Command) -> Command | None:
    """The command that reads a setting which this one does not."""
    match command:
        case Command.prepare | Command.deal:
            return None if key.startswith(READ[command]) else Command.simulate
        case Command.simulate:
            return Command.coordinate if key.startswith("deploy.") else None
        case Command.coordinate:
            return Command.simulate if key.startswith(SIMULATED) and key not in DEPLOYED else None


def without_effect(asked: Asked, typed: Collection[str] = ()) -> dict[str, str]:
    """The settings that were chosen, by a file or typed, and act nowhere, with what each would need; paths are never among them."""
    plain, found = settings(Config()), dict[str, str]()
    for key, value in settings(asked.config).items():
        chosen = value != plain[key] or key in typed
        if not chosen or key.startswith("paths.") or value in OFF.get(key, ()):
            continue
        need = find_need(key, asked)
        if need is not None:
            found[key] = need
    return found


def describe_need(key: str, need: str) -> str:
    """A setting without effect, in words."""
    return f"{key}: has no effect in this run, which would need {need}"


def refuse_typed(asked: Asked, typed: Collection[str]) -> None:
    """Refuse a setting that somebody typed, with a value other than its default, and that acts nowhere; raises ValueError."""
    plain, now = settings(Config()), settings(asked.config)
    for key, need in without_effect(asked).items():
        if key in typed and key not in BOUNDS and now[key] != plain[key]:
            raise ValueError(
                f"{key}: expected {need}, without which it has no effect, got {now[key]}; {INSTEAD.get(key, 'leave it out')}"
            )


def parse_typed_keys(words: Sequence[str]) -> frozenset[str]:
    """The settings that key=value words name, also by a part of one that is a mapping; groups, whose files choose, are none."""
    known = settings(Config())
    named = {word.lstrip("+").partition("=")[0] for word in words if not word.startswith("~")}
    return frozenset(key for name in named for key in known if name == key or name.startswith(f"{key}."))


def cautions(config: Config) -> list[str]:
    """What acts, but not as its paper says, or not as a secret."""
    return [*list_salt_warnings(config), *list_optimizer_warnings(config)]


def list_salt_warnings(config: Config) -> list[str]:
    """The warning of a salt that is typed and hides no id."""
    data = config.data
    if not data.hash_ids or not data.salt or not can_be_guessed(data.salt):
        return []
    return [
        "data.salt: expected 32 random hexadecimal digits, as python -m fl_rsna.salt makes them, got a salt that can be guessed from its "
        "fingerprint in prepare.json, and patients' ids with it; a deployment refuses it"
    ]


def list_optimizer_warnings(config: Config) -> list[str]:
    """The warning of a strategy whose paper assumes SGD, under another optimizer."""
    strategy, optimizer = config.strategy.name, config.train.optimizer
    if optimizer is Optimizer.sgd:
        return []
    reasons: Mapping[StrategyName, str] = {
        StrategyName.fednova: "divides each site's change by its steps, as if a step's length were its gradient's, which under "
        "an adaptive optimizer it is not",
        StrategyName.feddyn: "takes a site's change for the gradient it stands for, which under an adaptive optimizer it is not: "
        "at its default alpha it ends farther from the optimum than FedAvg",
    }
    if strategy not in reasons:
        return []
    return [
        f"strategy.name: {strategy} {reasons[strategy]}; its paper assumes SGD: say train.optimizer=sgd and a rate for it, or take another strategy"
    ]
