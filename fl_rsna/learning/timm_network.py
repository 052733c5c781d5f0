"""Networks of timm, an extra: https://github.com/huggingface/pytorch-image-models. Nothing is ever downloaded."""

import difflib
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fl_rsna.config import ModelConfig


class DroppedLinear(nn.Linear):
    """Dropout and then a linear layer, under the linear layer's own names."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__(features, labels)
        self.dropout = dropout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(features, self.dropout, self.training))


def timm_network(config: ModelConfig, num_labels: int) -> Any:
    """The network that `model.backbone` names, with random weights and dropout before its last layer.

    Raises ValueError when timm or the network is not there, or takes no images of this size.
    """
    assert config.backbone is not None, "limits.check has seen to it"
    _check_size(config.backbone, config.image_size)
    network = _created(config.backbone, config.image_size, num_labels)
    name, last = network.pretrained_cfg["classifier"], network.get_classifier()
    if not isinstance(last, nn.Linear) or not isinstance(name, str):
        raise ValueError(
            f"model.backbone: expected a network that ends in one linear layer, got {config.backbone}; take another"
        )
    network.set_submodule(name, DroppedLinear(last.in_features, num_labels, config.dropout))
    return network


def timm_stages(network: nn.Module) -> dict[str, int]:
    """Stages from the stem up, by parameter, as timm groups them."""
    if not hasattr(network, "group_matcher"):
        raise ValueError("train.layer_decay: expected 1 for a network whose stages timm does not name; set it to 1")
    matcher: Any = network.group_matcher
    return dict(_timm().models.group_parameters(network, matcher(coarse=True), reverse=True))


def _created(name: str, size: int, num_labels: int) -> Any:
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3) or ["densenet121"]
        raise ValueError(
            f"model.backbone: expected a name of timm.list_models(), got {name}; there is {' or '.join(near)}"
        )
    facts = timm.models.get_pretrained_cfg(name)
    sized = {"img_size": size} if facts is not None and facts.fixed_input_size and facts.input_size[-1] != size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_labels, **sized)
    except TypeError:
        raise ValueError(
            f"model.image_size: expected {facts.input_size[-1]} for {name}, which takes no other, got {size}"
        ) from None


@lru_cache(maxsize=32)
def _check_size(name: str, size: int) -> None:
    """Play the network on an image without memory: one too small ends in a convolution that has nothing left."""
    with torch.device("meta"), torch.no_grad():
        network = _created(name, size, 1).eval()
        try:
            network(torch.zeros(2, 3, size, size))
        except (RuntimeError, ValueError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ValueError(f"model.image_size: expected what {name} can take, got {size} ({said})") from None


def _timm() -> ModuleType:
    """The package, imported when it is asked for; raises ValueError where it, or torchvision under it, cannot be."""
    try:
        import timm
    except (ImportError, RuntimeError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("timm", "torchvision"):
            raise ValueError(
                f"model.name: timm networks need {error.name}, not installed here; pip install 'fl-rsna[timm]'"
            ) from None
        said = str(error).splitlines()[0]
        raise ValueError(
            f"model.name: timm is here, but torchvision under it cannot be imported ({said}); "
            "install the torchvision that was built for this torch, or choose an efficientnet"
        ) from None
    return timm
