"""What evaluate prints: what was scored, what to beware of, and the scores where labels are known."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from fl_rsna.imaging.rejections import MEANING, Reason
from fl_rsna.reporting.console import console
from fl_rsna.reporting.sheets import counted
from fl_rsna.reporting.tables import UNKNOWN, interval

CARD = "scorecard.json"
EXAMS_SHOWN = 5


def say_evaluation(folder: Path) -> None:
    """Print an evaluation's folder; last, where it is."""
    record: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    what = ", ".join(
        (counted(record["slices"], "slice"), counted(record["exams"], "exam"), counted(record["patients"], "patient"))
    )
    console.print(f"scored {what}; {record['labelled_slices']} slices with labels", soft_wrap=True)
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
        console.print(_table(json.loads((folder / CARD).read_text())))
    if record["shift"]:
        _say_shift(folder, record["shift"])
    for line in _exams(folder, record):
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
            known, to = f"{of['here']:.4f} [{of['low']:.4f}, {of['high']:.4f}]", f"{of['matched_to']:.4f}"
        table.add_row(label, "" if of["of_the_model"] is None else f"{of['of_the_model']:.4f}", escape(known), to)
    console.print(table)
    for name, assumed in shift["assumes"].items():
        same = ", which is submission.csv" if name == "safe" else ""
        console.print(f"{name}: submission_{name}.csv{same}: assumes that {assumed}", soft_wrap=True)
        if (path := folder / f"scorecard_{name}.json").exists():
            found = json.loads(path.read_text())["log_loss"]
            console.print(f"{name}: log loss {escape(interval(found))}", soft_wrap=True)
    if shift["words"]:
        console.print(f"to train for this prevalence: {escape(shift['words'])}", soft_wrap=True)


def say_ensemble(folder: Path) -> None:
    """Print the weights of an ensemble's models, and how much of its gain was only fitted."""
    record = json.loads((folder / "ensemble.json").read_text())
    table = Table(title="weights of the models' logits")
    table.add_column("model")
    for label in record["weights"]:
        table.add_column(label, justify="right")
    for number, model in enumerate(record["models"]):
        table.add_row(escape(model["file"]), *(f"{shares[number]:.2f}" for shares in record["weights"].values()))
    console.print(table)
    if (fitted := record["fitted_on_validation"]) is None:
        console.print("weights are stated, not fitted: how good the ensemble is on validation slices is not known")
        return
    each = ", ".join(f"{loss:.4f}" for loss in fitted["log_loss_of_each"])
    console.print(
        f"log loss on {counted(fitted['slices'], 'validation slice')} of {counted(fitted['patients'], 'patient')}: models {each}; "
        f"ensemble {fitted['log_loss']:.4f} on what its weights were fitted on, {fitted['log_loss_cross_validated']:.4f} "
        "cross-validated over patients",
        soft_wrap=True,
    )


def say_submissions(folder: Path) -> None:
    """Where the submissions are that a run made, checked as Kaggle would."""
    found = [path.name for path in sorted(folder.glob("submission*.csv"))]
    if len(found) == 1:
        console.print("no safe and risky ones: the sites have too few positive exams to estimate how common labels are")
    names = ", ".join(found)
    console.print(f"submissions, each image and label once: {names} in {folder}", soft_wrap=True)


def _exams(folder: Path, record: dict[str, Any]) -> list[str]:
    """A line an exam, where they are few."""
    if record["exams"] > EXAMS_SHOWN:
        return []
    headline = record["headline"]
    rows = pd.read_csv(folder / "exams.csv", dtype={"series_id": str}).to_dict("records")
    return [
        f"exam {row['series_id']}, {counted(int(row['slices']), 'slice')}: {headline} {row[f'max_{headline}']:.3f} by its surest slice, "
        f"{row[f'noisy_or_{headline}']:.3f} if slices were independent"
        for row in rows
    ]


def _table(card: dict[str, Any]) -> Table:
    """AUROC and average precision a label, of slices and, by their greatest probability, of exams."""
    log_loss = card["log_loss"]
    table = Table(
        title=f"log loss {escape(interval(log_loss))}; 95% intervals over {counted(card['patients'], 'patient')}"
    )
    for name in ("label", "positive", "AUROC", "average precision", "exams positive", "AUROC of exams"):
        table.add_column(name, justify="left" if name == "label" else "right")
    exams = card["exam"].get("max", {})
    for label, found in card["slice"].items():
        area, exam = found["auroc"], exams.get(label, {}).get("auroc")
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
