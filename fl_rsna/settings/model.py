"""Settings of the network: its architecture, the part of an image it sees, and its initial weights."""

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from fl_rsna.common.plugins import MODELS, find_plugin, find_plugins
from fl_rsna.settings.data import DataConfig, ImageKind
from fl_rsna.settings.fields import Asked, Need, above_up_to, at_least, below, declare, from_to
from fl_rsna.settings.stages import SLICES
from fl_rsna.task import Rendering, find_task

MOST_VIEWS = 8  # of learning/models/tta.py
UP_TO_1 = above_up_to(0, 1)


class ModelName(StrEnum):
    """fl_rsna's own network architectures; b0..b7 from efficientnet-pytorch, lite0..lite2 from efficientnet-lite-pytorch."""

    efficientnet_b0 = "efficientnet_b0"
    efficientnet_b1 = "efficientnet_b1"
    efficientnet_b2 = "efficientnet_b2"
    efficientnet_b3 = "efficientnet_b3"
    efficientnet_b4 = "efficientnet_b4"
    efficientnet_b5 = "efficientnet_b5"
    efficientnet_b6 = "efficientnet_b6"
    efficientnet_b7 = "efficientnet_b7"
    efficientnet_lite0 = "efficientnet_lite0"
    efficientnet_lite1 = "efficientnet_lite1"
    efficientnet_lite2 = "efficientnet_lite2"
    timm = "timm"  # the one that model.backbone names


class Window(StrEnum):
    """The conversion of Hounsfield units to the network's three channels."""

    fixed = "fixed"  # the windows of imaging/dicom/hounsfield.py
    learned = "learned"  # starts as the fixed ones; trained with the network and averaged
    personal = "personal"  # learned, but each site keeps its own, for its scanner; other data get the sites' mean


class Crop(StrEnum):
    """The part of an image that the network sees."""

    none = "none"  # all of it
    head = "head"  # a square around the head, the same for all slices of a series
    lungs = "lungs"  # of a radiograph, a square around the lung field, found without annotations
    boxes_leaky = "boxes_leaky"  # of a radiograph, a square around the readers' boxes, which leaks the label

    @property
    def shows_truth(self) -> bool:
        """Say whether annotations decide what the network sees. New films have none, so scores are too high."""
        return self is Crop.boxes_leaky


class Norm(StrEnum):
    """The federation's treatment of BatchNorm's running statistics."""

    average = "average"  # trained at the sites, averaged like weights
    local = "local"  # FedBN: each site keeps its own, with scale and shift; other data get the sites' mean
    local_stats = "local_stats"  # SiloBN: each site keeps its own statistics; other data get the sites' mean
    frozen = "frozen"  # kept as initialised; only scale and shift are trained
    adapted = "adapted"  # estimated again on the sites' slices in round 1, without training; frozen from then on
    group = "group"  # GroupNorm instead of BatchNorm: there are no running statistics


class Trainable(StrEnum):
    """The weights that a site trains."""

    all = "all"
    head = "head"  # the last linear layer on fixed features


def trains_all(asked: Asked) -> bool:
    """Say whether sites train all weights, not only the head."""
    return asked.config.train.trainable is Trainable.all


TRAINED_NORM = Need(
    "BatchNorm that is trained: model.norm=average, local or local_stats, and train.trainable=all",
    lambda asked: asked.config.model.norm in (Norm.average, Norm.local, Norm.local_stats) and trains_all(asked),
)
AVERAGED_NORM = Need(
    "model.norm=average and train.trainable=all",
    lambda asked: asked.config.model.norm is Norm.average and trains_all(asked),
)
NO_START = Need("no start, whose weights a run begins with instead", lambda asked: asked.config.start is None)


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Settings of the network, as users choose them."""

    name: str = declare(ModelName.efficientnet_lite0.value, "network architecture", needs=(SLICES,))
    pretrained: bool = declare(
        True,
        "start from ImageNet weights; only those of efficientnet_lite0 are installed",
        needs=(SLICES,),
        off=(False,),
    )
    image_size: int = declare(
        96, "side of the image that the network sees, in pixels", within=at_least(16), needs=(SLICES,)
    )
    norm: Norm = declare(Norm.average, "how the federation treats BatchNorm's running statistics", needs=(SLICES,))
    norm_momentum: float = declare(
        0.1, "weight of a batch in BatchNorm's running statistics", within=UP_TO_1, needs=(SLICES, TRAINED_NORM)
    )
    recalibrate: bool = declare(
        True,
        "with norm=average: every site estimates BatchNorm's statistics of the final model again",
        needs=(SLICES, AVERAGED_NORM),
        off=(False,),
    )
    dropout: float = declare(
        0.2,
        "share of the features before the last layer that training drops",
        within=below(1),
        needs=(SLICES,),
        off=(0,),
    )
    backbone: str | None = declare(None, "with model=timm: the network, one of timm.list_models()", needs=(SLICES,))
    weights: str | None = declare(
        None,
        "file of initial weights, a state dict in .safetensors, .pth or .pt; only the server reads it",
        needs=(SLICES, NO_START),
    )
    neighbours: int = declare(
        0,
        "number of neighbouring slices on each side that the network sees with a slice; 1 is 2.5D",
        within=from_to(0, 8),
        needs=(SLICES,),
        off=(0,),
    )
    window: Window = declare(
        Window.fixed, "how Hounsfield units are converted to the network's three channels", needs=(SLICES,)
    )
    crop: Crop = declare(Crop.none, "part of an image that the network sees", needs=(SLICES,))
    tta: int = declare(
        1,
        "number of views of a slice whose probabilities are averaged (test-time augmentation, learning/models/tta.py)",
        within=from_to(1, MOST_VIEWS),
        needs=(SLICES,),
        off=(1,),
    )


@dataclass(kw_only=True, slots=True)
class RunModel(ModelConfig):
    """A model as a run trains it: the user's settings, and the correction of its logits, which the counts of the roll call decide."""

    kept_negatives: float = declare(1.0, "share of the slices without the union label that was drawn", within=UP_TO_1)
    class_weights: list[float] = declare([], "weights of the classes in the loss, which the logits are corrected for")


def to_run_model(model: ModelConfig) -> RunModel:
    """Copy the settings of a model into a RunModel. Where `model` is one already, its correction stays."""
    return RunModel(**{item.name: getattr(model, item.name) for item in fields(model)})


def check_model(model: ModelConfig, data: DataConfig, trainable: Trainable) -> None:
    """Raise ValueError for an unknown network, weights that are not there, and a crop or window that does not fit the images."""
    _check_network(model)
    _check_crop(model, data)
    _check_start(model)
    starts_trained = model.pretrained or model.weights is not None
    if model.norm is Norm.frozen and not starts_trained:
        raise ValueError(
            "model.norm: expected average without ImageNet weights, got frozen, which keeps untrained statistics"
        )
    if trainable is Trainable.head and not starts_trained:
        raise ValueError(
            "train.trainable: expected all without ImageNet weights, got head, which would use random features"
        )
    if model.window is Window.fixed:
        return
    if data.image is not ImageKind.hu:
        raise ValueError(
            f"model.window: expected fixed with data.image={data.image}, whose windows are cut already, "
            f"got {model.window}; prepare with data.image=hu"
        )
    if trainable is Trainable.head:
        raise ValueError(
            f"model.window: expected fixed with train.trainable=head, which trains no window, got {model.window}"
        )


def list_models() -> list[str]:
    """List the names of all networks: fl_rsna's own, then those of other installed packages in alphabetical order."""
    return [*ModelName, *sorted(set(find_plugins(MODELS)) - set(ModelName))]


def _check_network(model: ModelConfig) -> None:
    if model.name not in list_models():
        raise ValueError(
            f"model.name: expected one of {', '.join(list_models())}, got {model.name!r}; choose one of them"
        )
    find_plugin(MODELS, model.name, "model.name", is_ours=model.name in list(ModelName))
    if model.name == ModelName.timm and not model.backbone:
        raise ValueError(
            "model.backbone: expected a name of timm.list_models() with model=timm, got nothing; say model.backbone=densenet121"
        )
    if model.name != ModelName.timm and model.backbone is not None:
        raise ValueError(
            f"model.backbone: expected nothing with {model.name}, got {model.backbone}; say model=timm or leave it out"
        )


def _check_crop(model: ModelConfig, data: DataConfig) -> None:
    """Raise ValueError for a crop around an organ that the task's images do not show."""
    task, crop = find_task(data.task), model.crop
    fitting: tuple[Crop, ...]
    match task.rendering:
        case Rendering.hounsfield:
            fitting, why = (Crop.none, Crop.head), "whose images are CT slices"
        case Rendering.radiograph:
            fitting, why = (Crop.none, Crop.lungs, Crop.boxes_leaky), "whose images are radiographs"
    if crop not in fitting:
        raise ValueError(
            f"model.crop: expected {' or '.join(fitting)} for task {task.name}, {why}, got {crop}; choose one of them"
        )


def _check_start(model: ModelConfig) -> None:
    """Raise ValueError for ImageNet weights that would need a download, two sources of initial weights, and a file that does not exist."""
    if model.pretrained and model.name != ModelName.efficientnet_lite0:
        raise ValueError(
            f"model.pretrained: expected false for {model.backbone or model.name}, whose ImageNet weights would need a "
            "download; set model.pretrained=false, with model.weights=<file> if you have them, or model=efficientnet_lite0"
        )
    if model.weights is None:
        return
    if model.pretrained:
        raise ValueError(
            f"model.weights: expected nothing beside model.pretrained=true, got {model.weights}; set model.pretrained=false"
        )
    if not Path(model.weights).is_file():
        raise ValueError(f"model.weights: expected a file, got {model.weights}, which is none; give a state dict")
