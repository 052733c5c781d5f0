"""What evaluate prints: what was scored, what to beware of, and the scores where labels are known."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fl_rsna.imaging.rejections import MEANING, Reason
from fl_rsna.reading import read_csv, read_json
from fl_rsna.reporting.class_scores import class_lines
from fl_rsna.reporting.console import console
from fl_rsna.reporting.tables import UNKNOWN, interval
from fl_rsna.reporting.task_words import counted, plural
from fl_rsna.task import LabelKind, Task, TaskName, named_task

CARD = "scorecard.json"
EXAMS_SHOWN = 5


def say_evaluation(folder: Path) -> None:
    """Print an evaluation's folder; last, where it is."""
    record: dict[str, Any] = read_json(folder / "evaluation.json")
    task = named_task(TaskName(record.get("task", TaskName.ich)))  # older folders were of one task
    held = ((record["slices"], task.picture), (record["exams"], task.exam), (record["patients"], "patient"))
    what = ", ".join(counted(count, of) for count, of in held)
    console.print(
        f"scored {what}; {record['labelled_slices']} of {record['slices']} {plural(task.picture)} with labels",
        soft_wrap=True,
    )
    for reason, count in record["rejected"].items():
        console.print(f"rejected: {count} {reason}: {MEANING[Reason(reason)]}", soft_wrap=True)
    if record["guessed_in_submission"]:
        console.print(
            f"submission.csv gives {counted(len(record['guessed_in_submission']), 'rejected image')} the mean prediction",
            soft_wrap=True,
        )
    for warning in record["warnings"]:
        console.print(f"[yellow]beware: {escape(warning)}[/yellow]", soft_wrap=True)
    if (folder / CARD).exists():
        card = read_json(folder / CARD)
        for line in class_lines(card, task):
            console.print(line, soft_wrap=True, markup=False)
        console.print(_table(card, task))
    if record["shift"]:
        _say_shift(folder, record["shift"])
    for line in _exams(folder, record, task):
        console.print(escape(line), soft_wrap=True)
    console.print(f"everything: {folder}", soft_wrap=True)


def _say_shift(folder: Path, shift: dict[str, Any]) -> None:
    """How common labels seem to be here, which file assumes what, and how a federation would train for it."""
    table = Table(title="how common labels are: where the model learned, and here, estimated without labels")
    for name in ("label", "model", "here [95%]", "matched to"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, of in shift["prevalence"].items():
        known, to = "nothing to estimate it by", "read safely in both"
        if of["here"] is not None:
            doubt = "the end of what can be told" if of["low"] is None else f"{of['low']:.4f}, {of['high']:.4f}"
            known, to = f"{of['here']:.4f} [{doubt}]", f"{of['matched_to']:.4f}"
        table.add_row(label, "" if of["of_the_model"] is None else f"{of['of_the_model']:.4f}", escape(known), to)
    console.print(table)
    if shift["union_rule"]:
        console.print(escape(shift["union_rule"]), soft_wrap=True)
    for name, assumed in shift["assumes"].items():
        same = ", which is submission.csv" if name == "safe" else ""
        console.print(f"{name}: submission_{name}.csv{same}: assumes that {assumed}", soft_wrap=True)
        if (path := folder / f"scorecard_{name}.json").exists():
            found = read_json(path, keys={"log_loss": dict})["log_loss"]
            console.print(f"{name}: log loss {escape(interval(found))}", soft_wrap=True)
    if shift["words"]:
        console.print(f"to train for this prevalence: {escape(shift['words'])}", soft_wrap=True)


def say_ensemble(folder: Path) -> None:
    """Print the weights of an ensemble's models, and how much of its gain was only fitted."""
    record = read_json(folder / "ensemble.json")
    table = Table(title="weights of the models' logits")
    table.add_column("model")
    for label in record["weights"]:
        table.add_column(label, justify="right")
    for number, model in enumerate(record["models"]):
        table.add_row(escape(model["file"]), *(f"{shares[number]:.2f}" for shares in record["weights"].values()))
    console.print(table)
    if (fitted := record["fitted_on_validation"]) is None:
        console.print("weights are stated, not fitted: how good the ensemble is on validation images is not known")
        return
    each = ", ".join(f"{loss:.4f}" for loss in fitted["log_loss_of_each"])
    console.print(
        f"log loss on {counted(fitted['slices'], 'validation image')} of {counted(fitted['patients'], 'patient')}: models {each}; "
        f"ensemble {fitted['log_loss']:.4f} on what its weights were fitted on, {fitted['log_loss_cross_validated']:.4f} "
        "cross-validated over patients",
        soft_wrap=True,
    )


def say_submissions(folder: Path, task: Task, *, hashed: bool) -> None:
    """Where the submissions are that a run made, checked as Kaggle would; `hashed` ids of studies nobody there knows."""
    found = [path.name for path in sorted(folder.glob("submission*.csv"))]
    if task.kind is LabelKind.multi_class and hashed:
        console.print(
            "submissions name studies by their hashes: for Kaggle prepare with data.hash_ids=false", soft_wrap=True
        )
    if task.kind is LabelKind.multi_label and len(found) == 1:
        console.print("no safe and risky ones: the sites have too few positive exams to estimate how common labels are")
    names = ", ".join(found)
    console.print(f"submissions, each image and label once: {names} in {folder}", soft_wrap=True)


def _exams(folder: Path, record: dict[str, Any], task: Task) -> list[str]:
    """A line an exam, where they are few."""
    if record["exams"] > EXAMS_SHOWN:
        return []
    rows = read_csv(folder / "exams.csv", dtype={task.exam_key: str}).to_dict("records")
    return [
        f"{task.exam} {row[task.exam_key]}, {counted(int(row['slices']), task.picture)}: {_of_exam(row, record['headline'], task)}"
        for row in rows
    ]


def _of_exam(row: Mapping[Hashable, Any], headline: str, task: Task) -> str:
    """What a model says of one exam: of its headline label, or of every class."""
    match task.kind:
        case LabelKind.multi_label:
            independent = f"{row[f'noisy_or_{headline}']:.3f} if {plural(task.picture)} were independent"
            return f"{headline} {row[f'max_{headline}']:.3f} by its surest {task.picture}, {independent}"
        case LabelKind.multi_class:
            return ", ".join(f"{label} {row[f'mean_{label}']:.3f}" for label in task.labels)


def _table(card: dict[str, Any], task: Task) -> Table:
    """AUROC and average precision a label, of slices and, by their plainest aggregate, of exams."""
    log_loss, exams = card["log_loss"], plural(task.exam)
    table = Table(
        title=f"log loss {escape(interval(log_loss))}; 95% intervals over {counted(card['patients'], 'patient')}"
    )
    for name in ("label", "positive", "AUROC", "average precision", f"{exams} positive", f"AUROC of {exams}"):
        table.add_column(name, justify="left" if name == "label" else "right")
    by_exam: dict[str, Any] = next(iter(card["exam"].values()), {})
    for label, found in card["slice"].items():
        area, exam = found["auroc"], by_exam.get(label, {}).get("auroc")
        table.add_row(
            label,
            _of(area),
            escape(interval(area)),
            escape(interval(found["average_precision"])),
            _of(exam) if exam else "",
            escape(interval(exam)) if exam else "",
        )
    return table


def _of(estimate: dict[str, Any]) -> str:
    if estimate["positives"] is None:  # nobody annotates it there
        return UNKNOWN
    return f"{estimate['positives']} of {estimate['positives'] + estimate['negatives']}"
