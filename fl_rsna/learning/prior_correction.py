"""Honest probabilities from a model that was trained on fewer slices without a finding than there are."""

import math

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
