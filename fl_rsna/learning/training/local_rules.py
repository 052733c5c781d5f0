"""What a strategy adds to a site's plain training, as changes to gradients, to the loss or to the logits in it.

Notation of the docstrings: w_t is the global model a round starts from, w the site's model while it trains, both over
the trained parameters only; g a mini-batch gradient of the site's loss.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
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
    """FedProx (Li et al. 2020, arXiv:1812.06127, eq. 2): the loss plus mu/2 ||w - w_t||^2, so g <- g + mu (w - w_t).

    The squared norm, over trained parameters only. `centre` [T] is w_t; None takes the parameters as they are now.
    """
    start = views_of(vector_of(parameters) if centre is None else centre, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor in zip(now, start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - anchor, alpha=mu)

    return LocalRule(correct=correct)


class ControlVariates:
    """SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378, eq. 3): g <- g - c_i + c.

    c_i, the site's, and c, the server's, are vectors [T]. The new c_i is the mean of the site's own gradients over its
    steps. Under plain SGD with rate r and K steps that is option II of the paper, c_i - c + (w_t - w) / (K r); unlike
    that formula it means the same under every optimizer.
    """

    def __init__(self, site: torch.Tensor, server: torch.Tensor) -> None:
        self._site, self._shift = site, server - site
        self._total, self._steps = torch.zeros_like(site), 0

    def correct(self, now: Parameters) -> None:
        gradients = [parameter.grad for parameter in now]
        for gradient, shift, total in zip(
            gradients, views_of(self._shift, now), views_of(self._total, now), strict=True
        ):
            assert gradient is not None
            total.add_(gradient)
            gradient.add_(shift)
        self._steps += 1

    def compute_variate(self) -> torch.Tensor:
        """The site's new control variate [T]."""
        return self._total / self._steps


def dynamic(parameters: Parameters, memory: torch.Tensor, alpha: float) -> LocalRule:
    """FedDyn (Acar et al. 2021, arXiv:2111.04263, eq. 1): the loss minus <h_i, w> plus alpha/2 ||w - w_t||^2.

    So g <- g - h_i + alpha (w - w_t), with `memory` h_i [T] the site's gradient at its last optimum.
    """
    start, remembered = views_of(vector_of(parameters), parameters), views_of(memory, parameters)

    def correct(now: Parameters) -> None:
        for parameter, anchor, past in zip(now, start, remembered, strict=True):
            assert parameter.grad is not None
            parameter.grad.sub_(past).add_(parameter.detach() - anchor, alpha=alpha)

    return LocalRule(correct=correct)


def contrastive(received: nn.Module, previous: nn.Module, *, mu: float, temperature: float) -> LocalRule:
    """MOON (Li et al. 2021, arXiv:2103.16257, eq. 3): mu times -log(e^s(z, z_glob) / (e^s(z, z_glob) + e^s(z, z_prev))).

    s is the cosine of two features over the temperature; z are features before dropout and the last layer, of the model
    in training, of the global model as received and of the site's own last model, the latter two in evaluation mode.
    Both models have a method `features` of the model's input.
    """
    towards_of, away_of = cast(Any, received).features, cast(Any, previous).features

    def penalty(given: Any, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            towards, away = towards_of(given), away_of(given)
        near, far = (F.cosine_similarity(features, other, dim=1) / temperature for other in (towards, away))
        return mu * F.softplus(far - near).mean()

    return LocalRule(penalty=penalty)


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now, in evaluation mode and never trained."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def prior_shift(site: torch.Tensor, everyone: torch.Tensor, strength: float) -> LocalRule:
    """Logit adjustment (Menon et al. 2021, arXiv:2007.07314, eq. 10) towards the prior of all sites together.

    In the loss, logits get `strength` (logit p_site - logit p_all) a label, so the model itself need not learn how often
    its site has a finding: where a finding is rarer than elsewhere, its negatives press less on the shared model.
    `site` and `everyone` are shares of positive training slices [L], both strictly between 0 and 1. With equal priors, or
    strength 0, nothing changes.
    """
    return LocalRule(logit_shift=(strength * (torch.logit(site) - torch.logit(everyone))).float())
