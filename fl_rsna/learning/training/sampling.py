"""Choose the training slices of a pass: all, a share of those without a finding, or rare labels more often."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.settings.training import Correction, Sampling, TrainConfig
from fl_rsna.task import Task

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the rows of a pass over a site's training slices are drawn."""

    examples: int  # rows of a pass
    draw: Callable[[np.random.Generator], Rows]  # returns the rows of one pass
    slices: int  # the site's weight in a mean over sites
    odds: NDArray[np.float32] | None = None  # [N], expected draws of a slice in a pass, for the loss to correct


def plan_draws(
    config: TrainConfig,
    rows: Rows,
    labels: NDArray[np.float32],
    task: Task,
    *,
    kept: float,
    prior: tuple[float, ...],
    tells: bool = True,
) -> Drawing:
    """Plan how passes over the training `rows` of a site with `labels` [N, L] are drawn.

    `kept` is the share of slices without the union label that train.sampling=under draws, `prior` each label's share of
    positive slices over all sites. Hard labels decide what is drawn. With `tells` false, a site keeps its number of positive
    slices to itself. As the size of a pass would reveal it, train.sampling=under then weights all slices and draws none. Raises
    ValueError when train.sampling=under meets a slice without the union label.
    """
    match config.sampling:
        case Sampling.all:
            return Drawing(examples=len(rows), draw=lambda order: rows, slices=len(rows))
        case Sampling.under:
            assert task.union is not None
            union = task.labels.index(task.union)
            if np.isnan(labels[rows, union]).any():
                raise ValueError(
                    f"train.sampling: under draws by {task.union}, which not every slice has; say weighted or all"
                )
            positive = labels[rows, union] > 0
            return (
                _under(rows, positive, kept) if tells else _in_weights(rows, positive, kept, prior[union], len(labels))
            )
        case Sampling.weighted:
            return _plan_by_rarity(rows, rarity(labels[rows], task, prior), len(labels), config.correction)


def _under(rows: Rows, positive: NDArray[np.bool_], kept: float) -> Drawing:
    """Draw all positive rows and the share `kept` of the others, again for each pass; at least two rows, as BatchNorm needs."""
    always, others = rows[positive], rows[~positive]
    count = max(round(kept * len(others)), min(2 - len(always), len(others)))

    def draw(order: np.random.Generator) -> Rows:
        return np.sort(np.concatenate([always, order.choice(others, count, replace=False)]))

    return Drawing(examples=len(always) + count, draw=draw, slices=len(always) + count)


def _in_weights(rows: Rows, positive: NDArray[np.bool_], kept: float, union: float, slices: int) -> Drawing:
    """Draw all rows and let each negative row count `kept`: the expected loss of `_under`, from a pass of another size.

    The site's weight among sites is the number of slices that it would draw if its share of positive slices were `union`, that of
    all sites.
    """
    mean = np.where(positive, 1, kept).mean()
    odds = np.ones(slices, np.float32)
    odds[rows] = np.where(positive, mean, mean / kept)
    counted = max(1, round(len(rows) * (union + kept * (1 - union))))
    return Drawing(examples=len(rows), draw=lambda order: rows, slices=counted, odds=odds)


def _plan_by_rarity(rows: Rows, rare: NDArray[np.float64], slices: int, correction: Correction) -> Drawing:
    """Draw len(rows) rows with replacement, each with probability in proportion to its rarity `rare` [len(rows)]."""
    chance = rare / rare.sum()
    odds = np.ones(slices, np.float32)
    odds[rows] = chance * len(rows)

    def draw(order: np.random.Generator) -> Rows:
        return np.sort(order.choice(rows, len(rows), p=chance))

    corrected = odds if correction is Correction.prior else None
    return Drawing(examples=len(rows), draw=draw, slices=len(rows), odds=corrected)


def rarity(labels: NDArray[np.float32], task: Task, prior: tuple[float, ...]) -> NDArray[np.float64]:
    """Compute the rarity [N] of each slice: the largest 1/sqrt(share of positive slices over all sites) among its labels.

    These are the repeat factors of Gupta et al. 2019 (arXiv:1908.03195, section 5.1) without their threshold. For a slice without
    a positive label, the share is that of slices without the union label. An unknown label counts as negative.
    """
    shares = np.array(prior, np.float64)
    empty = 1 - shares[task.labels.index(task.union)] if task.union else 1.0
    of_labels = np.where(labels > 0, 1 / np.sqrt(shares), 0).max(axis=1)
    found: NDArray[np.float64] = np.where(of_labels > 0, of_labels, 1 / np.sqrt(empty))
    return found


def compute_kept_share(positives: int, slices: int, wanted: float) -> float:
    """Return the share of negative slices to keep for `wanted` negatives to one positive; 1 when there are too few negatives."""
    return min(1.0, wanted * positives / (slices - positives)) if slices > positives else 1.0


def compute_drawn_shares(shares: NDArray[np.float64], task: Task, kept: float) -> NDArray[np.float64]:
    """Convert shares of positive slices [L] among all slices to shares among the slices that under-sampling draws."""
    if kept == 1 or task.union is None:
        return shares
    union = shares[task.labels.index(task.union)]
    drawn: NDArray[np.float64] = shares / (union + kept * (1 - union))
    return drawn


def positive_share(positives: NDArray[np.float64], slices: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each label's share of positive slices, (positives + 0.5) / (slices + 1), whose logit is always finite."""
    return (positives + 0.5) / (slices + 1)
