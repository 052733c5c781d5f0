"""Say in sentences what a finished run ended with: which model, and what its counts cannot show."""

from collections.abc import Mapping
from typing import Any

from fl_rsna.cohort.sites.absent_labels import describe_absent_labels
from fl_rsna.learning.metrics.controls import Control
from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.reporting.record.events import choice_rests
from fl_rsna.reporting.record.run_record import RunRecord, interval
from fl_rsna.reporting.record.wording import area_name, format_count, label_in_words, plural
from fl_rsna.run_folder.summary import Summary
from fl_rsna.settings.stages import Stacker, Stage
from fl_rsna.settings.strategy import Averaging
from fl_rsna.settings.training import Select
from fl_rsna.task import MACRO, Task

FEW_POSITIVE = 20  # patients in validation: with fewer, one of them is more than the 5% that sensitivity_95 may miss
CONTROLS = {
    Control.position: "slice position",
    Control.brightness: "mean brain HU",
    Control.grey: "mean grey",
    Control.view: "view (PA or AP)",
}
MEANS = {Averaging.ema: "exponential moving average over rounds", Averaging.window: "mean of the last {window} rounds"}


def describe_final_model(summary: Summary, config: Mapping[str, Any]) -> str:
    """Describe the final model by its summary and settings: `round 1 of 4 (lowest validation loss), BatchNorm statistics re-estimated`."""
    stacked = summary.get("stacking")
    trees = stacked is not None and stacked["stacker"] == Stacker.xgboost
    played, asked = summary["rounds"], summary["rounds"] if stacked else config["rounds"]
    short = f", stopped early of {asked}" if played < asked else ""
    text = f"round {summary['selected_round']} of {played}{short} ({_describe_choice(summary, config, trees=trees)})"
    if trees:
        text = f"boosted trees, for each label up to {text}"
    elif config["strategy"]["averaging"] != Averaging.none:
        mean = MEANS[Averaging(config["strategy"]["averaging"])].format(window=config["strategy"]["window"])
        text += f", {mean}"
    if stacked is not None:
        text += f", on {format_count(len(stacked['folds']), 'slice model')}"
    elif config["stage"] == Stage.sequence:
        text = f"head over series, {text}, blended with the slice model"
    return text + (", BatchNorm statistics re-estimated" if summary.get("recalibrated") else "")


def _describe_choice(summary: Summary, config: Mapping[str, Any], *, trees: bool) -> str:
    """Say by what the round was chosen, and on whose answers where some are old or missing."""
    if summary["selected_by"] == "last round":
        return "last round" if config["train"]["select"] == Select.last else "last round: no site could validate"
    rests = summary.get("selected_on")
    on = f" {choice_rests(rests)}" if rests and (rests["carried"] or rests["unknown"]) else ""
    return f"lowest validation loss{' of each label' if trees else ''}{on}"


def title_area(task: Task, label: str) -> str:
    """Name an AUROC on the test site: `AUROC, any hemorrhage (test site, slices)`."""
    name = area_name(label) if label == MACRO else f"AUROC, {label_in_words(task, label)}"
    return f"{name} (test site, {plural(task.picture)})"


def list_cautions(run: RunRecord) -> list[str]:
    """List what the counts of a run cannot show: labels without positives, few in validation, and a control that is not clearly beaten."""
    absent = describe_absent_labels(run.cohort, run.task)
    if not run.is_finished or run.test_site is None:
        return absent
    first = list(run.test_site.get("minus_controls", {}).items())[:1]  # slice position, or the view of a radiograph
    return [*absent, *_count_validation(run), *(text for name, of in first if (text := _doubt_control(run, name, of)))]


def _count_validation(run: RunRecord) -> list[str]:
    """Warn of few patients with what the run is judged by, or of its rarest class, in the sites' validation parts."""
    labels = run.labels if run.primary_label == MACRO else [run.headline]
    by_label = {
        label: [card["slice"][label]["auroc"]["positive_patients"] for card in run.cards.values()] for label in labels
    }
    known = {label: [count for count in counts if count is not None] for label, counts in by_label.items()}
    rarest = min(known, key=lambda label: sum(known[label]))
    total, sites = sum(known[rarest]), sum(count > 0 for count in known[rarest])
    if len(known[rarest]) < len(run.cards):  # a count that is withheld may be large
        return []
    if total == 0 or total >= FEW_POSITIVE:  # that there is none is said already
        return []
    rests = (
        "the thresholds"
        if run.summary and run.summary["selected_by"] == "last round"
        else "the choice of the round and the thresholds"
    )
    where = f"{sites} of {format_count(run.num_training_sites, 'site')}"
    return [
        f"validation holds {format_count(total, 'patient')} with {label_in_words(run.task, rarest)} at {where}, fewer than {FEW_POSITIVE}: "
        f"{rests} would differ with other patients"
    ]


def _doubt_control(run: RunRecord, name: str, difference: EstimateFigures) -> str:
    """Say that the model does not clearly beat a control, or that this cannot be known; "" where it does."""
    control, of = CONTROLS[Control(name)], area_name(run.primary_label)
    if difference["value"] is None or difference["low"] is None:
        return f"whether the model beats {control} alone cannot be known: {of}, difference {interval(difference)}"
    if difference["low"] > 0:
        return ""
    if difference["high"] is not None and difference["high"] < 0:
        return f"the model is worse than {control} alone: {of}, difference {interval(difference)}, paired over patients"
    return f"the model does not clearly beat {control} alone: {of}, difference {interval(difference)}, paired over patients, includes 0"
