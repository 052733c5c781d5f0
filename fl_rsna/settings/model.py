"""Contradictions among the settings of the model, and with those of what it sees and how it is trained."""

from pathlib import Path

from fl_rsna.settings.choices import Crop, ImageKind, ModelName, Norm, Trainable, Window
from fl_rsna.settings.config import Config, ModelConfig
from fl_rsna.task import Rendering, find_task


def check_model(config: Config) -> None:
    """Raises ValueError with the key's path."""
    model = config.model
    _check_network(model)
    _check_crop(config)
    _check_start(model)
    starts_trained = model.pretrained or model.weights is not None
    if model.norm is Norm.frozen and not starts_trained:
        raise ValueError(
            "model.norm: expected average without ImageNet weights, got frozen, which keeps untrained statistics"
        )
    if config.train.trainable is Trainable.head and not starts_trained:
        raise ValueError(
            "train.trainable: expected all without ImageNet weights, got head, which would use random features"
        )
    if model.window is Window.fixed:
        return
    if config.data.image is not ImageKind.hu:
        raise ValueError(
            f"model.window: expected fixed with data.image={config.data.image}, whose windows are cut already, "
            f"got {model.window}; prepare with data.image=hu"
        )
    if config.train.trainable is Trainable.head:
        raise ValueError(
            f"model.window: expected fixed with train.trainable=head, which trains no window, got {model.window}"
        )


def _check_network(model: ModelConfig) -> None:
    if model.name is ModelName.timm and not model.backbone:
        raise ValueError(
            "model.backbone: expected a name of timm.list_models() with model=timm, got nothing; say model.backbone=densenet121"
        )
    if model.name is not ModelName.timm and model.backbone is not None:
        raise ValueError(
            f"model.backbone: expected nothing with {model.name}, got {model.backbone}; say model=timm or leave it out"
        )


def _check_crop(config: Config) -> None:
    """Refuse a crop around what images of the task's rendering do not show."""
    task, crop = find_task(config.data.task), config.model.crop
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
    if model.pretrained and model.name is not ModelName.efficientnet_lite0:
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
