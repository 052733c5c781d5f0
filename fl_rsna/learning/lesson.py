"""What a site's model learns from in one round: the examples of a pass over its data, and the loss of a batch of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.config import TrainConfig
from fl_rsna.imaging.store import ImageKind
from fl_rsna.learning.augment import augment
from fl_rsna.learning.dataset import SiteData, gather
from fl_rsna.learning.local_rules import LocalRule
from fl_rsna.learning.loss import task_loss
from fl_rsna.learning.matching import Weigh
from fl_rsna.learning.model import Classifier
from fl_rsna.task import Task

StepLoss = Callable[[nn.Module, NDArray[np.intp], torch.Generator, LocalRule], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """`loss` takes the model, a batch's rows, the generator of everything random in it, and the strategy's rule."""

    site: str
    slices: int  # training slices, by which the site counts in a mean
    examples: int  # in one pass
    draw: Callable[[np.random.Generator], NDArray[np.intp]]  # one pass's rows, as many as `examples`, before shuffling
    loss: StepLoss


def every_alike(labels: torch.Tensor) -> None:
    """For a loss in which no slice counts more than another."""


def slice_lesson(
    data: SiteData, task: Task, config: TrainConfig, device: torch.device, weigh: Weigh = every_alike
) -> Lesson:
    """Slices one by one, augmented: every training slice in every pass; `weigh` says what each label counts."""
    rows = data.rows("train")

    def loss(model: nn.Module, batch: NDArray[np.intp], draws: torch.Generator, rule: LocalRule) -> torch.Tensor:
        assert isinstance(model, Classifier)
        images = gather(data.images, batch, device)
        images = augment(images, config, hounsfield=data.image is ImageKind.hu, generator=draws)
        labels = torch.from_numpy(data.labels[batch]).to(device)
        return _slice_loss(model, images, labels, task, config, rule, weigh(labels))

    return Lesson(site=data.name, slices=len(rows), examples=len(rows), draw=lambda order: rows, loss=loss)


def _slice_loss(
    model: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    task: Task,
    config: TrainConfig,
    rule: LocalRule,
    counts: torch.Tensor | None,
) -> torch.Tensor:
    """The loss of one batch with what the rule adds to logits and loss."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.amp and images.device.type == "cuda"):
        logits, features = model.with_features(images) if rule.penalty is not None else (model(images), images)
    if rule.logit_shift is not None:
        logits = logits.float() + rule.logit_shift.to(logits.device)
    loss = task_loss(logits, labels, task, counts=counts)
    return loss if rule.penalty is None else loss + rule.penalty(images, features.float())
