"""q-FedAvg: sites with a high loss count more (Li et al. 2020, arXiv:1905.10497), by Flower's strategy with L = 1 / rate."""

from dataclasses import dataclass, replace
from typing import ClassVar

from flwr.serverapp.strategy import QFedAvg

from fl_rsna.settings.fields import NOT_NEGATIVE, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.flower import EXAMPLES, LOSS, of_every_update
from fl_rsna.strategies.strategy import Memory, Step, Strategy, Vector


@dataclass(kw_only=True, slots=True)
class QFedAvgConfig(StrategyConfig):
    takes_weights: ClassVar[bool] = False

    name: str = declare_name("qfedavg")
    q: float = declare(0.1, "0 is even-handed, more favours sites with a high loss", within=NOT_NEGATIVE, off=(0,))


def step_by_loss(step: Step[QFedAvgConfig], memory: Memory) -> tuple[Vector, Memory]:
    """Move the model by the sites' changes, weighted by their loss to the power q.

    The norms that divide the step are of shared parameters alone, as changes of running variances are larger by orders of magnitude.
    """
    updates = tuple(replace(update, change=update.change[step.stepped]) for update in step.aggregate.updates)
    rule = QFedAvg(client_learning_rate=step.rate, q=step.config.q, train_loss_key=LOSS, weighted_by_key=EXAMPLES)
    now = step.x.copy()
    now[step.stepped] += of_every_update(rule, step.round, updates)
    return now, memory


QFEDAVG = Strategy(
    settings=QFedAvgConfig,
    title="q-FedAvg",
    paper="Li et al. 2020, arXiv:1905.10497",
    next_model=step_by_loss,
    every_update=True,
)
