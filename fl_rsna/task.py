"""Define the learning tasks: every room reads this record instead of assuming six labels or Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fl_rsna.common.plugins import TASKS, find_plugin, find_plugins

MACRO = "macro"  # the name of the mean over classes among the figures of single classes


class LabelKind(StrEnum):
    """The relation between the labels of one image."""

    multi_label = "multi_label"  # any number of labels at once: one sigmoid each
    multi_class = "multi_class"  # exactly one label: a softmax over all


class Rendering(StrEnum):
    """The meaning of a pixel value before it is cut to 8 or 16 bits."""

    hounsfield = "hounsfield"  # Hounsfield units, the same number for the same tissue on every scanner
    radiograph = "radiograph"  # grey values with the film's own windows applied; white is dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A learning task, independent of any data set. Another package may add one by the entry point `fl_rsna.tasks`.

    `labels` are in the order of every label vector, logit and table column; `published` are the same labels as the
    tables of the field name them. `union` names the label that must equal the OR of all others, or is None. `headline` is
    the label whose AUROC is quoted first. `modalities` are the values of DICOM's Modality that it takes. `group_key` is the
    index column that no two splits may share, `exam_key` the one whose images are judged together. `demo` is the name
    of the synthetic cohort that stands in for data. `picture` and `exam` are the words for one image and one exam, `finding` for
    the sign of disease and `body` for where it is. `title` says what is found on what, and `condition` is what an exam with the
    headline label has.
    """

    name: str
    labels: tuple[str, ...]
    published: tuple[str, ...]
    kind: LabelKind
    label_weights: tuple[float, ...]
    union: str | None
    headline: str
    rendering: Rendering
    modalities: tuple[str, ...]
    group_key: str
    exam_key: str
    demo: str
    picture: str
    exam: str
    finding: str
    body: str
    title: str
    condition: str

    def __post_init__(self) -> None:
        assert len(self.labels) == len(self.label_weights) == len(set(self.labels)) == len(self.published)
        assert self.headline in self.labels
        assert self.union is None or self.union in self.labels

    @property
    def primary_label(self) -> str:
        """Return the label whose AUROC judges a model: the headline label, or MACRO, the mean over classes, for a task of classes."""
        return MACRO if self.kind is LabelKind.multi_class else self.headline

    @property
    def specific_labels(self) -> tuple[str, ...]:
        """Return the labels other than the union; a patient's rarest label is chosen from them."""
        return tuple(label for label in self.labels if label != self.union)


_SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
ICH = Task(
    name="ich",
    labels=("any", *_SUBTYPES),
    published=("any", *_SUBTYPES),
    kind=LabelKind.multi_label,
    label_weights=(2.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    union="any",
    headline="any",
    rendering=Rendering.hounsfield,
    modalities=("CT",),
    group_key="patient_id",
    exam_key="series_id",
    demo="demo",
    picture="slice",
    exam="exam",
    finding="blood",
    body="head",
    title="Intracranial hemorrhage on head CT",
    condition="hemorrhage",
)

COVID_CXR = Task(  # the study classes of SIIM-FISABIO-RSNA COVID-19 (Litmanovich et al. 2020, J Thorac Imaging 35:354)
    name="covid_cxr",
    labels=("negative", "typical", "indeterminate", "atypical"),
    published=("Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"),
    kind=LabelKind.multi_class,
    label_weights=(1.0, 1.0, 1.0, 1.0),
    union=None,
    headline="typical",
    rendering=Rendering.radiograph,
    modalities=("DX", "CR"),
    group_key="patient_id",
    exam_key="study_id",
    demo="demo_cxr",
    picture="image",
    exam="study",
    finding="opacity",
    body="film",
    title="COVID-19 on chest radiographs",
    condition="typical COVID-19 pneumonia",
)


def restrict_task(task: Task, unannotated: Sequence[str]) -> Task:
    """Remove the labels that a site does not annotate from the task; at least one must remain."""
    kept = [place for place, label in enumerate(task.labels) if label not in unannotated]
    labels = tuple(task.labels[place] for place in kept)
    return replace(
        task,
        labels=labels,
        published=tuple(task.published[place] for place in kept),
        label_weights=tuple(task.label_weights[place] for place in kept),
        union=task.union if task.union in labels else None,
        headline=task.headline if task.headline in labels else labels[0],
    )


OURS = {task.name: task for task in (ICH, COVID_CXR)}


def list_tasks() -> list[str]:
    """List the names that `task=` takes: fl_rsna's own tasks and those of other installed packages."""
    return [*OURS, *sorted(set(find_plugins(TASKS)) - set(OURS))]


def find_task(name: object) -> Task:
    """Find the task of that name; raises ValueError when there is none."""
    ours = OURS.get(str(name))
    plugin = find_plugin(TASKS, str(name), "data.task", is_ours=ours is not None)
    if ours is not None:
        return ours
    if plugin is None:
        raise ValueError(f"data.task: expected one of {', '.join(list_tasks())}, got {name!r}; choose one of them")
    task = plugin.load()
    if not isinstance(task, Task) or task.name != name:
        raise ValueError(f"data.task: expected a Task called {name} in {plugin.package}, got another; ask its authors")
    return task
