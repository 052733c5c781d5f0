"""The model of a sequence run as one: encoder, head, and the weights by which their logits are blended, a label each."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.learning.model import Classifier, probabilities
from fl_rsna.learning.sequence import SeriesHead
from fl_rsna.task import Task


class TwoStage(nn.Module):
    """`weights` [L] are the head's, 0 is the slice model as it is; `sigmas` [L] smooth the slice model, for comparison.

    Before they are chosen the head is alone and nothing is smoothed.
    """

    def __init__(self, encoder: Classifier, head: SeriesHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("weights", torch.ones(head.shape.labels))
        self.register_buffer("sigmas", torch.zeros(head.shape.labels))

    weights: torch.Tensor
    sigmas: torch.Tensor

    def choose(self, weights: NDArray[np.floating], sigmas: NDArray[np.floating]) -> None:
        """Take what the sites chose together."""
        self.weights.copy_(torch.from_numpy(np.asarray(weights, np.float32)))
        self.sigmas.copy_(torch.from_numpy(np.asarray(sigmas, np.float32)))


def final_probabilities(
    slices: NDArray[np.floating], head: NDArray[np.floating], weights: NDArray[np.floating], task: Task
) -> NDArray[np.float32]:
    """Probabilities [N, L] of the blended logits."""
    return as_probabilities(blended(slices, head, weights), task)


def as_probabilities(logits: NDArray[np.floating], task: Task) -> NDArray[np.float32]:
    """Probabilities [N, L] of logits [N, L], as float32."""
    return probabilities(torch.from_numpy(np.asarray(logits, np.float32)), task).numpy()


def blended(
    logits_a: NDArray[np.floating], logits_b: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Logits [N, L] between two models', with `weights` [L] of the second: 0 is the first as it is, 1 the second."""
    share = np.asarray(weights, np.float64)
    mixed: NDArray[np.float64] = (1 - share) * logits_a + share * logits_b
    return mixed
