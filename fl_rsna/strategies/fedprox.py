"""FedProx: FedAvg with a proximal term that keeps each site's model near the global one (Li et al. 2020, arXiv:1812.06127)."""

from dataclasses import dataclass

from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, train_by_rule
from fl_rsna.learning.training.local_rule import list_trainable_parameters, proximal
from fl_rsna.settings.fields import NOT_NEGATIVE, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Memory, Strategy


@dataclass(kw_only=True, slots=True)
class FedProxConfig(StrategyConfig):
    name: str = declare_name("fedprox")
    mu: float = declare(0.01, "weight of the squared distance to the global model", within=NOT_NEGATIVE, off=(0,))


def train(model: nn.Module, round_: Round[FedProxConfig], remembered: Memory) -> SitePart:
    """Train with the proximal term; a site remembers nothing."""
    rule = proximal(list_trainable_parameters(model), round_.strategy.mu)
    return SitePart(result=train_by_rule(model, round_, rule), remembered={})


FEDPROX = Strategy(settings=FedProxConfig, title="FedProx", paper="Li et al. 2020, arXiv:1812.06127", train=train)
