"""Ditto: FedAvg, and every site also trains a personal model that stays near the global one (Li et al. 2021, arXiv:2012.04221)."""

from dataclasses import dataclass, replace

from torch import nn

from fl_rsna.learning.models.flat import FlatModel, flatten, unflatten
from fl_rsna.learning.training.client_update import PERSONAL, Round, SitePart, train_by_rule
from fl_rsna.learning.training.local_rule import PLAIN, list_trainable_parameters, proximal, vector_of
from fl_rsna.learning.training.train import start_training
from fl_rsna.settings.fields import NOT_NEGATIVE, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Memory, Strategy


@dataclass(kw_only=True, slots=True)
class DittoConfig(StrategyConfig):
    name: str = declare_name("ditto")
    personal: float = declare(0.1, "pull of a site's own model towards the global one", within=NOT_NEGATIVE, off=(0,))


def train(model: nn.Module, round_: Round[DittoConfig], remembered: Memory) -> SitePart:
    """Train the shared model plainly, then the personal model v, which stays at the site (alg. 1).

    v is trained with the same batches on the loss plus personal/2 ||v - w_t||^2, where w_t is the global model as received.
    """
    received = flatten(model)
    centre = vector_of(list_trainable_parameters(model))
    first = replace(round_, on_batch=lambda done, of: round_.on_batch(done, 2 * of))
    result = train_by_rule(model, first, PLAIN)
    shared = flatten(model)
    unflatten(FlatModel(remembered.get(PERSONAL, received.floats), received.integers), model)
    start_training(model, round_.norm, round_.train, round_.device)
    second = replace(round_, on_batch=lambda done, of: round_.on_batch(of + done, 2 * of))
    train_by_rule(model, second, proximal(list_trainable_parameters(model), round_.strategy.personal, centre))
    personal = flatten(model).floats
    unflatten(shared, model)
    return SitePart(result=result, remembered={PERSONAL: personal})


DITTO = Strategy(
    settings=DittoConfig,
    title="Ditto",
    paper="Li et al. 2021, arXiv:2012.04221",
    train=train,
    at_site=1,
    keeps_model=True,
)
