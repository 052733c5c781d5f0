"""What a strategy adds to a site's plain training, as changes to gradients, to the loss or to the logits in it.

Notation of the docstrings: w_t is the global model a round starts from, w the site's model while it trains, both over
the trained parameters only; g a mini-batch gradient of the site's loss.
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
    """Three places where local training can differ; None leaves it plain."""

    correct: Callable[[Parameters], None] | None = None  # changes the gradients before the optimizer's step
    penalty: Callable[[Any, torch.Tensor], torch.Tensor] | None = (
        None  # the model's input, features -> added to the loss
    )
    logit_shift: torch.Tensor | None = None  # [L], added to the logits in the training loss only


PLAIN = LocalRule()


def list_trainable_parameters(model: nn.Module) -> list[torch.nn.Parameter]:
    """What the optimizer changes, in the order of every vector over it."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def vector_of(parameters: Parameters) -> torch.Tensor:
    """A copy of the parameters as one vector [T]."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).clone()


def views_of(vector: torch.Tensor, like: Parameters) -> list[torch.Tensor]:
    """The vector [T] cut into pieces of the parameters' shapes, sharing its memory."""
    pieces = torch.split(vector, [parameter.numel() for parameter in like])
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, like, strict=True)]


def proximal(parameters: Parameters, mu: float, centre: torch.Tensor | None = None) -> LocalRule:
    """The loss plus mu/2 ||w - w_t||^2 (Li et al. 2020, arXiv:1812.06127, eq. 2), so g <- g + mu (w - w_t).

    The squared norm, over trained parameters only. `centre` [T] is w_t; None takes the parameters as they are now.
    """
    start = views_of(vector_of(parameters) if centre is None else centre, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor in zip(now, start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - anchor, alpha=mu)

    return LocalRule(correct=correct)


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now, in evaluation mode and never trained."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def to_tensor(vector: NDArray[np.float32] | None, size: int, device: torch.device) -> torch.Tensor:
    """What was remembered or sent as a tensor [size], or zeros before there was anything."""
    return torch.zeros(size, device=device) if vector is None else torch.from_numpy(vector.copy()).to(device)
