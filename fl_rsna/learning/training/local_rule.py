"""Define what a strategy adds to a site's plain training: changes to gradients, to the loss or to the logits in the loss.

Notation of the docstrings: w_t is the global model from which a round starts, w the site's model while it trains, both over the
trained parameters only, T values; g is a mini-batch gradient of the site's loss.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Parameters = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRule:
    """The three changes to local training that a strategy can make; None makes no change."""

    correct: Callable[[Parameters], None] | None = None  # changes the gradients before the optimizer's step
    penalty: Callable[[Any, torch.Tensor], torch.Tensor] | None = None  # (model's input, features) -> added to the loss
    logit_shift: torch.Tensor | None = None  # [L], added to the logits in the training loss only


PLAIN = LocalRule()


def list_trainable_parameters(model: nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that the optimizer changes, in the order of every vector over them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def vector_of(parameters: Parameters) -> torch.Tensor:
    """Copy the parameters into one vector [T]."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).clone()


def views_of(vector: torch.Tensor, like: Parameters) -> list[torch.Tensor]:
    """Split the vector [T] into views of the parameters' shapes, which share its memory."""
    pieces = torch.split(vector, [parameter.numel() for parameter in like])
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, like, strict=True)]


def proximal(parameters: Parameters, mu: float, centre: torch.Tensor | None = None) -> LocalRule:
    """Return the rule that adds mu/2 ||w - w_t||^2 to the loss, so g <- g + mu (w - w_t).

    The source is Li et al. 2020 (arXiv:1812.06127, eq. 2). `centre` [T] is w_t; None takes the parameters as they are now.
    """
    start = views_of(vector_of(parameters) if centre is None else centre, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor in zip(now, start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - anchor, alpha=mu)

    return LocalRule(correct=correct)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy the model as it is now, in evaluation mode and without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def to_tensor(vector: NDArray[np.float32] | None, size: int, device: torch.device) -> torch.Tensor:
    """Copy `vector` to a tensor [size] on the device; None gives zeros."""
    return torch.zeros(size, device=device) if vector is None else torch.from_numpy(vector.copy()).to(device)
