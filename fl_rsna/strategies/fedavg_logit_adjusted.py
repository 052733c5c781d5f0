"""FedAvg with logit adjustment between sites (Menon et al. 2021, arXiv:2007.07314).

During training, a site shifts its logits by the log odds of a finding at the site minus the log odds over all sites. The roll call
counts both.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fl_rsna.learning.training.client_update import Round, SitePart, train_by_rule
from fl_rsna.learning.training.local_rule import LocalRule
from fl_rsna.learning.training.sampling import compute_drawn_shares, positive_share
from fl_rsna.settings.fields import NOT_NEGATIVE, declare
from fl_rsna.settings.stages import SEVERAL
from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.settings.training import Correction, Sampling, TrainConfig
from fl_rsna.strategies.strategy import Memory, Strategy


@dataclass(kw_only=True, slots=True)
class LogitAdjustedConfig(StrategyConfig):
    name: str = declare_name("fedavg_logit_adjusted")
    adjustment: float = declare(
        1.0, "strength of the shift; 0 is FedAvg", within=NOT_NEGATIVE, needs=(SEVERAL,), off=(0,)
    )

    def check(self, train: TrainConfig) -> None:
        """Raise ValueError for weighted sampling without correction, which hides the sites' true shares of positives."""
        if train.sampling is Sampling.weighted and train.correction is Correction.none:
            raise ValueError(
                "train.correction: expected prior with weighted sampling and strategy=fedavg_logit_adjusted, which needs the "
                "sites' true shares of positives, got none"
            )


def prior_shift(site: torch.Tensor, everyone: torch.Tensor, strength: float) -> LocalRule:
    """Return the rule that adjusts logits (eq. 10) towards the prior of all sites together.

    In the loss, each label's logit gets `strength` (logit p_site - logit p_all) added, so the model itself need not learn how
    often its site has a finding. Where a finding is rarer than elsewhere, its negatives change the shared model less.
    `site` and `everyone` are shares of positive training slices [L], strictly between 0 and 1. With equal priors, or
    strength 0, nothing changes.
    """
    return LocalRule(logit_shift=(strength * (torch.logit(site) - torch.logit(everyone))).float())


def train(model: nn.Module, round_: Round[LogitAdjustedConfig], remembered: Memory) -> SitePart:
    """Train with logits shifted by the difference between the site's prior and that of all sites; a site remembers nothing."""
    rows = round_.data.rows("train")
    labels = round_.data.labels[rows]
    own = positive_share(np.nansum(labels, 0, dtype=np.float64), (~np.isnan(labels)).sum(0))
    everyone = np.array(round_.prior, np.float64)
    here, all_ = (
        torch.from_numpy(compute_drawn_shares(shares, round_.task, round_.kept)) for shares in (own, everyone)
    )
    rule = prior_shift(here, all_, round_.strategy.adjustment)
    return SitePart(result=train_by_rule(model, round_, rule), remembered={})


FEDAVG_LOGIT_ADJUSTED = Strategy(
    settings=LogitAdjustedConfig,
    title="FedAvg, logit-adjusted",
    paper="Menon et al. 2021, arXiv:2007.07314",
    train=train,
)
