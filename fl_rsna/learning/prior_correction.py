"""Honest probabilities from a model that was trained on another prior than the data's: by what was drawn, or what counted."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class PriorCorrection(nn.Module):
    """Logits [B, L] among the drawn slices -> logits among all, where `kept` of those without the union label were drawn.

    A draw that keeps every slice with the union label u and a share k of the others has, by Bayes' rule and for every
    label l, which implies u,

        P(l | x) = P_drawn(l | x) / (P_drawn(u | x) + (1 - P_drawn(u | x)) / k)

    because the draw depends on u alone. For l = u that is p r / (p r + 1 - p) with r = k: the prior correction of King and
    Zeng 2001 (Logistic Regression in Rare Events Data, Political Analysis 9), and a constant in the logit. The other
    labels' odds fall by more where u is doubtful: with z the logits, c = 1/k - 1 and s(z) = log(1 + e^z), the new logit
    of l is z_l - s(log c + s(z_l) - s(z_u)). It has no parameters and nothing in the state dict.
    """

    def __init__(self, union: int, kept: float) -> None:
        super().__init__()
        assert 0 < kept < 1, kept
        self.union, self.log_c = union, math.log(1 / kept - 1)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        z = logits.float()
        of_union = F.softplus(z[:, self.union : self.union + 1])
        return z - F.softplus(self.log_c + F.softplus(z) - of_union)


class ClassCorrection(nn.Module):
    """Logits [B, L] of classes that counted w_l each in the loss -> logits of the classes as they are.

    The weighted cross-entropy is least where softmax(z)_l is in proportion to w_l P(l | x), so log w_l is taken off: the prior
    shift of Saerens et al. 2002 (Neural Computation 14:21) at a known ratio of priors. Nothing in the state dict.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.tensor(weights).log(), persistent=False)

    log_weights: torch.Tensor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float() - self.log_weights
