"""A state dict on disk as a network's start: ImageNet's, RadImageNet's or one's own."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fl_rsna.learning.backbone import parts_of

COUNTERS = "num_batches_tracked"  # older files lack them, and nothing reads them
INSIDE = ("state_dict", "model")  # where a training script's checkpoint keeps the weights


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Put a file's weights into the network as its package makes it; its last layer, of other labels, is left out.

    Raises ValueError when the file cannot be read, or its tensors are not those of the network by name and shape.
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
