"""BatchNorm's statistics of the final model, estimated for it at the sites.

A running statistic trails behind the weights it belongs to: it is a mean over the batches of a round in which the weights
moved, and the sites' mean is of models that none of them trained. The mean model gets its own at the end (precise
BatchNorm, Wu and Johnson 2021, arXiv:2105.07576); docs/gap.md has what it is worth.
"""

from dataclasses import replace

import numpy as np
from flwr.app import MessageType

from fl_rsna.choices import Norm, Precision, StrategyName, Trainable
from fl_rsna.federation.messages import instruct
from fl_rsna.federation.progress import Progress
from fl_rsna.federation.records import recorder
from fl_rsna.federation.replies import Asked, address, fold
from fl_rsna.federation.server_rules import ROBUST, Step, next_floats
from fl_rsna.federation.setting import Setting
from fl_rsna.learning.flat import FlatModel

PHASE = "recalibration"


def is_recalibrated(setting: Setting) -> bool:
    """Whether the final model gets statistics of its own: only where the sites train with them, and average them.

    A head over series has none, and its encoder keeps those it came with.
    """
    model, trains_all = setting.config.model, setting.config.train.trainable is Trainable.all
    return setting.encoder is None and model.recalibrate and model.norm is Norm.average and trains_all


def recalibrated(setting: Setting, progress: Progress, model: FlatModel) -> FlatModel:
    """`model` with the statistics that every site's training slices have under it, weighed as in training.

    A robust strategy takes them as it takes updates; no parameter changes. Counts bytes and failures. Raises BelowQuorum.

    It is written down as the round after the last, which a run that was killed at it plays again.
    """
    config, round_ = setting.config, progress.round + 1
    robust = config.strategy.name in ROBUST
    strategy = config.strategy if robust else replace(config.strategy, name=StrategyName.fedavg)
    told = replace(
        setting.told, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted), estimate=True, precision_up=Precision.fp32
    )  # fmt: skip
    messages, down = address(setting.sites, MessageType.TRAIN, model, instruct(told), round_)
    asked = Asked(
        sites=setting.sites, model=model, strategy=strategy, train=config.train, round=round_, bytes_down=down
    )
    arriving = setting.deliver(messages)
    folded, _, replies = fold(asked, arriving, recorder(setting.run, PHASE, round_))
    step = Step(
        strategy=strategy, rate=1.0, round=round_, x=model.floats, folded=folded, num_sites=len(setting.sites),
        stepped=setting.stepped, trained=setting.trained,
    )  # fmt: skip
    found, _ = next_floats(step, {})
    progress.bytes_down += sum(reply.bytes_down for reply in replies)
    progress.bytes_up += sum(reply.bytes_up for reply in replies)
    progress.failures += sum(bool(reply.error) for reply in replies)
    return FlatModel(np.where(setting.parameters, model.floats, found).astype(np.float32), model.integers)
