"""How a site trains: its optimizer, the augmentation of images, and how labels and rare findings count."""

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
    """What a site trains with; made anew in every round."""

    adamw = "adamw"
    sgd = "sgd"


class Device(StrEnum):
    """Where sites train; auto takes CUDA when there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Loss(StrEnum):
    """What is minimised of each label."""

    bce = "bce"  # cross-entropy
    focal = "focal"  # less of it where the model is nearly right; its probabilities are not to be believed


class Sampling(StrEnum):
    """Which training slices a pass over a site's data holds."""

    all = "all"  # every one, once
    under = "under"  # all with the union label, and a share of the others, drawn anew
    weighted = "weighted"  # as many as there are, drawn anew with replacement: rare labels more often


class Correction(StrEnum):
    """What is done about probabilities that a sampled pass distorts."""

    prior = "prior"  # they are led back to the share of positives that all slices have
    none = "none"  # nothing, to see the harm


class LabelWeights(StrEnum):
    """How much each label counts in the training loss."""

    task = "task"  # as in the task's metric: of RSNA's labels, any counts twice
    prevalence = (
        "prevalence"  # that, times 1 over the root of its share over all sites; classes get it back in their logits
    )


class Schedule(StrEnum):
    """How a learning rate goes from round to round."""

    constant = "constant"
    cosine = "cosine"  # down to nearly 0 in the last round


class Select(StrEnum):
    """Which round's global model is final."""

    best = "best"  # lowest validation loss over the sites' own validation parts
    last = "last"


def _is_corrected(asked: Asked) -> bool:
    train, kind = asked.config.train, find_task(asked.config.data.task).kind
    of_classes = kind is LabelKind.multi_class and train.label_weights is LabelWeights.prevalence
    return train.sampling is not Sampling.all or of_classes


def _lasts_longer(asked: Asked) -> bool:
    return (asked.config.train.patience or 0) + 2 <= most_rounds(asked.config)


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
LONGER = Need("rounds of at least train.patience + 2", _lasts_longer)
SAY_GREY, SAY_HU = "say train.brightness and train.contrast", "say train.hu_shift and train.hu_noise"
ODD = Range("an odd number, 1 or more", lambda value: value % 2 == 1)
BATCH = at_least(2).or_value("auto")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    trainable: Trainable = declare(Trainable.all, "which weights a site trains", needs=(SLICES,))
    local_epochs: int = declare(
        1, "passes over a site's training slices in a round", within=at_least(1), needs=(SLICES, EPOCHS)
    )
    local_steps: int | None = declare(
        None, "steps of a round, exactly so many instead of epochs", within=at_least(1).or_null(), needs=(SLICES,)
    )
    batch_size: Any = declare(16, "images in a batch, or auto: the largest that fits", within=BATCH, needs=(SLICES,))
    optimizer: Optimizer = declare(Optimizer.adamw, "what a site trains with; made anew in every round")
    momentum: float = declare(0.0, "momentum of SGD", within=below(1), needs=(SGD,), off=(0,))
    learning_rate: float = declare(2e-3, "learning rate of a site's optimizer", within=above(0), needs=(SLICES,))
    schedule: Schedule = declare(Schedule.cosine, "how the learning rate goes from round to round")
    layer_decay: float = declare(
        1.0,
        "the rate falls by this factor a stage, from the last layer down; 1 is one rate",
        within=above_up_to(0, 1),
        needs=(SLICES, LAYERS),
        off=(1,),
    )
    weight_decay: float = declare(1e-4, "weight decay of the optimizer", within=NOT_NEGATIVE)
    clip_norm: float | None = declare(
        None, "gradients of a step longer than this are shortened to it; null leaves all", within=above(0).or_null()
    )
    flip: bool = declare(True, "left and right are exchanged half of the time", needs=(AUGMENTED,), off=(False,))
    rotate_deg: float = declare(
        15.0,
        "images are rotated by so many degrees at most, uniform in +-",
        within=NOT_NEGATIVE,
        needs=(AUGMENTED,),
        off=(0,),
    )
    zoom: float = declare(
        0.1, "images are scaled by so large a share at most, uniform in +-", within=SHARE, needs=(AUGMENTED,), off=(0,)
    )
    shift: float = declare(
        0.05,
        "images are moved by so large a share of their side at most, uniform in +-",
        within=SHARE,
        needs=(AUGMENTED,),
        off=(0,),
    )
    hu_shift: float = declare(
        10.0,
        "HU added to an image at most, uniform in +-",
        within=NOT_NEGATIVE,
        needs=(AUGMENTED, IN_HU),
        off=(0,),
        instead=SAY_GREY,
    )
    hu_noise: float = declare(
        0.0,
        "scale of HU: HU * (1 + e), e uniform in +-; water and air stay",
        within=below(1),
        needs=(AUGMENTED, IN_HU),
        off=(0,),
        instead=SAY_GREY,
    )
    brightness: float = declare(
        0.0,
        "brightness of images without HU (windows and films) changes by a share of white, uniform in +-",
        within=SHARE,
        needs=(AUGMENTED, NOT_IN_HU),
        off=(0,),
        instead=SAY_HU,
    )
    contrast: float = declare(
        0.0,
        "contrast of the same changes: (grey - middle) * (1 + e), e uniform in +-",
        within=below(1),
        needs=(AUGMENTED, NOT_IN_HU),
        off=(0,),
        instead=SAY_HU,
    )
    cutout: float = declare(
        0.0,
        "side of one square of air in each image, as a share of the image's",
        within=below(1),
        needs=(AUGMENTED,),
        off=(0,),
    )
    mixup: float = declare(
        0.0,
        "alpha of the beta distribution that images and labels are mixed by; 0 is off",
        within=NOT_NEGATIVE,
        needs=(SLICES,),
        off=(0,),
    )
    mixup_share: float = declare(
        0.4, "share of batches that are mixed, where mixup is on", within=above_up_to(0, 1), needs=(SLICES, MIXED)
    )
    smooth_z: int = declare(
        1, "labels are means over so many neighbouring slices of a series, an odd number", within=ODD
    )
    label_smoothing: float = declare(
        0.0, "share of a label that is spread evenly over what else it might be", within=below(1)
    )
    soft_between: float = declare(
        0.0, "label of a negative slice between a series' first and last positive one", within=below(1)
    )
    loss: Loss = declare(Loss.bce, "what is minimised of each label")
    focal_gamma: float = declare(
        2.0, "exponent of the focal loss; 0 is cross-entropy", within=NOT_NEGATIVE, needs=(FOCAL,), off=(0,)
    )
    label_weights: LabelWeights = declare(LabelWeights.task, "how much each label counts in the training loss")
    sampling: Sampling = declare(Sampling.all, "which training slices a pass over a site's data holds", needs=(SLICES,))
    negatives: float = declare(
        1.0,
        "sampling=under: negatives drawn for each positive, over all sites",
        within=above_up_to(0, 1e6, "1e6"),
        needs=(SLICES, UNDER),
    )
    correction: Correction = declare(
        Correction.prior,
        "sampling=under or weighted: what is done about probabilities that a sampled pass distorts",
        needs=(SLICES, CORRECTED),
        off=(Correction.none,),
    )
    device: Device = declare(Device.auto, "where sites train; auto takes CUDA when there is one")
    amp: bool = declare(True, "bf16 autocast, on CUDA only", needs=(SLICES, CUDA), off=(False,))
    select: Select = declare(Select.best, "which round's global model is final")
    patience: int | None = declare(
        None,
        "stop after so many rounds without a lower validation loss",
        within=at_least(1).or_null(),
        needs=(LONGER,),
        may_be_idle=True,
    )


@dataclass(kw_only=True, slots=True)
class MatchConfig:
    """The prevalence to train for, which the user states: shares of positive slices, e.g. {any: 0.14, epidural: 0.004}.

    Where labels are rarer or more common at the receiving site than in the federation, their positive and negative slices
    count in the loss as often as they occur there. `evaluate ... shift=true` estimates the shares from unlabelled slices and
    prints the words. Labels of a test set must never be the source.
    """

    prevalence: dict[str, float] = declare(
        {}, "share of positive slices by label; labels not named: as in the training slices"
    )


def check_training(train: TrainConfig, task: Task) -> None:
    """Refuse what a task's labels have no meaning for; raises ValueError with the key's path."""
    plain = TrainConfig()
    if train.sampling is Sampling.under and task.union is None:
        raise ValueError(f"train.sampling: expected all or weighted for task {task.name}, which has no union label")
    if task.kind is LabelKind.multi_class and train.soft_between != plain.soft_between:
        raise ValueError(
            f"train.soft_between: expected {plain.soft_between} for classes, which exclude each other, got {train.soft_between}"
        )


def check_match(match: MatchConfig, task: Task, sampling: Sampling) -> None:
    """Refuse a prevalence of no label, or that no set of slices can have; raises ValueError with the key's path."""
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
