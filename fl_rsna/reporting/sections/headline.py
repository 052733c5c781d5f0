"""What a reader wants first: the AUROC, the gap to pooling, the worst site."""

from typing import Any

from fl_rsna.learning.metrics.controls import Control
from fl_rsna.reporting.record.cells import Kind, format_cell
from fl_rsna.reporting.record.events import choice_rests
from fl_rsna.reporting.record.run_record import RunRecord, area_of, control_of
from fl_rsna.reporting.record.wording import plural
from fl_rsna.reporting.sections.sites import areas_by_site, find_site_aurocs, spread
from fl_rsna.task import MACRO, LabelKind

Headline = dict[str, Any]  # name, text, note, and the estimate or number the text states


def headlines(run: RunRecord) -> list[Headline]:
    """The headline figures of a run that has a final model, the most important first."""
    if not run.is_finished:
        return []
    if run.test_site is None:
        return _alone(run)
    found = [_area(run, run.test_site)]
    found += [
        _gap(name, by_label[run.primary_label]["difference"], run.primary_label)
        for name, by_label in _gaps(run).items()
    ]
    match run.task.kind:
        case LabelKind.multi_label:
            found += [*_worst(run), *_control(run, run.test_site)]
            loss = "weighted log loss"
        case LabelKind.multi_class:
            found += [*_together(run, run.test_site["classes"]), *_worst(run), *_control(run, run.test_site)]
            loss = "log loss"
    return [*found, _headline(loss, run.test_site["log_loss"], Kind.score, _describe_choice(run))]


def _area(run: RunRecord, test: dict[str, Any]) -> Headline:
    """The AUROC of the headline label, or the mean over classes."""
    area, pictures = area_of(test, run.primary_label), plural(run.task.picture)
    over = f"95% interval over {test['patients']} patients"
    if run.primary_label == MACRO:
        note = f"{over}; mean of {len(run.labels)} classes, each against the rest, over {test['slices']} {pictures}"
        return _headline("test-site macro AUROC", area, Kind.score, note)
    note = f"{over}, {area['positives']} of {test['slices']} {pictures} positive"
    return _headline(f"test-site AUROC, {run.headline}", area, Kind.score, note)


def _control(run: RunRecord, test: dict[str, Any]) -> list[Headline]:
    """The first control's AUROC of what the run is judged by; older runs of classes have none of that."""
    note = "what a model must beat to have looked at the image"
    named = {Control.position: f"{run.task.picture} position"}
    return [
        _headline(f"from {named.get(Control(name), name)} alone", area, Kind.score, note)
        for name, area in list(control_of(test, run.primary_label).items())[:1]
    ]


def _together(run: RunRecord, classes: dict[str, Any]) -> list[Headline]:
    """Of classes: the balanced accuracy, of which a guess has one in so many, and the competition's figure of exams."""
    guess = f"mean over classes of what is named right, {run.task.picture} by {run.task.picture}; a guess has 1 in {len(run.labels)}"
    found = [_headline("balanced accuracy", classes["slice"]["balanced_accuracy"], Kind.score, guess)]
    if classes["exam"]:
        precision = classes["exam"]["mean_average_precision"]
        note = "mean of average precisions over classes, PASCAL VOC 2010"
        found.append(_headline(f"{run.task.exam} mAP", precision, Kind.score, note))
    return found


def _gaps(run: RunRecord) -> dict[str, Any]:
    return {name: found for name, found in run.gap.items() if name in ("central", "local")}


def _gap(name: str, difference: dict[str, Any], quoted: str) -> Headline:
    area = "macro AUROC" if quoted == MACRO else "AUROC"
    match name:
        case "central":
            return _headline(
                "gap to pooled data",
                difference,
                Kind.signed,
                f"{area} minus that of all sites' data in one place, paired",
            )
        case _:
            return _headline(
                "gain over the sites alone",
                difference,
                Kind.signed,
                f"{area} minus the mean of the sites' own models, paired",
            )


def _worst(run: RunRecord) -> list[Headline]:
    """The worst site's AUROC: of the final model with its interval, or, of an older run, of its last round."""
    found = spread(find_site_aurocs(run))
    if found is None:
        return []
    name, of_class = (
        ("worst site, macro AUROC", " of the rarest class")
        if run.primary_label == MACRO
        else ("worst site, AUROC", " positive")
    )
    if areas := areas_by_site(run):
        area = areas[found["worst"]]
        note = f"{found['worst']}, its validation part: {area['positives']} {plural(run.task.picture)}{of_class}"
        return [_headline(name, area, Kind.score, note)]
    note = f"{found['worst']}, its validation part in the last round"
    return [_headline(name, found["least"], Kind.score, note)]


def _alone(run: RunRecord) -> list[Headline]:
    """Of sites alone: the best and the worst of their models on the test site."""
    alone = (run.summary or {}).get("alone", {})
    areas = {site: area_of(of["test_site"], run.primary_label) for site, of in alone.items()}
    quoted = "macro AUROC" if run.primary_label == MACRO else f"AUROC, {run.headline}"
    order = sorted(
        (site for site in areas if areas[site]["value"] is not None), key=lambda site: float(areas[site]["value"])
    )
    return [
        _headline(f"{name} site's own model, test-site {quoted}", areas[site], Kind.score, site)
        for name, site in (zip(("best", "worst"), (order[-1], order[0]), strict=True) if order else ())
    ]


def _describe_choice(run: RunRecord) -> str:
    summary = run.summary or {}
    anew = "; BatchNorm statistics estimated anew for it" if summary.get("recalibrated") else ""
    rests = summary.get("selected_on")
    on = f" {choice_rests(rests)}" if rests else ""
    return f"round {summary.get('selected_round')} of {summary.get('rounds')}, chosen by {summary.get('selected_by')}{on}{anew}"


def _headline(name: str, cell: Any, kind: Kind, note: str) -> Headline:
    return {"name": name, "text": format_cell(cell, kind), "note": note, "value": cell}
