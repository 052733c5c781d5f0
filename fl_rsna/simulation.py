"""The story of a simulation: a cohort, a federated run or a baseline over its sites, and the report."""

from pathlib import Path
from typing import Any

from fl_rsna.checkup.batch import settle_batch
from fl_rsna.checkup.data_checks import check_space
from fl_rsna.checkup.request import Request, check_on_cohort, check_request, true_of_data
from fl_rsna.choices import Baseline
from fl_rsna.cohort.sites import Cohort
from fl_rsna.command_end import goes_on_in
from fl_rsna.compose import partition_asked, words_given
from fl_rsna.config import Config
from fl_rsna.effects import Asked, typed_keys, without_effect
from fl_rsna.existing import adopt_cohort
from fl_rsna.gap import run_gap
from fl_rsna.learning.process import settle_process
from fl_rsna.reporting.class_scores import class_lines
from fl_rsna.reporting.console import console
from fl_rsna.reporting.display import Display
from fl_rsna.reporting.evaluated import say_evaluation, say_submissions
from fl_rsna.reporting.stack_scores import stack_lines
from fl_rsna.reporting.stage_scores import stage_lines
from fl_rsna.reporting.tables import area_of, control_of, interval, read_run
from fl_rsna.reporting.task_words import area_name, plural
from fl_rsna.run_end import reporting
from fl_rsna.runner import run_federation
from fl_rsna.runs import (
    COHORT_VIEW,
    MODEL,
    SLICE_STAGE,
    RunFolder,
    default_run_name,
)
from fl_rsna.steps import cohort_for_run
from fl_rsna.task import named_task
from fl_rsna.using.predicting import predict_set


def simulate(config: Config) -> dict[str, Any]:
    if not partition_asked(config):
        adopt_cohort(config)
    request = Request(config=config, typed=typed_keys(words_given()))
    check_request(request)
    settle_process()
    folder = Path(config.paths.runs) / (config.run.name or default_run_name())
    goes_on_in(folder)
    settle_batch(config, folder)
    check_space(config)
    with Display() as display:
        cohort = cohort_for_run(config, display.step)
        check_on_cohort(request, cohort)
        idle = without_effect(Asked(config=config, image=cohort.image), request.typed)
        named = {key: need for key, need in idle.items() if key not in true_of_data(request)}
        display.run = folder
        if config.baseline is Baseline.gap:
            gap = run_gap(config, cohort, folder, (display.event,), named)
            with reporting(folder):
                return _say_gap(folder, gap, cohort)
        run_federation(config, cohort, folder, (display.event,), named)
    with reporting(folder):
        if config.baseline is Baseline.local:
            return say_alone(folder, report_run(folder, cohort))
        found = say_result(folder, report_run(folder, cohort))
    if config.predict is not None:
        with Display() as display:
            predicted = predict_set(config, folder, display.step)
        say_evaluation(predicted)
        say_submissions(folder, named_task(config.data.task), hashed=config.data.hash_ids)
    return found


def report_run(folder: Path, cohort: Cohort) -> Path:
    """Write a finished run's report.html, and what it is made from; its path. Of two stages the first has its own."""
    from fl_rsna.reporting.explained import explain
    from fl_rsna.reporting.pages import cohort_view  # these load matplotlib: not before the first round
    from fl_rsna.reporting.report import write_report

    if (folder / SLICE_STAGE).is_dir():
        report_run(folder / SLICE_STAGE, cohort)
    RunFolder(folder).write_json(COHORT_VIEW, cohort_view(cohort))
    if (folder / MODEL).exists():  # every site alone has its own
        explain(folder)
    return write_report(folder)


def _say_gap(folder: Path, summary: dict[str, Any], cohort: Cohort) -> dict[str, Any]:
    """Print what federating cost against pooling and gained over going alone."""
    row = say_result(folder / "federated", report_run(folder / "federated", cohort))
    label = read_run(folder / "federated").quoted
    for name, by_label in summary["gap"].items():
        found = by_label[label]
        text = f"difference {interval(found['difference'])}, ratio {interval(found['ratio'])}"
        console.print(
            f"federated against {name}, {area_name(label)}: {text}, paired over patients", soft_wrap=True, markup=False
        )
        row[f"federated / {name}"] = interval(found["ratio"])
    console.print(f"all three: {_comparison(folder, cohort)}", soft_wrap=True, markup=False)
    return row


def _comparison(folder: Path, cohort: Cohort) -> Path:
    """The reports of the other two parts of a gap, and the page that puts all three side by side."""
    from fl_rsna.reporting.comparison import write_comparison
    from fl_rsna.reporting.found_runs import find_runs

    for part in ("central", "local"):
        report_run(folder / part, cohort)
    return write_comparison(find_runs(folder), folder / "compare.html")


def say_alone(folder: Path, report: Path) -> dict[str, Any]:
    """Print how good each site's own model is on the test site."""
    summary = RunFolder(folder).read_json("summary.json")
    label = read_run(folder).quoted
    areas = {site: interval(area_of(alone["test_site"], label)) for site, alone in summary["alone"].items()}
    for site, area in areas.items():
        console.print(f"{site} alone, test-site {area_name(label)}: {area}", soft_wrap=True, markup=False)
    console.print(f"each model at every site: {report}", soft_wrap=True, markup=False)
    return {
        "run": str(folder),
        **{f"{site} alone": area for site, area in areas.items()},
    }


def say_result(folder: Path, report: Path) -> dict[str, Any]:
    """Print the final numbers and, last, where the report is; return the row a sweep's table shows."""
    run = read_run(folder)
    assert run.summary is not None
    scores, pictures = run.summary["test_site"], plural(run.task.picture)
    for line in class_lines(run.test_site or {}, run.task):
        console.print(f"test-site {line}", soft_wrap=True, markup=False)
    for label, score in scores["slice"].items():
        counted = f"{score['auroc']['positives']} of {scores['slices']} {pictures} positive"
        console.print(
            f"test-site AUROC {label:<17} {interval(score['auroc'])}, {counted}", soft_wrap=True, markup=False
        )
    controls = {name: interval(area) for name, area in control_of(scores, run.quoted).items()}
    for control, area in controls.items():
        console.print(f"{control} alone, {area_name(run.quoted)}: {area}", soft_wrap=True, markup=False)
    for line in [*stage_lines(run.summary, run.headline), *stack_lines(run.summary, run.headline)]:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"report: {report}", soft_wrap=True, markup=False)
    return {
        "run": str(folder),
        f"test {area_name(run.quoted)} [95%]": interval(area_of(scores, run.quoted)),
        **{f"{control} alone": area for control, area in list(controls.items())[:1]},
        "log loss": f"{scores['log_loss']:.3f}",
        "seconds": f"{run.summary['wall_s']:.0f}",
        "model_sha256": run.summary["model_sha256"][:12],
    }
