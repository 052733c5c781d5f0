"""Mixup: a batch and its labels, mixed with the same batch in another order."""

from collections.abc import Callable

import numpy as np
import torch

from fl_rsna.learning.training.targets import Targets
from fl_rsna.settings.training import TrainConfig

Mixing = Callable[[torch.Tensor, Targets, torch.Generator], tuple[torch.Tensor, Targets]]


def build_mixup(config: TrainConfig) -> Mixing:
    """How a pass's batches are mixed; without train.mixup they are left as they are, and no number is drawn."""
    if config.mixup == 0:
        return lambda images, targets, generator: (images, targets)

    def mix(images: torch.Tensor, targets: Targets, generator: torch.Generator) -> tuple[torch.Tensor, Targets]:
        lot, seed = torch.rand((), generator=generator), torch.randint(2**62, (), generator=generator)
        if lot >= config.mixup_share:
            return images, targets
        order = torch.randperm(len(images), generator=generator).to(images.device)
        share = float(np.random.default_rng(int(seed)).beta(config.mixup, config.mixup))
        return mix_batch(images, targets, order, share)

    return mix


def mix_batch(
    images: torch.Tensor, targets: Targets, order: torch.Tensor, share: float
) -> tuple[torch.Tensor, Targets]:
    """`share` of each image [C, S, S] and label, the rest of those at `order` (Zhang et al. 2018, arXiv:1710.09412).

    What is mixed are stored values, before windows: of HU images that is a scan of both heads in one place, each of
    `share` of its density, so blood at 70 HU over brain at 30 comes to 50, and not to half of each window's grey.

    Weighed labels are mixed by weight: the loss, which is linear in labels, is `share` of one's and the rest of the
    other's, and a label that only one of the two knows is learned from that one.
    """
    images = share * images + (1 - share) * images[order]
    labels, weights = targets.labels, targets.weights
    if weights is None:
        return images, Targets(labels=share * labels + (1 - share) * labels[order])
    own, other = share * weights, (1 - share) * weights[order]
    total = own + other
    return images, Targets(labels=(own * labels + other * labels[order]) / total.clamp(min=1e-12), weights=total)
