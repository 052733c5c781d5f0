"""Write evaluation.html: the page of new scans that a model scored, for the radiologist who reads them.

The page is a worklist of exams by falling probability, strips of the first exams, and, where labels are known, the sections of a run's
report on scores. All but the images is read from the files of the evaluation's folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.common.reading import read_csv, read_json
from fl_rsna.learning.metrics.exams import aggregates
from fl_rsna.learning.metrics.scorecard import HeldOutFigures, ScorecardFigures
from fl_rsna.reporting.images.exam_strips import ExamStrip
from fl_rsna.reporting.pages.data_pages import RejectReason, reject_reasons, render_page, write_page
from fl_rsna.reporting.pages.run_page import interactive
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.quoted_point import choose_quoted
from fl_rsna.reporting.record.run_record import ScoredRecord
from fl_rsna.reporting.record.wording import format_count, label_in_words, plural, task_words
from fl_rsna.reporting.sections.calibration import build_calibration
from fl_rsna.reporting.sections.classes import build_classes
from fl_rsna.reporting.sections.discrimination import build_discrimination
from fl_rsna.reporting.sections.points import build_points
from fl_rsna.reporting.sections.scorecard import POINTS, build_scores
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.summary import ChosenPoints
from fl_rsna.task import LabelKind, Rendering, Task, find_task

EVALUATION, PAGE = "evaluation.json", "evaluation.html"
MOST_ROWS = 500  # of the worklist
FILES = {
    "exams.csv": "a row an {exam}: probabilities of every label, by each way to join the {pictures} of an {exam}",
    "predictions.csv": "a row a {picture}: probabilities, and whether it is at or above each threshold",
    "rejected.csv": "the files that gave no {picture}, and why",
    "evaluation.json": "what was done, with which model",
    "scorecard.json": "every score, where labels are known",
    "ensemble.json": "the models and their weights",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """An evaluation's scores, as the sections on scores read them. `test_site` is None where no labels are known."""

    folder: Path
    task: Task
    labels: list[str]
    headline: str
    test_site: HeldOutFigures | None
    thresholds: ChosenPoints | None
    test_data: str
    draws_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPage:
    """What the page says, as plain values; `links` holds by row of the worklist the key of the exam's strip, or None."""

    title: str
    words: Mapping[str, str]
    test_data: str
    facts: Mapping[str, str]
    warnings: Sequence[str]
    worklist: Table
    links: Sequence[str | None]
    exams: int
    thresholds: Table | None
    line_from: str
    rejects: Sequence[RejectReason]
    files: Mapping[str, str]
    stack: bool  # whether the images of an exam have an order along the body


def order_exams(exams: pd.DataFrame, task: Task) -> NDArray[np.intp]:
    """Order the rows of exams.csv by falling probability of the headline label; equal ones stay in their order."""
    return np.argsort(-exams[probability_column(task)].to_numpy(np.float64), kind="stable")


def probability_column(task: Task) -> str:
    """Name the column of exams.csv that the worklist is sorted by."""
    return f"{aggregates(task.kind)[0]}_{task.headline}"


def choose_point(thresholds: Mapping[str, Mapping[str, float | None]], label: str) -> tuple[str, float | None]:
    """Choose the operating point whose threshold is drawn, and its threshold; "" and None where the model has none.

    A threshold of 0 calls everything positive, so it is never drawn.
    """
    quoted = choose_quoted(of_label := thresholds.get(label, {}), [])
    return (quoted.name, of_label[quoted.name]) if quoted is not None and quoted.separates else ("", None)


def write_evaluation_page(folder: Path, strips: Sequence[ExamStrip]) -> Path:
    """Write evaluation.html into the folder of an evaluation; `strips` are of the first exams of the worklist, in its order."""
    said = read_json(folder / EVALUATION)
    task = find_task(said["task"])
    exams = read_csv(folder / "exams.csv", dtype=dict.fromkeys(("patient_id", "study_id", "series_id"), str))
    record = _read_record(folder, said, task)
    sections = _sections(record)
    content = asdict(_build_page(folder, said, task, exams, strips))
    bodies = {name: section and asdict(cast(Any, section.body)) for name, section in sections.items()}
    page = json.loads(json.dumps({**content, **bodies}, allow_nan=False))
    html = render_page(
        "evaluation.html.j2",
        page=page,
        sections={name: section.title for name, section in sections.items() if section},
        strips=strips,
        **interactive(page),
    )
    write_page(folder / PAGE, html)
    return folder / PAGE


def _sections(record: ScoredRecord) -> dict[str, Section | None]:
    """Build the sections on scores; none without labels."""
    if record.test_site is None:
        return {}
    return {
        "scorecard": build_scores(record, record.test_site),
        "discrimination": build_discrimination(record),
        "classes": build_classes(record),
        "points": build_points(record),
        "calibration": build_calibration(record),
    }


def _read_record(folder: Path, said: Mapping[str, Any], task: Task) -> EvaluationRecord:
    path, test = folder / "scorecard.json", None
    if path.exists():
        card = cast(ScorecardFigures, read_json(path))
        loss = card["log_loss"]
        test = cast(HeldOutFigures, {**card, "log_loss": loss["value"], "log_loss_interval": loss, "controls": {}})
    points = said["operating_points"]
    whence = {"chosen_on": "validation parts of the model's own sites", "platt": {}}
    return EvaluationRecord(
        folder=folder,
        task=task,
        labels=list(task.labels),
        headline=said["headline"],
        test_site=test,
        thresholds=cast(ChosenPoints, {**points, **whence}) if points else None,
        test_data=f"these {plural(task.exam)}",
        draws_seed=said["seed"],
    )


def _build_page(
    folder: Path, said: Mapping[str, Any], task: Task, exams: pd.DataFrame, strips: Sequence[ExamStrip]
) -> EvaluationPage:
    words, aggregate = task_words(task), aggregates(task.kind)[0]
    by_exam = (said["operating_points"] or {}).get("exam", {}).get(aggregate, {})
    point, threshold = choose_point(by_exam, task.headline)
    order = order_exams(exams, task)[:MOST_ROWS]
    keys = [strip.key for strip in strips]
    return EvaluationPage(
        title=f"{format_count(len(exams), task.exam)}, sorted by the probability of {label_in_words(task, task.headline)}",
        words=words,
        test_data=f"these {words['exams']}",
        facts=_facts(said, words),
        warnings=said["warnings"],
        worklist=_worklist(exams.iloc[order], task, threshold),
        links=[keys[i] if i < len(keys) else None for i in range(len(order))],
        exams=len(exams),
        thresholds=_thresholds(exams, task, by_exam),
        line_from=POINTS.get(point, ""),
        rejects=reject_reasons(said["rejected"]),
        files={name: meaning.format(**words) for name, meaning in FILES.items() if (folder / name).exists()},
        stack=task.rendering is Rendering.hounsfield,
    )


def _facts(said: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, str]:
    """Say which model scored what, a line a fact."""
    models = said["model"].get("ensemble", [said["model"]])
    scored = said["scored"]
    facts = {"data": str(scored.get("data") or f"{scored.get('site')}, part {scored.get('part')}")}
    facts[words["pictures"]] = f"{said['slices']:,}, of {said['patients']:,} patients"
    facts["labelled"] = f"{said['labelled_slices']:,} of them"
    for number, model in enumerate(models):
        name = "model" if len(models) == 1 else f"model {number + 1}"
        facts[name] = f"{model['file']} ({model['name']}, {model['image_size']} px, sha256 {model['sha256'][:12]})"
    facts["time"] = f"{said['time'][:16].replace('T', ' ')} UTC"
    return facts


def _worklist(exams: pd.DataFrame, task: Task, threshold: float | None) -> Table:
    """Make a row an exam: its place, its ids, its probabilities, whether it is at or above the threshold, and what it is labelled."""
    aggregate, ids = aggregates(task.kind)[0], [task.exam_key, "patient_id"]
    labels = [task.headline, *(label for label in task.labels if label != task.headline)]
    heads = [*columns(place="number"), Column(name=task.exam, kind=Kind.text), *columns(patient="text")]
    heads += [Column(name=plural(task.picture), kind=Kind.number)]
    heads += [Column(name=labels[0])]
    heads += [Column(name="≥ threshold", kind=Kind.text)] if threshold is not None else []
    known = f"label_{task.headline}" in exams
    heads += [Column(name="labelled", kind=Kind.text)] if known else []
    heads += [Column(name=label) for label in labels[1:]]
    rows: list[list[Any]] = []
    for place, row in enumerate(exams.to_dict("records"), 1):
        found = [float(row[f"{aggregate}_{label}"]) for label in labels]
        above = [] if threshold is None else ["yes" if found[0] >= threshold else "no"]
        told = [_labels_of(row, task)] if known else []
        rows.append([place, *(row[key] for key in ids), int(row["slices"]), found[0], *above, *told, *found[1:]])
    return Table(title=f"Worklist of {plural(task.exam)}", columns=heads, rows=rows)


def _labels_of(row: Mapping[Any, Any], task: Task) -> str:
    """Name the labels that an exam has, the union only where nothing else is known, or say `none` or `unknown`."""
    values = {label: row[f"label_{label}"] for label in task.labels}
    found = [label for label in task.specific_labels if values[label] == 1]
    if found or values[task.headline] == 1:
        return ", ".join(found or [task.headline])
    is_known = task.kind is LabelKind.multi_label and not pd.isna(values[task.headline])
    return "none" if is_known else "unknown"


def _thresholds(exams: pd.DataFrame, task: Task, by_exam: Mapping[str, Mapping[str, float | None]]) -> Table | None:
    """Make a row an operating point of the headline label: its threshold, and how many exams are at or above it."""
    probabilities, of_label = exams[probability_column(task)].to_numpy(np.float64), by_exam.get(task.headline, {})
    rows: list[list[Any]] = [
        [words, of_label[point], int((probabilities >= of_label[point]).sum())]
        for point, words in POINTS.items()
        if of_label.get(point) is not None
    ]
    heads = [*columns(operating_point="text", threshold="threshold")]
    heads += [Column(name=f"{plural(task.exam)} at or above", kind=Kind.number)]
    title = f"Thresholds of {label_in_words(task, task.headline)} for {plural(task.exam)}"
    return Table(title=title, columns=heads, rows=rows) if rows else None
