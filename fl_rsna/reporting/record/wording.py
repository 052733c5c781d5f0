"""What a page calls an image and an exam of the run's task, and what it says of them."""

from fl_rsna.settings.stages import Baseline
from fl_rsna.task import MACRO, Rendering, Task


def task_words(task: Task) -> dict[str, str]:
    """One and several of either; what the controls measure, and what a model is to have learned to see."""
    match task.rendering:
        case Rendering.hounsfield:
            controls = "slice position and by mean brain HU"
        case Rendering.radiograph:
            controls = "view (PA or AP) and by mean grey"
    return {
        "picture": task.picture,
        "pictures": plural(task.picture),
        "exam": task.exam,
        "exams": plural(task.exam),
        "a_picture": with_article(task.picture),
        "controls": controls,
        "sought": task.finding,
    }


def run_title(task: Task, baseline: Baseline, sites: int) -> str:
    """What a run's model finds on what, and where it learned: the title of its page. `sites` is 0 where none has answered yet."""
    match baseline:
        case _ if not sites:
            return task.title
        case Baseline.central:
            return f"{task.title}, data of {format_count(sites, 'site')} pooled"
        case Baseline.local:
            return f"{task.title}, {format_count(sites, 'site')}, each alone"
        case _:
            return f"{task.title}, federated over {format_count(sites, 'site')}"


def label_in_words(task: Task, label: str) -> str:
    """A label as a reader says it: `any hemorrhage` for the union of all, others by their own name."""
    return f"{label} {task.condition}" if label == task.union else label


def area_name(label: str) -> str:
    """Whose AUROC: a label's, or of MACRO the mean over classes."""
    return "macro AUROC" if label == MACRO else f"AUROC {label}"


def area_title(label: str) -> str:
    """The same at the beginning of a title."""
    name = area_name(label)
    return name[0].upper() + name[1:]


def level_titles(task: Task) -> dict[str, str]:
    """The levels of a scorecard by their names in it."""
    words = task_words(task)
    exam = task.exam.capitalize()
    return {
        "slice": words["pictures"].capitalize(),
        "max": f"{exam} level (maximum)",
        "noisy_or": f"{exam} level (noisy-OR)",
        "mean": f"{exam} level (mean)",
    }


def plural(what: str) -> str:
    """`slices`, `studies`; `series` stays as it is."""
    if what.endswith("s"):
        return what
    return f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"


def with_article(what: str) -> str:
    """`a slice`, `an image`."""
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def format_count(number: int, what: str) -> str:
    """`1 slice`, `1,200 slices`; `series` stays as it is."""
    return f"{number:,} {what if number == 1 else plural(what)}"
