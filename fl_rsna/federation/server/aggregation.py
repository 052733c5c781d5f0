"""Running sums over the replies of a round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.federation.rules.aggregate import RoundAggregate, Update
from fl_rsna.federation.rules.server_rules import NEEDS_EVERY_UPDATE, aggregation_weight, site_weight, steps_as_counted
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.choices import StrategyName
from fl_rsna.settings.config import StrategyConfig, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a usable reply brought."""

    model: FlatModel
    second: NDArray[np.float32] | None


class Sums:
    """One float64 vector, whatever the number of sites, unless the strategy needs every update.

    `stepped` is where the strategy steps, by default everywhere. FedNova's weights are for steps: what is no result of the
    round's steps, BatchNorm's statistics and what sites keep to themselves, is summed a second time, by p_i alone.
    """

    def __init__(
        self,
        start: NDArray[np.float32],
        strategy: StrategyConfig,
        train: TrainConfig,
        stepped: NDArray[np.bool_] | None = None,
    ) -> None:
        self._start, self._strategy, self._train = start, strategy, train
        self._total = np.zeros(start.size)
        self._second: NDArray[np.float64] | None = None
        self._weight, self._examples, self._work = 0.0, 0.0, 0.0
        self._updates: list[Update] = []
        apart = strategy.name is StrategyName.fednova and stepped is not None
        self._apart = np.flatnonzero(~stepped) if apart and stepped is not None else np.zeros(0, np.intp)
        self._rest = np.zeros(self._apart.size)
        self.count, self.integers = 0, None  # type: tuple[int, NDArray[np.int64] | None]

    def add(self, sent: Sent, metrics: dict[str, float]) -> None:
        p = site_weight(self._strategy, metrics["num-examples"])
        steps = steps_as_counted(self._train, metrics.get("steps", 1.0) or 1.0)
        weight = aggregation_weight(self._strategy, p, steps)
        add_scaled(self._total, sent.model.floats, weight)
        self._rest += p * sent.model.floats[self._apart].astype(np.float64)
        self._weight, self._examples, self._work = self._weight + weight, self._examples + p, self._work + p * steps
        self.count, self.integers = self.count + 1, sent.model.integers if self.integers is None else self.integers
        if sent.second is not None:
            self._second = np.zeros(sent.second.size) if self._second is None else self._second
            add_scaled(self._second, sent.second, 1.0)
        if self._strategy.name in NEEDS_EVERY_UPDATE:
            change = sent.model.floats - self._start
            self._updates.append(Update(change=change, examples=p, loss=metrics.get("loss", 0.0)))

    def aggregate(self) -> RoundAggregate:
        mean = divide_total(self._total, self._weight)
        mean[self._apart] = divide_total(self._rest, self._examples)
        return RoundAggregate(
            mean=mean,
            weight=self._weight,
            examples=self._examples,
            work=self._work,
            count=self.count,
            second=None if self._second is None else divide_total(self._second, self.count),
            updates=tuple(self._updates),
        )


PART = 131_072  # values at a time: what is worked on stays in the processor's cache


def add_scaled(total: NDArray[np.float64], values: NDArray[np.float32], weight: float) -> None:
    """total += weight * values, in float64."""
    product = np.empty(PART)
    for start in range(0, total.size, PART):
        part = total[start : start + PART]
        scaled = product[: part.size]
        scaled[...] = values[start : start + PART]
        scaled *= weight
        part += scaled


def divide_total(total: NDArray[np.float64], weight: float) -> NDArray[np.float32]:
    """total / weight, rounded once."""
    found = np.empty(total.size, np.float32)
    for start in range(0, total.size, PART):
        found[start : start + PART] = total[start : start + PART] / weight
    return found
