"""Test-time augmentation: the probabilities of a slice as the mean over fixed views of it.

Probabilities are averaged, not logits: they stay probabilities in a multi-class task, too, the mean's log loss is never
above the views' mean log loss (it is convex), and one view that is far off, and sure of it, cannot carry the others with it.
"""

import math

import torch

from fl_rsna.learning.data.augment import move
from fl_rsna.learning.models.classifier import Classifier, probabilities
from fl_rsna.task import Task

VIEWS = (  # (mirrored, degrees, zoom) of the first, second ... view
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
    """Probabilities [B, L] of stored values [B, C, S, S], averaged over the model's views; of one view as the model says."""
    found = probabilities(model(images), task)
    for number in range(1, model.views):
        found = found + probabilities(model(view(images, number)), task)
    return found / model.views if model.views > 1 else found


def view(images: torch.Tensor, number: int) -> torch.Tensor:
    """One of VIEWS of images [B, C, S, S]; all slices of a stack move alike, and air moves in."""
    mirrored, degrees, zoom = VIEWS[number]
    if degrees == 0 and zoom == 1:
        return images.flip(-1) if mirrored else images
    cos, sin = math.cos(math.radians(degrees)) * zoom, math.sin(math.radians(degrees)) * zoom
    side = -1.0 if mirrored else 1.0
    matrix = torch.tensor([[cos * side, -sin, 0.0], [sin * side, cos, 0.0]])
    return move(images, matrix.to(images.device).expand(len(images), 2, 3))
