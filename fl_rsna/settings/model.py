"""The network, what it sees of an image, and where its weights come from."""

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
    """What turns Hounsfield units into the network's three channels."""

    fixed = "fixed"  # the windows of imaging/dicom/hounsfield.py
    learned = "learned"  # starts as those; trained with the network and averaged
    personal = "personal"  # the same, but each site keeps its own, for its scanner; others get the sites' mean


class Crop(StrEnum):
    """Which part of an image the network sees."""

    none = "none"  # all of it
    head = "head"  # a square around the head, the same for all slices of a series
    lungs = "lungs"  # of a radiograph, a square around the lung field, which a rule finds that sees no annotation
    boxes_leaky = (
        "boxes_leaky"  # of a radiograph, a square around what readers marked; says the label, only to measure that
    )

    @property
    def shows_truth(self) -> bool:
        """Whether annotations decide what is seen, which no patient's film has: scores are too high."""
        return self is Crop.boxes_leaky


class Norm(StrEnum):
    """What federation does to BatchNorm's running statistics."""

    average = "average"  # trained at the sites, averaged like weights
    local = "local"  # FedBN: each site keeps its own, with scale and shift; others get the sites' mean
    local_stats = "local_stats"  # SiloBN: each site keeps its own statistics; others get the sites' mean
    frozen = "frozen"  # kept as initialised; only scale and shift are trained
    adapted = "adapted"  # round 1 re-estimates them on the sites' slices without training; frozen from then on
    group = "group"  # GroupNorm instead: there are none


class Trainable(StrEnum):
    """Which weights a site trains."""

    all = "all"
    head = "head"  # the last linear layer on fixed features


def trains_all(asked: Asked) -> bool:
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
    name: str = declare(ModelName.efficientnet_lite0.value, "network architecture", needs=(SLICES,))
    pretrained: bool = declare(
        True, "ImageNet weights; packaged for efficientnet_lite0 only", needs=(SLICES,), off=(False,)
    )
    image_size: int = declare(96, "pixels a side the network sees", within=at_least(16), needs=(SLICES,))
    norm: Norm = declare(Norm.average, "what federation does to BatchNorm's running statistics", needs=(SLICES,))
    norm_momentum: float = declare(
        0.1, "weight of a batch in BatchNorm's running statistics", within=UP_TO_1, needs=(SLICES, TRAINED_NORM)
    )
    recalibrate: bool = declare(
        True,
        "with norm=average: BatchNorm's statistics are estimated anew for the final model, at every site",
        needs=(SLICES, AVERAGED_NORM),
        off=(False,),
    )
    dropout: float = declare(
        0.2, "share of features dropped before the last layer, in training", within=below(1), needs=(SLICES,), off=(0,)
    )
    backbone: str | None = declare(None, "with name=timm: one of timm.list_models()", needs=(SLICES,))
    weights: str | None = declare(
        None,
        "file of a state dict to start from: .safetensors, .pth or .pt; only the server reads it",
        needs=(SLICES, NO_START),
    )
    neighbours: int = declare(
        0,
        "slices of the series seen on each side of a slice; 1 is 2.5D",
        within=from_to(0, 8),
        needs=(SLICES,),
        off=(0,),
    )
    window: Window = declare(
        Window.fixed, "what turns Hounsfield units into the network's three channels", needs=(SLICES,)
    )
    crop: Crop = declare(Crop.none, "which part of an image the network sees", needs=(SLICES,))
    tta: int = declare(
        1,
        "views of a slice whose probabilities are averaged; learning/models/tta.py has them",
        within=from_to(1, MOST_VIEWS),
        needs=(SLICES,),
        off=(1,),
    )


@dataclass(kw_only=True, slots=True)
class RunModel(ModelConfig):
    """A model as a run trains it: its settings, and what the roll call's counts decide that its logits are corrected for."""

    kept_negatives: float = declare(1.0, "share that was drawn of slices without the union label", within=UP_TO_1)
    class_weights: list[float] = declare([], "of classes in the loss, taken off again in the logits")


def to_run_model(model: ModelConfig) -> RunModel:
    """The settings of a model as a run begins with them; what another run decided stays."""
    return RunModel(**{item.name: getattr(model, item.name) for item in fields(model)})


def check_model(model: ModelConfig, data: DataConfig, trainable: Trainable) -> None:
    """Refuse a model that cannot be begun, or cannot see what it is given; raises ValueError with the key's path."""
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
    """The networks: fl_rsna's own and those of other installed packages."""
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
    """Refuse a crop around what images of the task's rendering do not show."""
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
    """Refuse ImageNet's weights where they would need a download, two starts at once, and a file that is not there."""
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
