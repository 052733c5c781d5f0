"""Print what evaluate, ensemble and audit found, and where a run's submissions are.

Of an evaluation it prints what was scored, warnings, and the scores where labels are known. Of an audit it prints sites,
heterogeneity, what is shared, and a verdict as the last line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fl_rsna.cohort.audit.heterogeneity import PATIENTS, SLICES, Distances, Heterogeneity, Prevalence, Share
from fl_rsna.cohort.audit.on_disk import Difference
from fl_rsna.cohort.audit.overlap import Sharing, Verdict, kind_in_words
from fl_rsna.cohort.audit.slices import Kind
from fl_rsna.common.reading import read_csv, read_json
from fl_rsna.imaging.dicom.rejections import MEANING, Reason
from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.learning.metrics.scorecard import LabelFigures, ScorecardFigures
from fl_rsna.reporting.record.cells import format_cell
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.run_record import UNKNOWN
from fl_rsna.reporting.record.wording import format_count, plural
from fl_rsna.reporting.sections.classes import class_lines
from fl_rsna.task import LabelKind, Task, find_task

CARD = "scorecard.json"
EXAMS_SHOWN = 5
MAX_PLACES, MAX_PAIRS, MAX_LINES = 40, 10, 10  # rows shown; the JSON file has all
EXAMPLES = 3  # ids that are named: they are the user's own, who needs them to find the error
SCORE = "score"  # the kind of cell of an estimate
MEANINGS = {
    PATIENTS: "patients by the rarest label each has, or none",
    SLICES: "{pictures} by the set of labels each has",
}


class LabelShift(TypedDict):
    """The share of images with a label, 0 to 1: where the model learned, and here with a 95% interval, estimated without labels.

    `matched_to` is the share that the risky submission assumes. A value is None where it cannot be estimated.
    """

    of_the_model: float | None
    here: float | None
    low: float | None
    high: float | None
    matched_to: float | None


class Shift(TypedDict):
    """The label shift in evaluation.json: what each submission assumes, shares by label, and the settings to train for them."""

    assumes: dict[str, str]
    prevalence: dict[str, LabelShift]
    union_rule: str | None
    words: str | None


class Evaluation(TypedDict):
    """The keys of evaluation.json that are printed."""

    task: str
    headline: str
    slices: int
    exams: int
    patients: int
    labelled_slices: int
    rejected: dict[str, int]
    guessed_in_submission: list[str]
    shift: Shift | None
    warnings: list[str]


def say_evaluation(folder: Path) -> None:
    """Print what the folder of an evaluation holds; the last line says where it is."""
    record = cast(Evaluation, read_json(folder / "evaluation.json"))
    task = find_task(record["task"])
    held = ((record["slices"], task.picture), (record["exams"], task.exam), (record["patients"], "patient"))
    what = ", ".join(format_count(count, of) for count, of in held)
    console.print(
        f"scored {what}; {record['labelled_slices']} of {record['slices']} {plural(task.picture)} with labels",
        soft_wrap=True,
    )
    for reason, count in record["rejected"].items():
        console.print(f"rejected: {count} {reason}: {MEANING[Reason(reason)]}", soft_wrap=True)
    if record["guessed_in_submission"]:
        console.print(
            f"submission.csv gives {format_count(len(record['guessed_in_submission']), 'rejected image')} the mean prediction",
            soft_wrap=True,
        )
    for warning in record["warnings"]:
        console.print(f"[yellow]warning: {escape(warning)}[/yellow]", soft_wrap=True)
    if (folder / CARD).exists():
        card = cast(ScorecardFigures, read_json(folder / CARD))
        for line in class_lines(card, task):
            console.print(line, soft_wrap=True, markup=False)
        console.print(_score_table(card, task))
    if record["shift"]:
        _say_shift(folder, record["shift"])
    for line in _describe_exams(folder, record, task):
        console.print(escape(line), soft_wrap=True)
    if (page := folder / "evaluation.html").exists():
        console.print(f"page: {page}", soft_wrap=True, markup=False)
    console.print(f"everything: {folder}", soft_wrap=True)


def _say_shift(folder: Path, shift: Shift) -> None:
    """Print how common labels seem to be here, which file assumes what, and how a federation would train for it."""
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
            console.print(f"{name}: log loss {escape(format_cell(found, SCORE))}", soft_wrap=True)
    if shift["words"]:
        console.print(f"settings to train for this prevalence: {escape(shift['words'])}", soft_wrap=True)


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
        f"log loss on {format_count(fitted['slices'], 'validation image')} of {format_count(fitted['patients'], 'patient')}: models {each}; "
        f"ensemble {fitted['log_loss']:.4f} on what its weights were fitted on, {fitted['log_loss_cross_validated']:.4f} "
        "cross-validated over patients",
        soft_wrap=True,
    )


def say_submissions(folder: Path, task: Task, *, hashed: bool) -> None:
    """Print where a run's submissions are, which were checked as Kaggle checks them.

    `hashed` says that they name studies by hashes, which Kaggle does not know.
    """
    found = [path.name for path in sorted(folder.glob("submission*.csv"))]
    if task.kind is LabelKind.multi_class and hashed:
        console.print(
            "submissions name studies by their hashes: for Kaggle prepare with data.hash_ids=false", soft_wrap=True
        )
    if task.kind is LabelKind.multi_label and len(found) == 1:
        console.print("no safe and risky ones: the sites have too few positive exams to estimate how common labels are")
    names = ", ".join(found)
    console.print(f"submissions, each image and label once: {names} in {folder}", soft_wrap=True)


def _describe_exams(folder: Path, record: Evaluation, task: Task) -> list[str]:
    """Describe each exam in a line, by its headline label or by all its classes; no line where there are many exams."""
    if record["exams"] > EXAMS_SHOWN:
        return []
    headline, lines = record["headline"], []
    for row in read_csv(folder / "exams.csv", dtype={task.exam_key: str}).to_dict("records"):
        match task.kind:
            case LabelKind.multi_label:
                independent = f"{row[f'noisy_or_{headline}']:.3f} if {plural(task.picture)} were independent"
                said = f"{headline} {row[f'max_{headline}']:.3f} by its highest {task.picture}, {independent}"
            case LabelKind.multi_class:
                said = ", ".join(f"{label} {row[f'mean_{label}']:.3f}" for label in task.labels)
        lines.append(f"{task.exam} {row[task.exam_key]}, {format_count(int(row['slices']), task.picture)}: {said}")
    return lines


def _score_table(card: ScorecardFigures, task: Task) -> Table:
    """Make a table of each label's AUROC and average precision, of slices and, by the first aggregate of slices, of exams."""
    loss, exams = format_cell(card["log_loss"], SCORE), plural(task.exam)
    assert card["patients"] is not None, "a count is withheld from a federation only"
    table = Table(title=f"log loss {escape(loss)}; 95% intervals over {format_count(card['patients'], 'patient')}")
    for name in ("label", "positive", "AUROC", "average precision", f"{exams} positive", f"AUROC of {exams}"):
        table.add_column(name, justify="left" if name == "label" else "right")
    by_exam: dict[str, LabelFigures] = next(iter(card["exam"].values()), {})
    for label, found in card["slice"].items():
        area, exam = found["auroc"], by_exam[label]["auroc"] if label in by_exam else None
        table.add_row(
            label,
            _count_positives(area),
            escape(format_cell(area, SCORE)),
            escape(format_cell(found["average_precision"], SCORE)),
            _count_positives(exam) if exam else "",
            escape(format_cell(exam, SCORE)) if exam else "",
        )
    return table


def _count_positives(estimate: EstimateFigures) -> str:
    if estimate["positives"] is None or estimate["negatives"] is None:  # nobody annotates the label there
        return UNKNOWN
    return f"{estimate['positives']} of {estimate['positives'] + estimate['negatives']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All that an audit found, as it is printed and, by asdict, written as JSON."""

    of: str
    pictures: str  # what its rows are: slices, images
    read: dict[str, str]  # how the cohort or table was read
    sharing: Sharing
    prevalence: dict[str, dict[str, Prevalence]]  # by the columns of places: first sites, then all columns together
    heterogeneity: Heterogeneity
    differences: tuple[Difference, ...]
    verdict: Verdict


def say_audit(audit: Audit) -> None:
    """Print an audit; the last line is the verdict."""
    totals = audit.sharing.totals
    counted = ", ".join(f"{count} {kind_in_words(kind, count)}" for kind, count in totals.items())
    _say(f"audit of {audit.of}: {audit.sharing.slices} {audit.pictures}, {counted}")
    for what, how in audit.read.items():
        _say(f"{what}: {how}")
    _say_gaps(audit.sharing, audit.pictures)
    _say_places(audit.prevalence, audit.heterogeneity, audit.pictures)
    _say_heterogeneity(audit.heterogeneity, audit.pictures)
    _say_shared(audit.sharing)
    for difference in audit.differences[:MAX_LINES]:
        example = f" (first: {difference.first})" if difference.first else ""
        _say(f"{difference.site}: {difference.what}: {difference.found}, expected {difference.expected}{example}")
    _say_more(len(audit.differences) - MAX_LINES, "differences from cohort.json")
    _say(audit.verdict.sentence)


def _say(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


def _say_more(left_out: int, what: str) -> None:
    if left_out > 0:
        _say(f"... and {left_out} more {what}; out=<file>.json has all")


def _say_gaps(sharing: Sharing, pictures: str) -> None:
    """Print what could not be compared."""
    for kind, count in sharing.missing.items():
        if count:
            _say(f"{count} of {sharing.slices} {pictures} have no {kind} id")
    for view in sharing.views:
        if view.unplaced:
            _say(f"{view.unplaced} of {sharing.slices} {pictures} have no {view.by}: they count for no place of it")
    for kind in sharing.numbered:
        _say(f"{kind} ids repeat from patient to patient: read as numbers inside a patient")
    if Kind.pixels in sharing.totals and Kind.blank not in sharing.totals:
        _say("constant images cannot be told apart here: some identical pixels may be nothing but air")


def _say_places(prevalence: Mapping[str, Mapping[str, Prevalence]], found: Heterogeneity, pictures: str) -> None:
    """Print sizes, each site's distances to the pool, and label prevalence: sites first, then their parts."""
    places = [(name, place) for by in prevalence.values() for name, place in by.items()]
    labels = list(places[0][1].of_slices) if places else []
    units = [kind.partition("_")[0] for kind in found.distances]  # what each distribution counts
    to_pool = [f"to pool, {pictures if unit == 'slices' else unit}" for unit in units]
    sizes = _table("", ["place"], ["patients", pictures, *to_pool])
    shares = _table(f"prevalence, % of {pictures} / % of patients", ["place"], labels)
    for name, place in places[:MAX_PLACES]:
        pool = [_number(distances.to_pool.get(name)) for distances in found.distances.values()]
        sizes.add_row(escape(name), str(place.patients), str(place.slices), *pool)
        positive = [f"{_percent(place.of_slices[label])} / {_percent(place.of_patients[label])}" for label in labels]
        shares.add_row(escape(name), *positive)
    console.print(sizes)
    if labels:
        console.print(shares)
    _say_more(len(places) - MAX_PLACES, "places")


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Make an empty table that stays readable in a narrow terminal."""
    table = Table(
        title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    for name in names:
        table.add_column(escape(name), no_wrap=True)
    for name in numbers:
        table.add_column(escape(name), justify="right", overflow="fold")
    return table


def _percent(share: Share) -> str:
    """Format a share as percent in at most four characters: 0, 0.4, 9.9, 23, 100."""
    if share.share is None:
        return "-"
    return "0" if not share.count else f"{100 * share.share:.{0 if share.share >= 0.0995 else 1}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _say_heterogeneity(found: Heterogeneity, pictures: str) -> None:
    besides = f", without {', '.join(found.held_out)}" if found.held_out else ""
    _say(
        f"sizes by {found.between}{besides}: Gini {found.gini_patients:.3f} over patients, {found.gini_slices:.3f} over {pictures} "
        "(0 equal, towards 1 all in one)"
    )
    for name, distances in found.distances.items():
        if distances.mean is not None:
            _say(f"label shift by {found.between}, {MEANINGS[name].format(pictures=pictures)}: {_distances(distances)}")
    if any(distances.mean is not None for distances in found.distances.values()):
        _say(
            "label shift is Jensen-Shannon distance, base 2: 0 the same labels, 1 none in common; by chance: the same patients assigned at random"
        )


def _distances(found: Distances) -> str:
    assert found.farthest is not None, "two sites have a farthest pair"
    return (
        f"mean {_number(found.mean)} ({_number(found.by_chance)} by chance), "
        f"largest {_number(found.largest)} ({' and '.join(found.farthest)})"
    )


def _say_shared(sharing: Sharing) -> None:
    """Print counts by view, the pairs that share most, and the first examples."""
    finest, kinds = sharing.views[0], list(sharing.totals)
    if not any(view.shared[kind] for view in sharing.views for kind in kinds):
        _say(f"shared between places: nothing ({', '.join(kind_in_words(kind) for kind in kinds)} compared)")
        return
    table = _table("shared between places", ["places"], [kind_in_words(kind) for kind in kinds])
    for view in sharing.views:
        counts = [str(view.shared[kind]) for kind in kinds]
        table.add_row(escape(f"two of {len(view.places)} by {view.by}"), *counts)
    for pair in finest.pairs[:MAX_PAIRS]:
        counts = [str(pair.shared[kind]) for kind in kinds]
        table.add_row(escape(" and ".join(pair.places)), *counts)
    console.print(table)
    _say_more(len(finest.pairs) - MAX_PAIRS, "pairs of places that share something")
    first = [f"{patient} ({_few(places)})" for patient, places in list(sharing.patients.items())[:EXAMPLES]]
    if first:
        _say(f"shared patients, {len(first)} of {len(sharing.patients)}: {'; '.join(first)}")
    for kind, aliases in sharing.aliases.items():
        for alias in aliases.of[:EXAMPLES]:
            who, shared = _few(alias.patients), f"{alias.shared} {kind_in_words(kind, alias.shared)}"
            _say(f"POSSIBLY ONE PATIENT UNDER SEVERAL IDS: {who} share {shared} in {_few(alias.places)}")
        _say_more(len(aliases.of) - EXAMPLES, f"groups of patients that share {kind_in_words(kind)}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more
