"""The head of the second stage, which turns a frozen encoder's features of a series into logits of each of its slices.

The best solutions of RSNA 2019 had a small recurrent network over the features of a slice model. This head adds to the slice model's own
logits, and adds zero before it is trained, so it starts as the slice model. It has LayerNorm only, so nothing of a site's scanner is
averaged. The model of a sequence run is the encoder, the head, and for each label the weight by which their logits are blended.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fl_rsna.learning.data.series import PLACES
from fl_rsna.learning.models.classifier import Classifier, probabilities
from fl_rsna.settings.stages import HeadName
from fl_rsna.task import Task

ATTENTION_HEADS = 4
LOGITS = 4.0  # divisor of slice logits at the head's input


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    """Everything from which a head is built."""

    head: HeadName
    width: int
    layers: int
    dropout: float
    features: int  # number of the encoder's features
    labels: int


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Series padded to the longest, T slices: features [B, T, F], slice logits [B, T, L], places [B, T, PLACES], lengths [B]."""

    features: torch.Tensor
    logits: torch.Tensor
    places: torch.Tensor
    lengths: torch.Tensor  # int64, on the CPU

    @property
    def mask(self) -> torch.Tensor:
        """Bool [B, T], true where a slice is and false in the padding."""
        steps = torch.arange(self.logits.shape[1], device=self.logits.device)
        return steps < self.lengths.to(self.logits.device)[:, None]


class SeriesHead(nn.Module):
    """Compute logits [B, T, L] of a batch of series; those in the padding mean nothing."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape, width = shape, shape.width
        self.norm_in = nn.LayerNorm(shape.features)
        self.from_features = nn.Linear(shape.features, width)
        self.from_logits = nn.Linear(shape.labels, width, bias=False)
        self.from_places = nn.Linear(PLACES, width, bias=False)
        match shape.head:
            case HeadName.gru:
                self.context: nn.Module = Recurrent(width, shape.layers, shape.dropout)
            case HeadName.transformer:
                self.context = Attention(width, shape.layers, shape.dropout)
            case HeadName.cnn:
                self.context = Convolution(width, shape.layers, shape.dropout)
        self.norm_out = nn.LayerNorm(width)
        self.dropout = nn.Dropout(shape.dropout)
        self.out = nn.Linear(width, shape.labels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, batch: SeriesBatch) -> torch.Tensor:
        hidden = self._compute_states(batch)
        return batch.logits + self.out(self.dropout(hidden))  # type: ignore[no-any-return]

    def with_features(self, batch: SeriesBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits [n, L] and the states [n, width] before dropout and the last layer, of the n slices, series after series."""
        hidden, mask = self._compute_states(batch), batch.mask
        return (batch.logits + self.out(self.dropout(hidden)))[mask], hidden[mask]

    def features(self, batch: SeriesBatch) -> torch.Tensor:
        """Compute the states [n, width] before dropout and the last layer, of the n slices, series after series."""
        return self._compute_states(batch)[batch.mask]

    def _compute_states(self, batch: SeriesBatch) -> torch.Tensor:
        seen = self.from_features(self.norm_in(batch.features))
        seen = seen + self.from_logits(batch.logits / LOGITS) + self.from_places(batch.places)
        found: torch.Tensor = self.norm_out(seen + self.context(seen, batch))
        return found


class Recurrent(nn.Module):
    """A bidirectional GRU over packed series, so that no direction starts in the padding."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(width, width // 2, layers, batch_first=True, dropout=between, bidirectional=True)

    def forward(self, seen: torch.Tensor, batch: SeriesBatch) -> torch.Tensor:
        packed = pack_padded_sequence(seen, batch.lengths, batch_first=True, enforce_sorted=False)
        found, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=seen.shape[1])
        return found


class Attention(nn.Module):
    """A transformer encoder (Vaswani et al. 2017, arXiv:1706.03762), with normalisation first; padding is masked."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, ATTENTION_HEADS, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, seen: torch.Tensor, batch: SeriesBatch) -> torch.Tensor:
        length, width = seen.shape[1:]  # sines and cosines of a slice's number [length, width] tell neighbours apart
        steps = torch.arange(length, device=seen.device, dtype=torch.float32)[:, None]
        rates = torch.exp(torch.arange(0, width, 2, device=seen.device) * (-math.log(10000.0) / width))
        waves = torch.cat([torch.sin(steps * rates), torch.cos(steps * rates)], dim=1)
        found: torch.Tensor = self.layers(seen + waves, src_key_padding_mask=~batch.mask)
        return found


class Convolution(nn.Module):
    """Convolutions over 3 slices, twice as far apart in each layer; slices are normalised one by one, and padding is 0."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**apart, dilation=2**apart) for apart in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, seen: torch.Tensor, batch: SeriesBatch) -> torch.Tensor:
        nowhere = ~batch.mask[..., None]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            there = norm(seen).masked_fill(nowhere, 0.0)
            seen = seen + self.dropout(nn.functional.gelu(layer(there.transpose(1, 2)).transpose(1, 2)))
        return seen


def build_head(shape: HeadShape, *, seed: int) -> SeriesHead:
    """Build a head; equal seeds give equal weights, and torch's random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SeriesHead(shape)


class TwoStage(nn.Module):
    """A slice encoder and a head over series, whose logits are blended.

    `weights` [L] are the head's share in the blend; 0 is the slice model alone. `sigmas` [L] smooth the slice model's logits for
    comparison. Before the sites have chosen them, all weights are 1 and all sigmas 0.
    """

    def __init__(self, encoder: Classifier, head: SeriesHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("weights", torch.ones(head.shape.labels))
        self.register_buffer("sigmas", torch.zeros(head.shape.labels))

    weights: torch.Tensor
    sigmas: torch.Tensor

    def choose(self, weights: NDArray[np.floating], sigmas: NDArray[np.floating]) -> None:
        """Set the weights [L] and sigmas [L] that the sites chose together."""
        self.weights.copy_(torch.from_numpy(np.asarray(weights, np.float32)))
        self.sigmas.copy_(torch.from_numpy(np.asarray(sigmas, np.float32)))


def final_probabilities(
    slices: NDArray[np.floating], head: NDArray[np.floating], weights: NDArray[np.floating], task: Task
) -> NDArray[np.float32]:
    """Blend logits [N, L] of the slice model and of the head by `weights` [L] of the head, and return probabilities [N, L]."""
    return as_probabilities(blend_logits(slices, head, weights), task)


def as_probabilities(logits: NDArray[np.floating], task: Task) -> NDArray[np.float32]:
    """Convert logits [N, L] to probabilities [N, L] in float32."""
    return probabilities(torch.from_numpy(np.asarray(logits, np.float32)), task).numpy()


def blend_logits(
    logits_a: NDArray[np.floating], logits_b: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Blend the logits [N, L] of two models, with `weights` [L] of the second: 0 is the first alone, 1 the second alone."""
    share = np.asarray(weights, np.float64)
    mixed: NDArray[np.float64] = (1 - share) * logits_a + share * logits_b
    return mixed
