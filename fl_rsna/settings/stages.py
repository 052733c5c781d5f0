"""Settings of what is trained: the stages of a run, the head over series, the second model of stacking, and the baselines."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fl_rsna.settings.fields import (
    NOT_NEGATIVE,
    Asked,
    Need,
    Range,
    above,
    above_up_to,
    at_least,
    below,
    declare,
    from_to,
)


class Stage(StrEnum):
    """The model that a run trains: one of single slices, one of whole series on top of it, or both in turn."""

    slice = "slice"
    sequence = "sequence"  # a head over the series, on the features of an existing slice model
    both = "both"  # the slice model first, in <run>/slice, then the head on it
    stacking = "stacking"  # one slice model per fold, then a second model on their predictions for patients they were not trained on


class Baseline(StrEnum):
    """The training that a federation is compared with."""

    none = "none"  # no other training: the federation alone
    central = "central"  # all sites' data in one place: the upper bound
    local = "local"  # each site alone
    gap = "gap"  # the federation and both baselines, and the differences between them


class HeadName(StrEnum):
    """The network of the head, which sees the slices of a series in order."""

    gru = "gru"  # a bidirectional GRU
    transformer = "transformer"
    cnn = "cnn"  # convolutions over neighbouring slices


class Stacker(StrEnum):
    """The second model of stage=stacking."""

    xgboost = "xgboost"  # boosted trees, one set a label
    cnn = "cnn"  # convolutions over a series' logits, with the settings of `sequence`, trained like any network


class Boosting(StrEnum):
    """The federation of boosted trees, by Flower's strategy of the same name."""

    bagging = "bagging"  # a round adds one tree of every site, each with its share of the learning rate
    cyclic = "cyclic"  # a round adds one tree of one site; sites take turns


def most_rounds(config: Any) -> int:
    """Count the rounds of the longest stage of a run; `config` is the whole Config."""
    stage: Stage = config.stage
    of_slices: int = config.rounds
    of_head: int = config.sequence.rounds or of_slices
    match stage:
        case Stage.sequence:
            return of_head
        case Stage.both:
            return max(of_slices, of_head)
        case Stage.stacking:
            stacking: StackingConfig = config.stacking
            by_network = stacking.stacker is Stacker.cnn and config.sequence.rounds
            return max(of_slices, by_network or stacking.rounds)
        case Stage.slice:
            return of_slices


def trains_slices(asked: Asked) -> bool:
    """Say whether the run trains a model of slices."""
    return asked.config.stage is not Stage.sequence


def trains_head(asked: Asked) -> bool:
    """Say whether the run trains a head over series."""
    return asked.config.stage in (Stage.sequence, Stage.both)


def stacks(asked: Asked) -> bool:
    """Say whether the run trains by stacking."""
    return asked.config.stage is Stage.stacking


def boosts(asked: Asked) -> bool:
    """Say whether the second model of stacking is boosted trees."""
    return stacks(asked) and asked.config.stacking.stacker is Stacker.xgboost


SLICES = Need("a slice model to train: stage=slice, both or stacking", trains_slices)
HEAD = Need("stage=sequence or both", trains_head)
ALONG_SERIES = Need(
    "stage=sequence or both, or stacking.stacker=cnn",
    lambda asked: trains_head(asked) or (stacks(asked) and not boosts(asked)),
)
STACKING = Need("stage=stacking", stacks)
FOLDS = Need(
    "stage=stacking or stacking.left_out",
    lambda asked: stacks(asked) or asked.config.stacking.left_out is not None,
)
BOOSTED = Need("the trees of stage=stacking stacking.stacker=xgboost", boosts)
OWN_ROUNDS = Need(
    "sequence.rounds=null, which replaces it", lambda asked: boosts(asked) or asked.config.sequence.rounds is None
)
SEVERAL = Need(
    "several sites at once: baseline=none or gap",
    lambda asked: asked.config.baseline in (Baseline.none, Baseline.gap),
)
APART = Need("sites apart: baseline=none, local or gap", lambda asked: asked.config.baseline is not Baseline.central)
MULTIPLE_OF_8 = Range("a multiple of 8 from 8 to 1024", lambda value: value % 8 == 0 and 8 <= value <= 1024)


@dataclass(kw_only=True, slots=True)
class SequenceConfig:
    """Settings of the head over series, the stage after the slice model. All else of its training is set under `train`."""

    encoder: str | None = declare(None, "run folder or .safetensors file of the slice model; stage=both trains its own")
    head: HeadName = declare(HeadName.gru, "network of the head", needs=(HEAD,))
    width: int = declare(
        128, "number of features per slice inside the head", within=MULTIPLE_OF_8, needs=(ALONG_SERIES,)
    )
    layers: int = declare(2, "number of layers of the head", within=at_least(1), needs=(ALONG_SERIES,))
    dropout: float = declare(
        0.2, "share of the head's features that training drops", within=below(1), needs=(ALONG_SERIES,), off=(0,)
    )
    rounds: int | None = declare(
        None,
        "number of rounds of the head; null: as many as `rounds`",
        within=at_least(1).or_null(),
        needs=(ALONG_SERIES,),
    )
    learning_rate: float = declare(2e-3, "learning rate of the head", within=above(0), needs=(ALONG_SERIES,))
    local_epochs: int = declare(
        2, "number of passes over a site's series in a round", within=at_least(1), needs=(ALONG_SERIES,)
    )
    batch_size: int = declare(4, "number of series in a batch", within=at_least(1), needs=(ALONG_SERIES,))
    copies: int = declare(
        2,
        "number of copies of the training slices that are encoded: one unchanged, the others augmented",
        within=at_least(1),
        needs=(HEAD,),
        off=(1,),
    )


@dataclass(kw_only=True, slots=True)
class StackingConfig:
    """Settings of stage=stacking: slice models that each leave out one fold of every site's patients, and a second model on their predictions."""

    folds: int = declare(
        3,
        "number of folds of every site's training patients, and of slice models",
        within=from_to(2, 10),
        needs=(FOLDS,),
    )
    left_out: int | None = declare(
        None,
        "with stage=slice: the fold, from 0, that every site leaves out of training; null: none",
        within=NOT_NEGATIVE.or_null(),
    )
    stacker: Stacker = declare(Stacker.xgboost, "the second model", needs=(STACKING,))
    rounds: int = declare(40, "number of rounds of the second model", within=at_least(1), needs=(STACKING, OWN_ROUNDS))
    method: Boosting = declare(Boosting.bagging, "how trees are federated", needs=(BOOSTED,))
    learning_rate: float = declare(
        0.1, "learning rate of all trees of a round together", within=above_up_to(0, 1), needs=(BOOSTED,)
    )
    depth: int = declare(4, "largest depth of a tree", within=from_to(1, 8), needs=(BOOSTED,))
    min_child_weight: float = declare(
        1.0,
        "smallest sum of p (1 - p) over the slices of a leaf, p the predicted probability",
        within=NOT_NEGATIVE,
        needs=(BOOSTED,),
    )
    l2: float = declare(
        1.0, "L2 penalty: weight of the leaves' squared values in the loss", within=NOT_NEGATIVE, needs=(BOOSTED,)
    )
    rows: float = declare(
        0.8, "share of the site's slices that a tree is grown on", within=above_up_to(0, 1), needs=(BOOSTED,)
    )
    columns: float = declare(
        0.3, "share of the features that a tree is grown on", within=above_up_to(0, 1), needs=(BOOSTED,)
    )


def check_stacking(stacking: StackingConfig, stage: Stage) -> None:
    """Raise ValueError when stacking.left_out is not the number of a fold, or the stage is not stage=slice."""
    left_out = stacking.left_out
    if left_out is not None and left_out >= stacking.folds:
        raise ValueError(
            f"stacking.left_out: expected 0 to {stacking.folds - 1} of {stacking.folds} folds, got {left_out}"
        )
    if left_out is not None and stage is not Stage.slice:
        why = ", which leaves out every fold once" if stage is Stage.stacking else ": only a slice model leaves one out"
        raise ValueError(f"stacking.left_out: expected null with stage={stage}{why}, got {left_out}")
