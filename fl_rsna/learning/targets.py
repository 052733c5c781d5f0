"""What a batch is to be answered with: labels, and how much each of them counts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Labels [B, L] between 0 and 1, and weights [B, L] of them: 0 where a label is unknown. No weights: all 1."""

    labels: torch.Tensor
    weights: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTargets:
    """The same of all slices of a site, [N, L], in the order of its index."""

    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None

    def of(self, batch: NDArray[np.intp], device: torch.device) -> Targets:
        labels = torch.from_numpy(self.labels[batch]).to(device)
        if self.weights is None:
            return Targets(labels=labels)
        return Targets(labels=labels, weights=torch.from_numpy(self.weights[batch]).to(device))


def known_targets(labels: NDArray[np.float32], odds: NDArray[np.float32] | None = None) -> SiteTargets:
    """Targets of labels [N, L] in which NaN is unknown; `odds` [N] is how much oftener than once in a pass a slice is drawn.

    Drawn slices count 1/odds, so that a batch's expected loss is that of all slices alike: importance sampling.
    """
    unknown = np.isnan(labels)
    if odds is None and not unknown.any():
        return SiteTargets(labels=labels)
    weights = np.where(unknown, 0, 1 if odds is None else 1 / odds[:, None]).astype(np.float32)
    return SiteTargets(labels=np.nan_to_num(labels), weights=weights)
