"""The head of the second stage: from a series of slices, as a frozen encoder sees them, to logits of each of its slices.

What wins on head CT is a small recurrent network over the features of a slice model (the RSNA 2019 solutions). This one adds
to the slice model's own logits, and what it adds is zero before it is trained: it starts as the slice model. It has
LayerNorm only, so nothing of a site's scanner is averaged. The model of a sequence run is the encoder, the head, and the weights by
which their logits are blended, one a label.
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
LOGITS = 4.0  # by which slice logits are divided before they are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    """All that a head is built from."""

    head: HeadName
    width: int
    layers: int
    dropout: float
    features: int  # of the encoder
    labels: int


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Series filled up to the longest, T slices: features [B, T, F], slice logits [B, T, L], places [B, T, PLACES], lengths [B]."""

    features: torch.Tensor
    logits: torch.Tensor
    places: torch.Tensor
    lengths: torch.Tensor  # int64, on the CPU

    @property
    def mask(self) -> torch.Tensor:
        """Where slices are, bool [B, T]."""
        steps = torch.arange(self.logits.shape[1], device=self.logits.device)
        return steps < self.lengths.to(self.logits.device)[:, None]


class SeriesHead(nn.Module):
    """A batch of series -> logits [B, T, L]; those where no slice is mean nothing."""

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
        """Logits [n, L] of the n slices there are, series after series, and what the head has of them before its last layer."""
        hidden, mask = self._compute_states(batch), batch.mask
        return (batch.logits + self.out(self.dropout(hidden)))[mask], hidden[mask]

    def features(self, batch: SeriesBatch) -> torch.Tensor:
        """The second of the two alone."""
        return self._compute_states(batch)[batch.mask]

    def _compute_states(self, batch: SeriesBatch) -> torch.Tensor:
        seen = self.from_features(self.norm_in(batch.features))
        seen = seen + self.from_logits(batch.logits / LOGITS) + self.from_places(batch.places)
        found: torch.Tensor = self.norm_out(seen + self.context(seen, batch))
        return found


class Recurrent(nn.Module):
    """A bidirectional GRU; packed, so that no direction begins in the padding."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(width, width // 2, layers, batch_first=True, dropout=between, bidirectional=True)

    def forward(self, seen: torch.Tensor, batch: SeriesBatch) -> torch.Tensor:
        packed = pack_padded_sequence(seen, batch.lengths, batch_first=True, enforce_sorted=False)
        found, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=seen.shape[1])
        return found


class Attention(nn.Module):
    """A transformer encoder (Vaswani et al. 2017, arXiv:1706.03762), normalised first; padding is looked at by nobody."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, ATTENTION_HEADS, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, seen: torch.Tensor, batch: SeriesBatch) -> torch.Tensor:
        where = waves(seen.shape[1], seen.shape[2], seen.device)
        found: torch.Tensor = self.layers(seen + where, src_key_padding_mask=~batch.mask)
        return found


class Convolution(nn.Module):
    """Convolutions over 3 slices, each layer twice as far apart, normalised slice by slice; beyond a series there is nothing."""

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


def waves(length: int, width: int, device: torch.device) -> torch.Tensor:
    """Sines and cosines of the number of the slice [length, width], by which a transformer tells neighbours."""
    steps = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.cat([torch.sin(steps * rates), torch.cos(steps * rates)], dim=1)


def build_head(shape: HeadShape, *, seed: int) -> SeriesHead:
    """The same seed gives the same weights and leaves torch's own state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SeriesHead(shape)


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
    return as_probabilities(blend_logits(slices, head, weights), task)


def as_probabilities(logits: NDArray[np.floating], task: Task) -> NDArray[np.float32]:
    """Probabilities [N, L] of logits [N, L], as float32."""
    return probabilities(torch.from_numpy(np.asarray(logits, np.float32)), task).numpy()


def blend_logits(
    logits_a: NDArray[np.floating], logits_b: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Logits [N, L] between two models', with `weights` [L] of the second: 0 is the first as it is, 1 the second."""
    share = np.asarray(weights, np.float64)
    mixed: NDArray[np.float64] = (1 - share) * logits_a + share * logits_b
    return mixed
