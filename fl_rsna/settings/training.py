"""Settings of a site's training: the optimizer, augmentation, the loss, and the sampling of rare findings."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.fields import (
    NOT_NEGATIVE,
    SHARE,
    Asked,
    Need,
    Range,
    above,
    above_up_to,
    at_least,
    below,
    declare,
)
from fl_rsna.settings.model import Trainable, trains_all
from fl_rsna.settings.stages import SLICES, most_rounds, trains_slices
from fl_rsna.task import LabelKind, Task, find_task


class Optimizer(StrEnum):
    """The optimizer of a site's training. Every round starts with a new one."""

    adamw = "adamw"
    sgd = "sgd"


class Device(StrEnum):
    """The device that sites train on; auto takes CUDA where there is a GPU, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Loss(StrEnum):
    """The loss of each label."""

    bce = "bce"  # binary cross-entropy
    focal = "focal"  # focal loss: easy slices count less; its probabilities are not calibrated


class Sampling(StrEnum):
    """The training slices of one pass over a site's data."""

    all = "all"  # every slice once
    under = "under"  # every slice with the union label, and a share of the others, drawn again for each pass
    weighted = "weighted"  # as many as there are, drawn with replacement for each pass, rare labels more often


class Correction(StrEnum):
    """The correction of probabilities for the sampling of slices, which distorts them."""

    prior = "prior"  # corrected to the share of positives among all slices
    none = "none"  # not corrected, to measure the distortion


class LabelWeights(StrEnum):
    """The weight of each label in the training loss."""

    task = "task"  # as in the task's metric: in RSNA's, `any` counts twice
    prevalence = "prevalence"  # that, divided by the root of the label's share at all sites; logits of classes are corrected for it


class Schedule(StrEnum):
    """The change of a learning rate from round to round."""

    constant = "constant"
    cosine = "cosine"  # falls along a cosine to nearly 0 in the last round


class Select(StrEnum):
    """The round whose global model is the final one."""

    best = "best"  # the round with the lowest validation loss over the sites' validation parts
    last = "last"


def _is_corrected(asked: Asked) -> bool:
    train, kind = asked.config.train, find_task(asked.config.data.task).kind
    of_classes = kind is LabelKind.multi_class and train.label_weights is LabelWeights.prevalence
    return train.sampling is not Sampling.all or of_classes


EPOCHS = Need("train.local_steps=null, which replaces it", lambda asked: asked.config.train.local_steps is None)
SGD = Need("train.optimizer=sgd", lambda asked: asked.config.train.optimizer is Optimizer.sgd)
LAYERS = Need("train.trainable=all, whose layers are several", trains_all)
AUGMENTED = Need(
    "images to augment: a slice model to train, or a head with sequence.copies=2 or more",
    lambda asked: trains_slices(asked) or asked.config.sequence.copies > 1,
)
IN_HU = Need("images in Hounsfield units", lambda asked: asked.image is ImageKind.hu)
NOT_IN_HU = Need("images without Hounsfield units, windows or films", lambda asked: asked.image is not ImageKind.hu)
MIXED = Need("train.mixup above 0", lambda asked: asked.config.train.mixup > 0)
FOCAL = Need("train.loss=focal", lambda asked: asked.config.train.loss is Loss.focal)
UNDER = Need("train.sampling=under", lambda asked: asked.config.train.sampling is Sampling.under)
CORRECTED = Need("train.sampling=under or weighted, or classes with train.label_weights=prevalence", _is_corrected)
CUDA = Need("train.device=auto or cuda", lambda asked: asked.config.train.device is not Device.cpu)
LONGER = Need(
    "rounds of at least train.patience + 2",
    lambda asked: (asked.config.train.patience or 0) + 2 <= most_rounds(asked.config),
)
SAY_GREY, SAY_HU = "say train.brightness and train.contrast", "say train.hu_shift and train.hu_noise"
ODD = Range("an odd number, 1 or more", lambda value: value % 2 == 1)
BATCH = at_least(2).or_value("auto")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Settings of a site's training."""

    trainable: Trainable = declare(Trainable.all, "weights that a site trains", needs=(SLICES,))
    local_epochs: int = declare(
        1, "number of passes over a site's training slices in a round", within=at_least(1), needs=(SLICES, EPOCHS)
    )
    local_steps: int | None = declare(
        None,
        "number of training steps in a round, instead of local_epochs",
        within=at_least(1).or_null(),
        needs=(SLICES,),
    )
    batch_size: Any = declare(
        16, "number of images in a batch; auto: as many as fit into memory", within=BATCH, needs=(SLICES,)
    )
    optimizer: Optimizer = declare(Optimizer.adamw, "optimizer of a site's training; every round starts with a new one")
    momentum: float = declare(0.0, "momentum of SGD", within=below(1), needs=(SGD,), off=(0,))
    learning_rate: float = declare(2e-3, "learning rate of a site's optimizer", within=above(0), needs=(SLICES,))
    schedule: Schedule = declare(Schedule.cosine, "how the learning rate changes from round to round")
    layer_decay: float = declare(
        1.0,
        "factor of the learning rate from one stage of the network to the one before it; 1: the same rate everywhere",
        within=above_up_to(0, 1),
        needs=(SLICES, LAYERS),
        off=(1,),
    )
    weight_decay: float = declare(1e-4, "weight decay of the optimizer", within=NOT_NEGATIVE)
    clip_norm: float | None = declare(
        None,
        "largest norm of a step's gradient; longer ones are scaled down to it; null: no limit",
        within=above(0).or_null(),
    )
    flip: bool = declare(True, "mirror half of the images, left to right", needs=(AUGMENTED,), off=(False,))
    rotate_deg: float = declare(
        15.0,
        "largest rotation of an image, in degrees; uniform in +-",
        within=NOT_NEGATIVE,
        needs=(AUGMENTED,),
        off=(0,),
    )
    zoom: float = declare(
        0.1, "largest change of an image's scale, as a share; uniform in +-", within=SHARE, needs=(AUGMENTED,), off=(0,)
    )
    shift: float = declare(
        0.05,
        "largest shift of an image, as a share of its side; uniform in +-",
        within=SHARE,
        needs=(AUGMENTED,),
        off=(0,),
    )
    hu_shift: float = declare(
        10.0,
        "largest value added to an image, in HU; uniform in +-",
        within=NOT_NEGATIVE,
        needs=(AUGMENTED, IN_HU),
        off=(0,),
        instead=SAY_GREY,
    )
    hu_noise: float = declare(
        0.0,
        "largest e of the scaling HU * (1 + e), uniform in +-; water and air keep their values",
        within=below(1),
        needs=(AUGMENTED, IN_HU),
        off=(0,),
        instead=SAY_GREY,
    )
    brightness: float = declare(
        0.0,
        "for images without HU (windows and films): largest change of brightness, as a share of white; uniform in +-",
        within=SHARE,
        needs=(AUGMENTED, NOT_IN_HU),
        off=(0,),
        instead=SAY_HU,
    )
    contrast: float = declare(
        0.0,
        "for images without HU (windows and films): largest e of (grey - middle) * (1 + e), uniform in +-",
        within=below(1),
        needs=(AUGMENTED, NOT_IN_HU),
        off=(0,),
        instead=SAY_HU,
    )
    cutout: float = declare(
        0.0,
        "side of a square in each image that is filled with air, as a share of the image's side; 0 is off",
        within=below(1),
        needs=(AUGMENTED,),
        off=(0,),
    )
    mixup: float = declare(
        0.0,
        "alpha of the beta distribution from which the weights of mixup are drawn; 0 is off",
        within=NOT_NEGATIVE,
        needs=(SLICES,),
        off=(0,),
    )
    mixup_share: float = declare(
        0.4, "share of the batches that mixup is applied to", within=above_up_to(0, 1), needs=(SLICES, MIXED)
    )
    smooth_z: int = declare(
        1, "number of neighbouring slices of a series over which labels are averaged; 1 is off", within=ODD
    )
    label_smoothing: float = declare(
        0.0, "share of a label's value that is spread evenly over 0 and 1, or over all classes", within=below(1)
    )
    soft_between: float = declare(
        0.0,
        "training label of a negative slice between the first and the last positive slice of its series",
        within=below(1),
    )
    loss: Loss = declare(Loss.bce, "loss of each label")
    focal_gamma: float = declare(
        2.0, "exponent of the focal loss; 0 is cross-entropy", within=NOT_NEGATIVE, needs=(FOCAL,), off=(0,)
    )
    label_weights: LabelWeights = declare(LabelWeights.task, "weight of each label in the training loss")
    sampling: Sampling = declare(Sampling.all, "training slices of one pass over a site's data", needs=(SLICES,))
    negatives: float = declare(
        1.0,
        "sampling=under: number of negative slices drawn for each positive one, over all sites",
        within=above_up_to(0, 1e6, "1e6"),
        needs=(SLICES, UNDER),
    )
    correction: Correction = declare(
        Correction.prior,
        "correction of probabilities for the sampling of slices or the weights of classes",
        needs=(SLICES, CORRECTED),
        off=(Correction.none,),
    )
    device: Device = declare(Device.auto, "device that sites train on; auto: CUDA where there is a GPU")
    amp: bool = declare(
        True, "compute in bf16 where it is precise enough (autocast), on CUDA only", needs=(SLICES, CUDA), off=(False,)
    )
    select: Select = declare(Select.best, "round whose global model is the final one")
    patience: int | None = declare(
        None,
        "number of rounds without a lower validation loss after which training stops; null: never",
        within=at_least(1).or_null(),
        needs=(LONGER,),
        may_be_idle=True,
    )


@dataclass(kw_only=True, slots=True)
class MatchConfig:
    """Settings of the prevalence to train for: the share of positive slices by label, e.g. {any: 0.14, epidural: 0.004}.

    They are for a model that another site will use, where labels are rarer or more common than in the federation: positive and negative
    slices are weighted in the loss as often as they occur there. `evaluate ... shift=true` estimates the shares from unlabelled slices
    and prints the settings to type. The labels of a test set must never be used for it.
    """

    prevalence: dict[str, float] = declare(
        {}, "share of positive slices by label; labels not named keep the share of the training slices"
    )


def check_training(train: TrainConfig, task: Task) -> None:
    """Raise ValueError for train.sampling or train.soft_between where the task's labels do not allow it."""
    plain = TrainConfig()
    if train.sampling is Sampling.under and task.union is None:
        raise ValueError(f"train.sampling: expected all or weighted for task {task.name}, which has no union label")
    if task.kind is LabelKind.multi_class and train.soft_between != plain.soft_between:
        raise ValueError(
            f"train.soft_between: expected {plain.soft_between} for classes, which exclude each other, got {train.soft_between}"
        )


def check_match(match: MatchConfig, task: Task, sampling: Sampling) -> None:
    """Raise ValueError for a prevalence of an unknown label, outside 0 to 1, above that of the union label, or beside train.sampling=under."""
    stated = match.prevalence
    for label, share in stated.items():
        if label not in task.labels:
            raise ValueError(f"match.prevalence: expected {', '.join(task.labels)}, got {label}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"match.prevalence.{label}: expected a share between 0 and 1, got {share}")
    if stated and task.kind is LabelKind.multi_class:
        raise ValueError(f"match.prevalence: expected nothing in a task of classes, got {stated}; leave it out")
    if stated and sampling is Sampling.under:
        raise ValueError(
            "match.prevalence: expected every slice to be drawn, got train.sampling=under, whose correction undoes what is "
            "drawn and not what is stated; say train.sampling=all or weighted"
        )
    most = max(stated, key=lambda label: stated[label], default=None)
    if most is not None and task.union in stated and stated[most] > stated[task.union]:
        raise ValueError(
            f"match.prevalence.{task.union}: expected at least that of {most}, {stated[most]:g}, got {stated[task.union]:g}"
        )
