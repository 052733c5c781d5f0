"""Copy a model's state to and from two vectors, hash it, and find its parts in the vectors."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class FlatModel:
    """A model's state as two vectors: `floats` float32 [P] and `integers` int64 [Q], in state-dict order."""

    floats: NDArray[np.float32]
    integers: NDArray[np.int64]


def flatten(model: nn.Module) -> FlatModel:
    """Copy a model's state into two vectors."""
    floats, integers = _split(model)
    return FlatModel(
        torch.cat([tensor.detach().reshape(-1).float().cpu() for tensor in floats]).numpy(),
        torch.cat(
            [tensor.reshape(-1).long().cpu() for tensor in integers] or [torch.zeros(0, dtype=torch.long)]
        ).numpy(),
    )


@torch.no_grad()
def unflatten(flat: FlatModel, model: nn.Module) -> None:
    """Copy two vectors into a model's state; raises ValueError when their lengths do not fit it."""
    vectors: tuple[NDArray[np.generic], NDArray[np.generic]] = (flat.floats, flat.integers)
    for vector, tensors in zip(vectors, _split(model), strict=True):
        expected = sum(tensor.numel() for tensor in tensors)
        if vector.size != expected:
            raise ValueError(
                f"expected a model of {expected} values, got {vector.size}; the sites run another model configuration"
            )
        offset = 0
        for tensor in tensors:  # each part is copied, as an array from a message is read-only
            tensor.copy_(torch.tensor(vector[offset : offset + tensor.numel()]).view(tensor.shape))
            offset += tensor.numel()


def layout_sha256(model: nn.Module) -> str:
    """Hash the names, types and shapes of a model's state, which define the layout of its vectors."""
    layout = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in model.state_dict().items()]
    return hashlib.sha256(json.dumps(layout).encode()).hexdigest()


def model_sha256(flat: FlatModel, layout: str) -> str:
    """Hash a model: the hash of its layout and the bits of its values."""
    digest = hashlib.sha256(layout.encode())
    digest.update(flat.floats.astype("<f4", copy=False).tobytes())
    digest.update(flat.integers.astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def positions(model: nn.Module, names: Iterable[str]) -> NDArray[np.bool_]:
    """Return bool [P] over a flat model's `floats`, true for the float tensors of these names."""
    wanted, kept = set(names), list[NDArray[np.bool_]]()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            kept.append(np.full(tensor.numel(), name in wanted))
    return np.concatenate(kept)


def parameter_positions(model: nn.Module) -> NDArray[np.bool_]:
    """Return bool [P] over a flat model's `floats`, true for parameters and false for BatchNorm's running statistics."""
    return positions(model, (name for name, _ in model.named_parameters()))


def _split(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    state = list(model.state_dict().values())
    return [tensor for tensor in state if tensor.is_floating_point()], [
        tensor for tensor in state if not tensor.is_floating_point()
    ]
