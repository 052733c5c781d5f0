"""A network of two convolutions, of a package beside the tests: what a federation does with a network, without an EfficientNet's seconds."""

from typing import Any

from torch import nn

from fl_rsna.learning.models.backbone import DroppedLinear
from fl_rsna.settings.model import ModelConfig


class TinyNetwork(nn.Sequential):
    """[B, 3, S, S] -> [B, labels], with BatchNorm and with dropout before its last layer."""

    pretrained_cfg: dict[str, Any] = {"classifier": "8", "first_conv": "0", "mean": (0.5,) * 3, "std": (0.25,) * 3}  # noqa: RUF012


def tiny_network(config: ModelConfig, labels: int) -> nn.Module:
    """1,500 weights, where the default network has 3.4 million."""
    first = (nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    second = (nn.Conv2d(8, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return TinyNetwork(
        *first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), DroppedLinear(16, labels, config.dropout)
    )
