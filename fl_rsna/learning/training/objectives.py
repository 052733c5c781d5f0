"""What a site's model learns from in one round: the examples of a pass over its data, perhaps mixed, and the loss of a batch of them."""

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
from fl_rsna.learning.training.loss import Objective, objective
from fl_rsna.learning.training.sampling import plan_draws
from fl_rsna.learning.training.targets import Targets, build_targets, build_train_labels, reweight_to_prevalence
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

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


StepLoss = Callable[[nn.Module, NDArray[np.intp], torch.Generator, LocalRule], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceObjective:
    """`loss` takes the model, a batch's rows, the generator of everything random in it, and the strategy's rule."""

    site: str
    slices: int  # training slices that a pass stands for, by which the site counts in a mean
    examples: int  # in one pass
    draw: Callable[[np.random.Generator], NDArray[np.intp]]  # one pass's rows, as many as `examples`, before shuffling
    loss: StepLoss


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
    """Slices one by one, augmented: every training slice in every pass, or what train.sampling draws of them.

    `kept` is the share of slices without the union label that is drawn, `prior` each label's share of positive slices over
    all sites, `target` the prevalence to train for. A site of which a share is drawn counts by what is drawn, so that the
    sites' mean is of their drawn slices; `tells` is false where the site keeps the number of its positive slices to itself.
    """
    drawn = plan_draws(config, data.rows("train"), data.labels, task, kept=kept, prior=prior, tells=tells)
    known = build_targets(build_train_labels(data.index, data.labels, config, task.kind), drawn.odds)
    known = reweight_to_prevalence(known, prior, target)
    mix, measure = build_mixup(config), objective(task, config, prior)

    def loss(model: nn.Module, batch: NDArray[np.intp], draws: torch.Generator, rule: LocalRule) -> torch.Tensor:
        assert isinstance(model, Classifier)
        images = gather(data.images, batch, device)
        images = augment(images, config, image=data.image, generator=draws)
        images, targets = mix(images, known.of(batch, device), draws)
        return _slice_loss(model, images, targets, measure, config, rule)

    return SliceObjective(site=data.name, slices=drawn.slices, examples=drawn.examples, draw=drawn.draw, loss=loss)


def _slice_loss(
    model: Classifier, images: torch.Tensor, targets: Targets, measure: Objective, config: TrainConfig, rule: LocalRule
) -> torch.Tensor:
    """The loss of one batch with what the rule adds to logits and loss."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.amp and images.device.type == "cuda"):
        logits, features = (
            model.with_features(images) if rule.penalty is not None else (model.raw_logits(images), images)
        )
    if rule.logit_shift is not None:
        logits = logits.float() + rule.logit_shift.to(logits.device)
    loss = measure(logits, targets.labels, counts=targets.weights)
    return loss if rule.penalty is None else loss + rule.penalty(images, features.float())
