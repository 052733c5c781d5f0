"""Test-time augmentation: average the probabilities of a slice over fixed views of it.

Probabilities are averaged, not logits, for three reasons. The mean is a distribution also in a multi-class task. Its log loss is never
above the mean log loss of the views, as the log loss is convex. And one wrong view of high confidence does not dominate the mean.
"""

import math

import torch

from fl_rsna.learning.data.augment import move
from fl_rsna.learning.models.classifier import Classifier, probabilities
from fl_rsna.task import Task

VIEWS = (  # (mirrored, degrees, zoom) of each view
    (False, 0.0, 1.0),
    (True, 0.0, 1.0),
    (False, 7.5, 1.0),
    (True, -7.5, 1.0),
    (False, -7.5, 1.0),
    (True, 7.5, 1.0),
    (False, 0.0, 0.95),
    (True, 0.0, 0.95),
)


def mean_probabilities(model: Classifier, images: torch.Tensor, task: Task) -> torch.Tensor:
    """Compute probabilities [B, L] of stored values [B, C, S, S], averaged over the model's views."""
    found = probabilities(model(images), task)
    for number in range(1, model.views):
        found = found + probabilities(model(view(images, number)), task)
    return found / model.views if model.views > 1 else found


def view(images: torch.Tensor, number: int) -> torch.Tensor:
    """Transform images [B, C, S, S] to view `number` of VIEWS; all slices of a stack move alike, and pixels from outside are air."""
    mirrored, degrees, zoom = VIEWS[number]
    if degrees == 0 and zoom == 1:
        return images.flip(-1) if mirrored else images
    cos, sin = math.cos(math.radians(degrees)) * zoom, math.sin(math.radians(degrees)) * zoom
    side = -1.0 if mirrored else 1.0
    matrix = torch.tensor([[cos * side, -sin, 0.0], [sin * side, cos, 0.0]])
    return move(images, matrix.to(images.device).expand(len(images), 2, 3))
