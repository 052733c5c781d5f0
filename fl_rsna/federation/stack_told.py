"""What a site is told of a network that stacks: whose predictions it is on, and its shape."""

from dataclasses import dataclass

from fl_rsna.choices import HeadName
from fl_rsna.learning.sequence import HeadShape
from fl_rsna.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class StackTold:
    """Plain values, for they travel as JSON."""

    runs: tuple[str, ...]  # of the folds
    width: int
    layers: int
    dropout: float


def stack_shape(told: StackTold, task: Task) -> HeadShape:
    return HeadShape(
        head=HeadName.cnn,
        width=told.width,
        layers=told.layers,
        dropout=told.dropout,
        features=1,
        labels=len(task.labels),
    )
