"""Strategies that tolerate some faulty sites: FedMedian, FedTrimmedAvg, Krum, MultiKrum and Bulyan, by Flower's strategies.

FedMedian and FedTrimmedAvg (Yin et al. 2018, arXiv:1803.01498) work on each coordinate alone. Krum and MultiKrum (Blanchard et al. 2017,
arXiv:1703.02757) take the sites nearest to their n - f - 2 neighbours. Bulyan is by El Mhamdi et al. 2018 (arXiv:1802.07927).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fl_rsna.settings.fields import NOT_NEGATIVE, at_least, below, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.flower import EXAMPLES, of_every_update
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector, need_one

YIN, BLANCHARD = "Yin et al. 2018, arXiv:1803.01498", "Blanchard et al. 2017, arXiv:1703.02757"
C = TypeVar("C", bound=StrategyConfig)


@dataclass(kw_only=True, slots=True)
class FedMedianConfig(StrategyConfig):
    takes_weights: ClassVar[bool] = False
    takes_step: ClassVar[bool] = False

    name: str = declare_name("fedmedian")


@dataclass(kw_only=True, slots=True)
class FedTrimmedAvgConfig(FedMedianConfig):
    name: str = declare_name("fedtrimmedavg")
    trim: float = declare(0.2, "share of the sites cut off at each end", within=below(0.5), off=(0,))


@dataclass(kw_only=True, slots=True)
class KrumConfig(FedMedianConfig):
    name: str = declare_name("krum")
    malicious: int = declare(1, "sites at most that may send anything", within=NOT_NEGATIVE, off=(0,))


@dataclass(kw_only=True, slots=True)
class MultiKrumConfig(KrumConfig):
    name: str = declare_name("multikrum")
    chosen: int = declare(2, "sites averaged", within=at_least(1))


@dataclass(kw_only=True, slots=True)
class BulyanConfig(KrumConfig):
    name: str = declare_name("bulyan")


def _make_robust(
    settings: type[C],
    title: str,
    paper: str,
    make: Callable[[C], FlowerStrategy],
    fewest: Callable[[C], int] = need_one,
) -> Strategy[C]:
    """Return a strategy whose next model is x plus what Flower's strategy, made by `make`, computes from the sites' changes."""

    def step_robustly(step: Step[C], memory: Memory) -> tuple[Vector, Memory]:
        change = of_every_update(make(step.config), step.round, step.aggregate.updates)
        if step.rate != 1:  # the server's rate scales changes of parameters, not of running statistics
            change = np.where(step.stepped, np.float32(step.rate), np.float32(1)) * change
        return step.x + change, memory

    return Strategy(
        settings=settings,
        title=title,
        paper=paper,
        next_model=step_robustly,
        every_update=True,
        robust=True,
        fewest_sites=fewest,
    )


FEDMEDIAN = _make_robust(FedMedianConfig, "FedMedian", YIN, lambda config: FedMedian(weighted_by_key=EXAMPLES))
FEDTRIMMEDAVG = _make_robust(
    FedTrimmedAvgConfig,
    "FedTrimmedAvg",
    YIN,
    lambda config: FedTrimmedAvg(weighted_by_key=EXAMPLES, beta=config.trim),
)
KRUM = _make_robust(
    KrumConfig,
    "Krum",
    BLANCHARD,
    lambda config: Krum(weighted_by_key=EXAMPLES, num_malicious_nodes=config.malicious),
    lambda config: 2 * config.malicious + 3,
)
MULTIKRUM = _make_robust(
    MultiKrumConfig,
    "MultiKrum",
    BLANCHARD,
    lambda config: MultiKrum(
        weighted_by_key=EXAMPLES, num_malicious_nodes=config.malicious, num_nodes_to_select=config.chosen
    ),
    lambda config: max(2 * config.malicious + 3, config.chosen),
)
BULYAN = _make_robust(
    BulyanConfig,
    "Bulyan",
    "El Mhamdi et al. 2018, arXiv:1802.07927",
    lambda config: Bulyan(weighted_by_key=EXAMPLES, num_malicious_nodes=config.malicious),
    lambda config: 4 * config.malicious + 3,
)
