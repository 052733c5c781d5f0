"""What a site is told of the second stage, beside what it is told in either: which features, which head, which blend."""

from dataclasses import dataclass, replace

from fl_rsna.choices import HeadName, Sampling, Trainable
from fl_rsna.config import Config, SequenceConfig, TrainConfig
from fl_rsna.learning.encoded import Views, views_of
from fl_rsna.learning.sequence import HeadShape
from fl_rsna.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceTold:
    """Plain values, for they travel as JSON."""

    encoder_id: str
    encoder_layout: str  # hash of the encoder's layout
    copies: int
    features: int  # numbers a slice
    head: HeadName
    width: int
    layers: int
    dropout: float
    weights: tuple[float, ...] = ()  # of the head in the final blend, a label; without them it is scored alone


def sequence_told(config: SequenceConfig, encoder_id: str, layout: str, features: int) -> SequenceTold:
    return SequenceTold(
        encoder_id=encoder_id,
        encoder_layout=layout,
        copies=config.copies,
        features=features,
        head=config.head,
        width=config.width,
        layers=config.layers,
        dropout=config.dropout,
    )


def shape_of(told: SequenceTold, task: Task) -> HeadShape:
    return HeadShape(
        head=told.head,
        width=told.width,
        layers=told.layers,
        dropout=told.dropout,
        features=told.features,
        labels=len(task.labels),
    )


def views_told(told: SequenceTold, train: TrainConfig) -> Views:
    """The features a site has, or is to make."""
    return views_of(told.encoder_id, told.copies, train)


def head_training(config: Config) -> TrainConfig:
    """How a head over series trains: as `sequence` says, without what only a slice model's training has."""
    own = config.sequence
    return replace(
        config.train,
        trainable=Trainable.all,
        local_epochs=own.local_epochs,
        local_steps=None,
        batch_size=own.batch_size,
        sampling=Sampling.all,
        mixup=0.0,
        layer_decay=1.0,
        learning_rate=own.learning_rate,
    )
