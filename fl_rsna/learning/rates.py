"""Layer-wise learning rates: the earlier a layer, the more general what it has learned already, and the slower it moves.

Discriminative fine-tuning (Howard and Ruder 2018, arXiv:1801.06146, section 3.2), by stages.
"""

from typing import Any

from torch import nn

from fl_rsna.learning.backbone import stages_below_head
from fl_rsna.learning.model import Classifier

Groups = list[nn.Parameter] | list[dict[str, Any]]


def layer_rates(model: nn.Module, trained: list[nn.Parameter], rate: float, decay: float) -> Groups:
    """What an optimizer takes: `trained` as they are, or by stages, each `decay` times as fast as the one above it.

    The last layer has `rate`; a learned window, below the first stage, the lowest. Only steps change: gradients, and
    so what a strategy adds to them, keep their order and size.
    """
    if decay == 1:
        return trained
    assert isinstance(model, Classifier)
    below = {f"backbone.{name}": stage for name, stage in stages_below_head(model.backbone).items()}
    lowest = 1 + max(below.values())
    stage_of = {id(value): below.get(name, lowest) for name, value in model.named_parameters()}
    stages = sorted({stage_of[id(parameter)] for parameter in trained})
    return [
        {"params": [value for value in trained if stage_of[id(value)] == stage], "lr": rate * decay**stage}
        for stage in stages
    ]
