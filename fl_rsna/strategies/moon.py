"""MOON: a contrastive loss keeps features near the global model's and away from the site's last model's (Li et al. 2021, arXiv:2103.16257)."""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from fl_rsna.learning.models.flat import FlatModel, flatten, unflatten
from fl_rsna.learning.training.client_update import Round, SitePart, train_by_rule
from fl_rsna.learning.training.local_rule import PLAIN, LocalRule, frozen_copy
from fl_rsna.settings.fields import NOT_NEGATIVE, above, declare
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Memory, Strategy

PREVIOUS = "previous"  # name under which a site remembers the model it made last


@dataclass(kw_only=True, slots=True)
class MoonConfig(StrategyConfig):
    name: str = declare_name("moon")
    mu: float = declare(1.0, "weight of the contrastive loss", within=NOT_NEGATIVE, off=(0,))
    temperature: float = declare(0.5, "temperature that similarities are divided by", within=above(0))


def contrastive(received: nn.Module, previous: nn.Module, *, mu: float, temperature: float) -> LocalRule:
    """Return the rule that adds mu times -log(e^s(z, z_glob) / (e^s(z, z_glob) + e^s(z, z_prev))) to the loss (eq. 3).

    s is the cosine of two features divided by the temperature. Features are those before dropout and the last layer: z of the
    model in training, z_glob of the global model as received, and z_prev of the site's own last model. `received` and
    `previous` are in evaluation mode and have a method `features` that takes the model's input.
    """
    towards_of, away_of = cast(Any, received).features, cast(Any, previous).features

    def penalty(given: Any, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            towards, away = towards_of(given), away_of(given)
        near, far = (F.cosine_similarity(features, other, dim=1) / temperature for other in (towards, away))
        return mu * F.softplus(far - near).mean()

    return LocalRule(penalty=penalty)


def train(model: nn.Module, round_: Round[MoonConfig], remembered: Memory) -> SitePart:
    """Train with the contrastive loss; a site that takes part for the first time has no last model and trains plainly."""
    rule, config = PLAIN, round_.strategy
    if PREVIOUS in remembered:
        received, previous = frozen_copy(model), frozen_copy(model)
        unflatten(FlatModel(remembered[PREVIOUS], flatten(model).integers), previous)
        rule = contrastive(received, previous, mu=config.mu, temperature=config.temperature)
    result = train_by_rule(model, round_, rule)
    return SitePart(result=result, remembered={PREVIOUS: flatten(model).floats})


MOON = Strategy(settings=MoonConfig, title="MOON", paper="Li et al. 2021, arXiv:2103.16257", train=train, at_site=1)
