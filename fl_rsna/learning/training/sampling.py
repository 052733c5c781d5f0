"""Which training slices a pass holds: all, a share of those without a finding, or rare labels more often."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.settings.training import Correction, Sampling, TrainConfig
from fl_rsna.task import Task

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """`draw` gives a pass's rows, `examples` of them; `odds` [N] is how often one holds a slice, where a loss corrects for it.

    `slices` is by how many a site counts in a mean with the others.
    """

    examples: int
    draw: Callable[[np.random.Generator], Rows]
    slices: int
    odds: NDArray[np.float32] | None = None


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
    """How passes over the training `rows` of a site with `labels` [N, L] are drawn.

    `kept` is the share of slices without the union label that train.sampling=under draws, `prior` each label's share of
    positive slices over all sites. What is drawn is decided by hard labels. A site that does not tell (`tells`) how many
    positive slices it has draws none, for the size of a pass would tell it.
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
    """All positive rows and, drawn anew, `kept` of the others; enough for two rows, of which BatchNorm can learn."""
    always, others = rows[positive], rows[~positive]
    count = max(round(kept * len(others)), min(2 - len(always), len(others)))

    def draw(order: np.random.Generator) -> Rows:
        return np.sort(np.concatenate([always, order.choice(others, count, replace=False)]))

    return Drawing(examples=len(always) + count, draw=draw, slices=len(always) + count)


def _in_weights(rows: Rows, positive: NDArray[np.bool_], kept: float, union: float, slices: int) -> Drawing:
    """All rows, of which the negative ones count `kept` each: the expected loss of `_under` from a pass of another size.

    The site counts by as many as it would draw if positive slices were as frequent with it as over all sites, `union`.
    """
    mean = np.where(positive, 1, kept).mean()
    odds = np.ones(slices, np.float32)
    odds[rows] = np.where(positive, mean, mean / kept)
    counted = max(1, round(len(rows) * (union + kept * (1 - union))))
    return Drawing(examples=len(rows), draw=lambda order: rows, slices=counted, odds=odds)


def _plan_by_rarity(rows: Rows, rare: NDArray[np.float64], slices: int, correction: Correction) -> Drawing:
    """As many rows as there are, with replacement, each with probability in proportion to how `rare` [len(rows)] it is."""
    chance = rare / rare.sum()
    odds = np.ones(slices, np.float32)
    odds[rows] = chance * len(rows)

    def draw(order: np.random.Generator) -> Rows:
        return np.sort(order.choice(rows, len(rows), p=chance))

    corrected = odds if correction is Correction.prior else None
    return Drawing(examples=len(rows), draw=draw, slices=len(rows), odds=corrected)


def rarity(labels: NDArray[np.float32], task: Task, prior: tuple[float, ...]) -> NDArray[np.float64]:
    """How rare each slice of [N, L] is: of its labels the largest 1/sqrt(share of positive slices over all sites), [N].

    The repeat factors of Gupta et al. 2019 (arXiv:1908.03195, section 5.1) without their threshold. A slice without a
    label is of the kind that has none, whose share is what the union label leaves. An unknown label is none.
    """
    shares = np.array(prior, np.float64)
    empty = 1 - shares[task.labels.index(task.union)] if task.union else 1.0
    of_labels = np.where(labels > 0, 1 / np.sqrt(shares), 0).max(axis=1)
    found: NDArray[np.float64] = np.where(of_labels > 0, of_labels, 1 / np.sqrt(empty))
    return found


def compute_kept_share(positives: int, slices: int, wanted: float) -> float:
    """The share of negative slices to keep so that `wanted` of them come to a positive one; 1 when there are too few."""
    return min(1.0, wanted * positives / (slices - positives)) if slices > positives else 1.0


def compute_drawn_shares(shares: NDArray[np.float64], task: Task, kept: float) -> NDArray[np.float64]:
    """Shares of positive slices [L] among those that under-sampling draws, from those among all."""
    if kept == 1 or task.union is None:
        return shares
    union = shares[task.labels.index(task.union)]
    drawn: NDArray[np.float64] = shares / (union + kept * (1 - union))
    return drawn


def positive_share(positives: NDArray[np.float64], slices: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of positive slices a label, with half a slice added to either side so that 0 and 1 stay finite in logits."""
    return (positives + 0.5) / (slices + 1)
