"""The section of scores on the test site: how good the final model is by label, for slices and for exams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.learning.metrics.scorecard import AreaFigures, HeldOutFigures, LabelFigures
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty
from fl_rsna.reporting.record.run_record import RunRecord, ScoredRecord
from fl_rsna.reporting.record.wording import level_titles
from fl_rsna.reporting.sections.section import Section

POINTS = {
    "sensitivity_95": "Sensitivity of at least 0.95",
    "specificity_90": "Specificity of at least 0.90",
    "youden": "Greatest sensitivity + specificity (Youden)",
}
SHORT_POINTS = {
    "sensitivity_95": "sensitivity ≥ 0.95",
    "specificity_90": "specificity ≥ 0.90",
    "youden": "Youden",
}
PARTIAL = "specificity at sensitivity ≥ 0.90"  # the mean over them

Cards = Mapping[str, LabelFigures]  # by label


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """A table a level, and how many resamples of patients the intervals rest on.

    Where every site trained alone, the one table holds each site's own model, and `resamples` is None.
    """

    tables: Sequence[Table]
    resamples: int | None


def build_scorecard(run: RunRecord) -> Section | None:
    """Build the section; None of a run that has not come to its end."""
    if run.summary is None or not run.is_finished:
        return None
    if run.test_site is None:
        body = Scorecard(tables=[alone_table(run)], resamples=None)
        return Section(title="Scorecard", body=body)
    return build_scores(run, run.test_site)


def build_scores(record: ScoredRecord, card: HeldOutFigures) -> Section:
    """Build the section of one model's scorecard, a run's or that of new scans."""
    titles = level_titles(record.task)
    tables = {level: scores_table(card, level, titles[level]) for level in levels(card)}
    paper = [scores_table(card, level, f"Performance on {record.test_data}. {titles[level]}") for level in tables]
    body = Scorecard(tables=list(tables.values()), resamples=card["resamples"])
    return Section(title="Scorecard", body=body, paper=paper)


def levels(card: HeldOutFigures) -> dict[str, Cards]:
    """The scores by label at slice level and, where there are any, at exam level, by the names that `level_titles` knows."""
    return {"slice": card["slice"], **card["exam"]}


def scores_table(card: HeldOutFigures, level: str, title: str) -> Table:
    """One row a label: the counts that define the metrics, and the metrics; at slice level, what the controls reach without the image.

    The partial AUROC is of exams: whether a patient is missed is asked of them.
    """
    of_exams = level != "slice"
    controls: Mapping[str, Mapping[str, AreaFigures]] = {} if of_exams else card["controls"]
    rows = []
    for label, of in levels(card)[level].items():
        alone = [by_label[label]["auroc"] for by_label in controls.values()]
        partial: list[EstimateFigures] = [of["partial_auroc"]] if of_exams else []
        rest = [of["average_precision"], *partial, of["log_loss"], of["brier"], of["ece"]]
        area = of["auroc"]
        rows.append([label, area["positives"], area, *alone, *rest, area["negatives"], area["positive_patients"]])
    heads = columns(label="text", positive="number", AUROC="score")
    heads += [Column(name=f"AUROC, {control} alone") for control in controls]
    heads += [*columns(average_precision="score"), *([Column(name=PARTIAL)] if of_exams else [])]
    heads += columns(log_loss="score", Brier="score", ECE="score", negative="number", patients_positive="number")
    return without_empty(Table(title=title, columns=heads, rows=rows))


def alone_table(run: RunRecord) -> Table:
    """One row a site of a run whose sites trained alone: its own model on the test site."""
    alone = {} if run.alone is None else run.alone["alone"]
    heads = [Column(name="model of", kind=Kind.text), *(Column(name=label) for label in run.labels)]
    rows = [[site, *(of["test_site"]["slice"][label]["auroc"] for label in run.labels)] for site, of in alone.items()]
    return Table(title="AUROC of each site's own model on the test site", columns=heads, rows=rows)
