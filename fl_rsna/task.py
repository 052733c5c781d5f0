"""What is learned: the one record every room reads instead of assuming six labels or Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class LabelKind(StrEnum):
    """How the labels of one image relate to each other."""

    multi_label = "multi_label"  # any number of labels at once: one sigmoid each
    multi_class = "multi_class"  # exactly one label: a softmax over all


class Rendering(StrEnum):
    """What a stored pixel value means before it is cut to 8 or 16 bits."""

    hounsfield = "hounsfield"


class TaskName(StrEnum):
    """The tasks a user may ask for with `data.task=`."""

    ich = "ich"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A learning task, independent of any data set.

    `labels` are in the order of every label vector, logit and table column. `union` names the label that must
    equal the OR of all others, or is None. `headline` is the label whose AUROC is quoted first. `group_key` is
    the index column that no two splits may share.
    """

    name: str
    labels: tuple[str, ...]
    kind: LabelKind
    label_weights: tuple[float, ...]
    union: str | None
    headline: str
    rendering: Rendering
    modality: str
    group_key: str

    def __post_init__(self) -> None:
        assert len(self.labels) == len(self.label_weights) == len(set(self.labels))
        assert self.headline in self.labels
        assert self.union is None or self.union in self.labels

    @property
    def specific_labels(self) -> tuple[str, ...]:
        """Labels other than the union: the ones a patient's rarest label is chosen from."""
        return tuple(label for label in self.labels if label != self.union)


ICH = Task(
    name="ich",
    labels=("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"),
    kind=LabelKind.multi_label,
    label_weights=(2.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    union="any",
    headline="any",
    rendering=Rendering.hounsfield,
    modality="CT",
    group_key="patient_id",
)


def annotated_part(task: Task, unannotated: Sequence[str]) -> Task:
    """The task as a site knows it that does not annotate some of its labels; they must leave one."""
    kept = [place for place, label in enumerate(task.labels) if label not in unannotated]
    labels = tuple(task.labels[place] for place in kept)
    return replace(
        task,
        labels=labels,
        label_weights=tuple(task.label_weights[place] for place in kept),
        union=task.union if task.union in labels else None,
        headline=task.headline if task.headline in labels else labels[0],
    )


def named_task(name: TaskName) -> Task:
    """The task a setting names."""
    match name:
        case TaskName.ich:
            return ICH
