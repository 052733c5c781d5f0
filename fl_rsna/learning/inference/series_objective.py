"""Train and evaluate a head on series of slices, given as an encoder's features."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.data.series import places_of, series_of
from fl_rsna.learning.inference.features import Encoded
from fl_rsna.learning.models.series_head import SeriesBatch, SeriesHead
from fl_rsna.learning.training.local_rule import LocalRule
from fl_rsna.learning.training.loss import objective
from fl_rsna.learning.training.objectives import SliceObjective
from fl_rsna.learning.training.targets import build_targets, build_train_labels, reweight_to_prevalence
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

SERIES_AT_ONCE = 8  # series in a batch where no gradient is taken

Seen = tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]  # features, logits and places of a series


def build_series_objective(
    data: SiteData,
    encoded: Encoded,
    task: Task,
    config: TrainConfig,
    device: torch.device,
    *,
    prior: tuple[float, ...] = (),
    target: tuple[float, ...] = (),
) -> SliceObjective:
    """Build an objective of whole series: every training series in every pass, each in a newly drawn copy.

    Every slice has the same weight. Labels and their weights are those of a slice objective that draws every slice. `prior` is each
    label's share of positive slices over all sites, `target` the prevalence to train for.
    """
    rows = data.rows("train")
    known = reweight_to_prevalence(
        build_targets(build_train_labels(data.index, data.labels, config, task.kind)), prior, target
    )
    measure = objective(task, config, prior)
    series = series_of(data.index, rows)
    places = places_of(data.index, series)

    def draw(order: np.random.Generator) -> NDArray[np.intp]:
        return order.integers(encoded.copies, size=len(series)) * len(series) + np.arange(len(series))

    def loss(model: nn.Module, batch: NDArray[np.intp], draws: torch.Generator, rule: LocalRule) -> torch.Tensor:
        assert isinstance(model, SeriesHead)
        drawn = [(int(copy), series[at]) for copy, at in zip(*np.divmod(batch, len(series)), strict=True)]
        given = collate([(*encoded.take(copy, of), places[of]) for copy, of in drawn], device)
        targets = known.of(np.concatenate([of for _, of in drawn]), device)
        logits, features = model.with_features(given)  # of the slices that are there, without the padding
        if rule.logit_shift is not None:
            logits = logits + rule.logit_shift.to(logits.device)
        found = measure(logits, targets.labels, counts=targets.weights)
        return found if rule.penalty is None else found + rule.penalty(given, features)

    return SliceObjective(site=data.name, slices=len(rows), examples=len(series), draw=draw, loss=loss)


def collate(series: Sequence[Seen], device: torch.device) -> SeriesBatch:
    """Join series of any lengths into one batch, padded with zeros."""
    longest, first = max(len(logits) for _, logits, _ in series), series[0]
    widths = [part.shape[1] for part in first]
    filled = [np.zeros((len(series), longest, width), np.float32) for width in widths]
    for at, parts in enumerate(series):
        for array, part in zip(filled, parts, strict=True):
            array[at, : len(part)] = part
    features, logits, places = (torch.from_numpy(array).to(device) for array in filled)
    return SeriesBatch(features, logits, places, torch.tensor([len(logits) for _, logits, _ in series]))


@torch.inference_mode()
def head_logits(
    head: SeriesHead, index: pd.DataFrame, encoded: Encoded, rows: NDArray[np.intp], device: torch.device
) -> NDArray[np.float32]:
    """Compute the head's logits [len(rows), L] of slices without augmentation; their series contain `rows` alone.

    Raises FloatingPointError when they are not finite.
    """
    series = series_of(index, rows)
    places = places_of(index, series)
    seen = ((*encoded.take(0, of), places[of]) for of in series)
    found = np.zeros((len(index), encoded.logits[0].shape[1]), np.float32)
    for of, logits in zip(series, score_series(head, seen, device), strict=True):
        found[of] = logits
    if not np.isfinite(found).all():
        raise FloatingPointError("the head's predictions are not finite: it diverged; lower sequence.learning_rate")
    return found[rows]


@torch.inference_mode()
def score_series(head: SeriesHead, seen: Iterable[Seen], device: torch.device) -> Iterator[NDArray[np.float32]]:
    """Yield the head's logits [T, L] of each series of T slices, in evaluation mode."""
    head.to(device).eval()
    arriving = iter(seen)
    while some := list(itertools.islice(arriving, SERIES_AT_ONCE)):
        batch = collate(some, device)
        logits = head(batch).float().cpu().numpy()
        yield from (logits[i, :length] for i, length in enumerate(batch.lengths.tolist()))
