"""What a reader wants first: how many exams with the finding the model finds, the AUROC, the gap to pooling, the worst site."""

from dataclasses import dataclass

from fl_rsna.learning.metrics.controls import Control
from fl_rsna.learning.metrics.figures import EstimateFigures, PointFigures
from fl_rsna.learning.metrics.scorecard import HeldOutFigures, LevelsOfClasses
from fl_rsna.reporting.record.cells import Kind, format_cell
from fl_rsna.reporting.record.outcome import describe_final_model, title_area
from fl_rsna.reporting.record.quoted_point import choose_quoted
from fl_rsna.reporting.record.run_record import RunRecord, area_of, control_of, interval
from fl_rsna.reporting.record.wording import format_count, plural, with_article
from fl_rsna.reporting.sections.scorecard import POINTS
from fl_rsna.reporting.sections.sites import areas_by_site, measure_spread
from fl_rsna.task import MACRO, LabelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A figure above the page's sections: its name, its text, a note, and the estimate or number that the text states."""

    name: str
    text: str
    note: str
    value: EstimateFigures | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How many test exams with the headline label the model finds, and how many it calls positive without it, at one operating point.

    `text` says it in a sentence, and `how` what the threshold is and what makes an exam positive. The counts are None where no
    threshold was chosen.
    """

    text: str
    how: str
    counts: PointFigures | None


def detect_exams(run: RunRecord) -> Detection | None:
    """State sensitivity and specificity of exams in words; None of a run without exams scored on the test site."""
    if not run.is_finished or run.test_site is None or not run.test_site["exam"]:
        return None
    aggregate, cards = next(iter(run.test_site["exam"].items()))
    test, task, label = run.test_site, run.task, run.headline
    exams = "patients" if test["exams"] == test["patients"] else plural(task.exam)
    points = {point: of for point, of in cards[label]["points"].items() if of is not None}
    at_sites = [card["exam"][aggregate][label] for card in run.cards.values() if aggregate in card["exam"]]
    thresholds = {point: of["threshold"] for point, of in points.items()}
    quoted = choose_quoted(thresholds, [of["points"] for of in at_sites])
    sought = task.condition if label == task.headline else label
    if quoted is None:
        text = f"How many {exams} with {sought} the model finds is not known: no threshold could be chosen."
        return Detection(text=text, how="", counts=None)
    of, words = points[quoted.name], POINTS[quoted.name]
    by = {"max": f"its highest {task.picture}", "noisy_or": f"the noisy-OR of its {plural(task.picture)}"}
    whose = by.get(aggregate, f"the mean of its {plural(task.picture)}")
    how = (
        f"{with_article(task.exam).capitalize()} is positive when {whose} reaches {of['threshold']:.3g}: "
        f"{words[0].lower()}{words[1:]}, chosen on validation data and never on test data."
    )
    if not quoted.separates:
        counts = [card["auroc"]["positive_patients"] for card in at_sites]
        known = [count for count in counts if count is not None]
        rests = f" ({format_count(sum(known), 'positive patient')})" if len(known) == len(counts) > 0 else ""
        text = (
            f"The threshold chosen on validation{rests} calls {quoted.passed_over[quoted.name]} {task.exam} there positive; "
            "sensitivity and specificity at it say nothing about the model."
        )
        return Detection(text=text, how=how, counts=of)
    for point, called in quoted.passed_over.items():
        how += f" {POINTS[point]} is not quoted: its threshold calls {called} {task.exam} of validation positive."
    positives, negatives = (of["tp"] or 0) + (of["fn"] or 0), (of["fp"] or 0) + (of["tn"] or 0)
    parts = [f"The test site has no {exams} with {sought}: sensitivity cannot be known"]
    if positives:
        rate = f"sensitivity {interval(of['sensitivity'])}"
        parts = [f"Finds {of['tp'] or 'none'} of {positives} {exams} with {sought} ({rate})"]
    if negatives:
        alarms = "no false alarm" if not of["fp"] else f"{of['fp']} false alarm{'s' if of['fp'] > 1 else ''}"
        parts.append(f"{alarms} in {negatives} without (specificity {interval(of['specificity'])})")
    else:
        parts.append(f"no {exams} without it, so specificity cannot be known")
    return Detection(text="; ".join(parts) + ".", how=how, counts=of)


def headlines(run: RunRecord) -> list[Headline]:
    """The headline figures of a run that has a final model, the most important first."""
    if not run.is_finished:
        return []
    if run.test_site is None:
        return _alone(run)
    found = [_area(run, run.test_site), *_gaps(run)]
    match run.task.kind:
        case LabelKind.multi_label:
            found += [*_worst(run), *_control(run, run.test_site)]
            loss = "weighted log loss"
        case LabelKind.multi_class:
            found += [*_of_classes(run, run.test_site["classes"]), *_worst(run), *_control(run, run.test_site)]
            loss = "log loss"
    assert run.summary is not None, "a finished run has a summary"
    chosen = f"final model: {describe_final_model(run.summary, run.config)}"
    return [*found, _headline(loss, run.test_site["log_loss"], Kind.score, chosen)]


def _area(run: RunRecord, test: HeldOutFigures) -> Headline:
    """The AUROC of the headline label, or the mean over classes."""
    area, pictures = area_of(test, run.primary_label), plural(run.task.picture)
    over = f"95% interval over {test['patients']} patients"
    if run.primary_label == MACRO:
        note = f"{over}; mean of {len(run.labels)} classes, each against the rest, over {test['slices']} {pictures}"
    else:
        note = f"{over}, {area['positives']} of {test['slices']} {pictures} positive"
    return _headline(title_area(run.task, run.primary_label), area, Kind.score, note)


def _control(run: RunRecord, test: HeldOutFigures) -> list[Headline]:
    """The first control's AUROC of what the run is judged by."""
    note = "what a model must beat to have looked at the image"
    named = {Control.position: f"{run.task.picture} position"}
    return [
        _headline(f"from {named.get(Control(name), name)} alone", area, Kind.score, note)
        for name, area in list(control_of(test["controls"], run.primary_label).items())[:1]
    ]


def _of_classes(run: RunRecord, classes: LevelsOfClasses) -> list[Headline]:
    """The balanced accuracy, of which a guess has one in as many as there are classes, and the competition's figure of exams."""
    guess = f"mean over classes of what is named right, {run.task.picture} by {run.task.picture}; a guess has 1 in {len(run.labels)}"
    found = [_headline("balanced accuracy", classes["slice"]["balanced_accuracy"], Kind.score, guess)]
    if exams := classes.get("exam"):
        precision = exams["mean_average_precision"]
        note = "mean of average precisions over classes, PASCAL VOC 2010"
        found.append(_headline(f"{run.task.exam} mAP", precision, Kind.score, note))
    return found


def _gaps(run: RunRecord) -> list[Headline]:
    """What the federated model is minus the one of pooled data, and minus the sites' own, of an experiment=gap."""
    area = "macro AUROC" if run.primary_label == MACRO else "AUROC"
    named = {
        "central": ("gap to pooled data", f"{area} minus that of all sites' data in one place, paired"),
        "local": ("gain over the sites alone", f"{area} minus the mean of the sites' own models, paired"),
    }
    return [
        _headline(named[reference][0], by_label[run.primary_label]["difference"], Kind.signed, named[reference][1])
        for reference, by_label in (run.gap.references if run.gap else {}).items()
    ]


def _worst(run: RunRecord) -> list[Headline]:
    """The worst site's AUROC: of the final model with its interval, or of the last round where no site scored the final model."""
    found = measure_spread(run)
    if found is None:
        return []
    name, of_class = (
        ("worst site, macro AUROC", " of the rarest class")
        if run.primary_label == MACRO
        else ("worst site, AUROC", " positive")
    )
    if areas := areas_by_site(run):
        area = areas[found.worst]
        note = f"{found.worst}, its validation part: {area['positives']} {plural(run.task.picture)}{of_class}"
        return [_headline(name, area, Kind.score, note)]
    note = f"{found.worst}, its validation part in the last round"
    return [_headline(name, found.least, Kind.score, note)]


def _alone(run: RunRecord) -> list[Headline]:
    """The best and the worst of the sites' own models on the test site."""
    alone = {} if run.alone is None else run.alone["alone"]
    areas = {site: area_of(of["test_site"], run.primary_label) for site, of in alone.items()}
    quoted = "macro AUROC" if run.primary_label == MACRO else f"AUROC, {run.headline}"
    order = sorted(
        (site for site in areas if areas[site]["value"] is not None), key=lambda site: areas[site]["value"] or 0.0
    )
    return [
        _headline(f"{name} site's own model, {quoted} (test site)", areas[site], Kind.score, site)
        for name, site in (zip(("best", "worst"), (order[-1], order[0]), strict=True) if order else ())
    ]


def _headline(name: str, value: EstimateFigures | float, kind: Kind, note: str) -> Headline:
    return Headline(name=name, text=format_cell(value, kind), note=note, value=value)
