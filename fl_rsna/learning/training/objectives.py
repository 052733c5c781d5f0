"""Build what a site's model learns from in one round: the examples of a pass over its data, mixup, and the loss of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.learning.data.augment import augment
from fl_rsna.learning.data.dataset import SiteData, gather
from fl_rsna.learning.models.classifier import Classifier
from fl_rsna.learning.training.local_rule import LocalRule
from fl_rsna.learning.training.loss import objective
from fl_rsna.learning.training.sampling import plan_draws
from fl_rsna.learning.training.targets import Targets, build_targets, build_train_labels, reweight_to_prevalence
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

Mixing = Callable[[torch.Tensor, Targets, torch.Generator], tuple[torch.Tensor, Targets]]


def build_mixup(config: TrainConfig) -> Mixing:
    """Return the function that mixes a batch; without train.mixup it changes nothing and draws no number."""
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
    """Mix each image [C, S, S] and label with those at `order`: `share` times its own plus (1 - share) times the other.

    This is mixup of Zhang et al. 2018 (arXiv:1710.09412). Stored values are mixed, before windows: in equal shares, blood at
    70 HU over brain at 30 HU becomes 50 HU.

    Weighted labels are mixed by weight. The loss is linear in labels, so it is `share` of the one's loss plus the rest of the
    other's, and a label that is known in only one of the two is learned from that one.
    """
    images = share * images + (1 - share) * images[order]
    labels, weights = targets.labels, targets.weights
    if weights is None:
        return images, Targets(labels=share * labels + (1 - share) * labels[order])
    own, other = share * weights, (1 - share) * weights[order]
    total = own + other
    return images, Targets(labels=(own * labels + other * labels[order]) / total.clamp(min=1e-12), weights=total)


StepLoss = Callable[[nn.Module, NDArray[np.intp], torch.Generator, LocalRule], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceObjective:
    """The examples that a site trains on, and the loss of a batch of them."""

    site: str
    slices: int  # training slices that a pass stands for; the site's weight in a mean over sites
    examples: int  # examples of one pass
    draw: Callable[[np.random.Generator], NDArray[np.intp]]  # returns one pass's rows, [examples], before shuffling
    loss: StepLoss  # (model, a batch's rows, generator of every random number in it, the strategy's rule) -> loss


def build_slice_objective(
    data: SiteData,
    task: Task,
    config: TrainConfig,
    device: torch.device,
    *,
    kept: float = 1.0,
    prior: tuple[float, ...] = (),
    target: tuple[float, ...] = (),
    tells: bool = True,
) -> SliceObjective:
    """Build an objective of single augmented slices: every training slice in every pass, or what train.sampling draws.

    `kept` is the share of slices without the union label that is drawn, `prior` each label's share of positive slices over
    all sites, `target` the prevalence to train for. `tells` is false where the site
    keeps the number of its positive slices to itself. A site's weight among sites is the number of slices that it draws, or, where
    `tells` is false, would draw if its share of positive slices were the prior.
    """
    drawn = plan_draws(config, data.rows("train"), data.labels, task, kept=kept, prior=prior, tells=tells)
    known = build_targets(build_train_labels(data.index, data.labels, config, task.kind), drawn.odds)
    known = reweight_to_prevalence(known, prior, target)
    mix, measure = build_mixup(config), objective(task, config, prior)

    def loss(model: nn.Module, batch: NDArray[np.intp], draws: torch.Generator, rule: LocalRule) -> torch.Tensor:
        assert isinstance(model, Classifier)
        images = augment(gather(data.images, batch, device), config, image=data.image, generator=draws)
        images, targets = mix(images, known.of(batch, device), draws)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.amp and images.device.type == "cuda"):
            logits, features = (
                model.with_features(images) if rule.penalty is not None else (model.raw_logits(images), images)
            )
        if rule.logit_shift is not None:
            logits = logits.float() + rule.logit_shift.to(logits.device)
        found = measure(logits, targets.labels, counts=targets.weights)
        return found if rule.penalty is None else found + rule.penalty(images, features.float())

    return SliceObjective(site=data.name, slices=drawn.slices, examples=drawn.examples, draw=drawn.draw, loss=loss)
