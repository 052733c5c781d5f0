"""Simulate a federation from beginning to end: make the cohort, run the federation or a baseline over its sites, write the report.

A gap is three runs with one budget and one seed, compared on the same test slices: federated, pooled, and each site alone. This module
also chooses the engine that runs the sites, for every command that trains.
"""

import copy
import functools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from rich.markup import escape

from fl_rsna.checks.batch_size import settle_batch
from fl_rsna.checks.data import check_space
from fl_rsna.checks.request import Request, check_on_cohort, check_request, true_of_data
from fl_rsna.cohort.sites.site_folders import Cohort, read_site_files
from fl_rsna.cohort.steps import adopt_cohort, cohort_for_run
from fl_rsna.common.command_end import RunFailed, goes_on_in
from fl_rsna.common.console_log import CONSOLE_LOG, console_log, keep_log
from fl_rsna.common.hashes import read_table
from fl_rsna.common.ownership import hold_lock, take_back
from fl_rsna.common.seeds import derive_seed
from fl_rsna.evaluation.evaluate import predict_set
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.engines.workers import workers_for
from fl_rsna.federation.protocol.messages import phase_of
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.federation.server.run_log import STATE
from fl_rsna.federation.server.scoring.baselines import matrix_entry
from fl_rsna.federation.server_app import Story, make_server_app, select_entry
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.federation.site.heartbeat import no_old_beats
from fl_rsna.federation.site.scoring import final_predictions, read_final
from fl_rsna.federation.stages import stages
from fl_rsna.learning.data.dataset import POOLED
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.classification import compare_macro_aurocs
from fl_rsna.learning.metrics.controls import Control
from fl_rsna.learning.metrics.metrics import compare_aurocs
from fl_rsna.learning.training.train import choose_device, settle_process
from fl_rsna.reporting.live.terminal import Display
from fl_rsna.reporting.pages.console_summary import say_evaluation, say_submissions
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.outcome import CONTROLS, describe_final_model, list_cautions, title_area
from fl_rsna.reporting.record.run_record import area_of, control_of, interval, read_run
from fl_rsna.reporting.record.wording import area_name, plural
from fl_rsna.reporting.sections.classes import class_lines
from fl_rsna.reporting.sections.headline import detect_exams
from fl_rsna.reporting.sections.stacking import stack_lines
from fl_rsna.reporting.sections.stages import stage_lines
from fl_rsna.reporting.trackers.follow import check_packages, track_run
from fl_rsna.run_folder.run_end import end_in_folder, end_of_parts, guard_report
from fl_rsna.run_folder.run_folder import (
    ALONE,
    BOTH,
    COHORT_VIEW,
    COPY,
    MODEL,
    PREDICTIONS,
    SLICE_STAGE,
    TABLES,
    UNTRAINED,
    Listener,
    RunFolder,
    check_same,
    default_run_name,
    fold_folder,
    is_begun,
    is_finished,
    kind_of,
    read_summary,
    refuse_existing,
    start_run,
    take_folder,
    take_run,
)
from fl_rsna.run_folder.summary import Summary
from fl_rsna.settings.compose import list_arguments, partition_asked
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import describe_need, parse_typed_keys, without_effect
from fl_rsna.settings.fields import Asked
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.training import Device
from fl_rsna.task import MACRO, LabelKind, Task, find_task


def run_federation(
    config: Config,
    cohort: Cohort,
    folder: Path,
    listeners: tuple[Listener, ...],
    without: Mapping[str, str] | None = None,
) -> None:
    """Run the federation, or the baseline `config.baseline`, into a new or resumed run folder; a finished run stays as it is.

    `stage=both` makes two runs, the first inside the folder of the second. `without` are the settings without effect, each with
    what it would need, which the run warns of; default: those that follow from `config` alone. Raises RunFailed when the run
    cannot finish, ValueError when it cannot begin.
    """
    check_packages(config.tracking)
    if config.engine.name is EngineName.deployment:
        raise ValueError(
            "engine.name: expected local or ray, got deployment; between machines use python -m fl_rsna.coordinate"
        )
    refuse_existing(folder, resume=config.resume)
    named = without_effect(Asked(config=config, image=cohort.image)) if without is None else without
    parts = stages(config, folder)
    with hold_lock(folder), end_of_parts(folder, config):
        for part, where in parts:
            if is_begun(where):
                check_same(where, part, cohort)  # check all parts before any of them goes on
        whole = take_run(folder, parts[-1][0], cohort, kind=BOTH, resume=config.resume) if len(parts) > 1 else None
        if len(parts) > 1 and not is_finished(folder):
            keep_log(folder)
        try:
            for number, (part, where) in enumerate(parts):
                _run_stage(part, cohort, where, listeners, named, says=number == 0)
        except ValueError:
            if whole is not None:
                take_back(folder, whole, (CONSOLE_LOG,))
            raise


def _run_stage(
    config: Config,
    cohort: Cohort,
    folder: Path,
    listeners: tuple[Listener, ...],
    without: Mapping[str, str],
    *,
    says: bool,
) -> None:
    with hold_lock(folder):
        device, begins = str(choose_device(config.train.device)), not is_begun(folder)
        with warnings.catch_warnings(record=True) as found:  # to name damaged files: a site's warnings stay at the site
            warnings.simplefilter("always")
            for site in (*cohort.sites, TEST_SITE):
                read_site_files(cohort.site_folder(site))
        run = start_run(folder, config, cohort, device, listeners, without=without)
        for key, need in without.items() if says and begins else ():
            run.event("warning", text=describe_need(key, need))
        if is_finished(folder):
            return
        keep_log(folder)
        for text in dict.fromkeys(str(each.message) for each in found):
            run.event("warning", text=text)
        story = select_entry(config)
        try:
            with no_old_beats(folder), track_run(run, config), end_in_folder(run, config):
                _run_engine(config, cohort, run, story)
        except (BelowQuorum, FloatingPointError) as error:
            raise RunFailed(f"{error}; see {folder / 'events.jsonl'}") from None
        except ValueError:
            parts = (run.checkpoints / STATE, folder / SLICE_STAGE, fold_folder(folder, 0))
            begun = any(part.exists() for part in parts)
            if run.token is not None and not begun:  # the roll call refused the run before a site trained
                take_back(folder, run.token, UNTRAINED)
            raise


def _run_engine(config: Config, cohort: Cohort, run: RunFolder, story: Story) -> None:
    pooled = config.baseline is Baseline.central
    served = replace(cohort, sites=(POOLED,)) if pooled else cohort
    server_app = make_server_app(lambda context: (config, served, run), story)
    client_app = functools.partial(app_for_cohort, cohort.folder.resolve(), run.site_memory.resolve(), pooled=pooled)
    devices = torch.cuda.device_count() if choose_device(config.train.device).type == "cuda" else 0
    workers = workers_for(config.engine.workers, devices)
    match config.engine.name:
        case EngineName.local:
            run_local(
                server_app,
                client_app,
                num_sites=len(served.sites),
                workers=workers,
                on_death=lambda position, message, how: run.event(
                    "worker_died", **phase_of(message), site=served.sites[position], how=how
                ),
            )
        case EngineName.ray:
            from fl_rsna.federation.engines.ray import run_ray

            run_ray(
                server_app,
                client_app,
                num_sites=len(served.sites),
                workers=max(1, workers),
                gpus_per_worker=0.0 if config.train.device is Device.cpu else config.engine.gpus_per_worker,
                address=config.engine.address,
            )


PARTS = {"federated": Baseline.none, "central": Baseline.central, "local": Baseline.local}
GLOBAL = "federated"  # the row of the global model in the table of models by sites


def run_gap(
    config: Config,
    cohort: Cohort,
    folder: Path,
    listeners: tuple[Listener, ...],
    without: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run federated, pooled and alone into three folders below `folder`, and write summary.json with the gaps; return its content.

    The three start from the same model, pass as often over the same training slices, and are scored on the same test patients.
    The numbers of steps differ: a site alone takes its own, and pooled training takes the sum of all sites', one after the other.
    Each run can be resumed. `without` are the settings without effect in all three; the federated run warns of them.
    """
    named = without_effect(Asked(config=config, image=cohort.image)) if without is None else without
    with hold_lock(folder), end_of_parts(folder, config):
        made = take_folder(folder, (kind_of(config),), resume=config.resume)
        if not is_finished(folder):
            keep_log(folder)
        try:
            for name, baseline in PARTS.items():
                part = copy.deepcopy(config)
                part.baseline = baseline
                part.resume = config.resume and (folder / name).exists()
                run_federation(part, cohort, folder / name, listeners, named if baseline is Baseline.none else {})
        except ValueError:
            if made is not None:
                take_back(folder, made, (CONSOLE_LOG,))
            raise
        summary = _summary(folder, config)
        RunFolder(folder).write_json("summary.json", summary)
        return summary


def _summary(folder: Path, config: Config) -> dict[str, Any]:
    """Build the summary of the gap: the federated run's, with the gaps, the table of models by sites, and each site's gain."""
    task = find_task(config.data.task)
    found = dict[str, list[pd.DataFrame]]()
    for name in PARTS:
        alone = sorted((folder / name / ALONE).glob("*"))
        found[name] = [read_table(path / PREDICTIONS, COPY) for path in alone or [folder / name]]
    federated = read_summary(folder / "federated")
    against = {name: _gap(found["federated"][0], found[name], task, config.seed) for name in ("central", "local")}
    local = read_summary(folder / "local")
    matrix = {**local["matrix"], GLOBAL: {site: matrix_entry(card) for site, card in federated["sites"].items()}}
    joining = _compute_gains(folder, federated, local, task, config.seed)
    federated.pop(TABLES, None)  # the hashes of the tables in the federated run's own folder
    return {**federated, "baseline": Baseline.gap.value, "gap": against, "matrix": matrix, "joining": joining}


def _compute_gains(
    folder: Path, federated: dict[str, Any], local: dict[str, Any], task: Task, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare the global model with each site's own one on the site's validation patients (paired): what the site gains by joining.

    Read the predictions that simulated sites keep. Between real machines each site would compare by itself.
    """

    def locate_predictions(part: str, site: str, run_id: str) -> Path:
        return final_predictions(RunFolder(folder / part).site_memory / site, run_id)

    found = {}
    for site, alone in local["alone"].items():
        paths = [
            locate_predictions("federated", site, federated.get("run_id", "")),
            locate_predictions("local", site, alone.get("run_id", "")),
        ]
        if all(path.exists() for path in paths):
            ours, own = (read_final(path, site) for path in paths)
            found[site] = _gap(ours, [own], task, derive_seed(seed, "joining", site))
    return found


def _gap(ours: pd.DataFrame, theirs: list[pd.DataFrame], task: Task, seed: int) -> dict[str, Any]:
    """Compare AUROCs by label: difference and ratio of `ours` to `theirs`, whose AUROC is the mean over several models.

    A task of classes also has the mean over classes, under MACRO.
    """
    patients = ours[task.group_key].to_numpy()
    by_label = {
        label: compare_aurocs(
            np.nan_to_num(labels_in(ours, [label])[:, 0]),  # NaN: a label that the site does not annotate
            probabilities_in(ours, [label])[:, 0],
            [probabilities_in(table, [label])[:, 0] for table in theirs],
            patients,
            seed=derive_seed(seed, "bootstrap", label),
        ).to_json()
        for label in task.labels
    }
    if task.kind is not LabelKind.multi_class:
        return by_label
    truth, seed = labels_in(ours, task.labels), derive_seed(seed, "bootstrap", MACRO)
    scores, *others = (probabilities_in(table, task.labels) for table in (ours, *theirs))
    return {MACRO: compare_macro_aurocs(truth, scores, others, patients, seed=seed).to_json(), **by_label}


@console_log()
def simulate(config: Config) -> dict[str, Any]:
    """Do all that `config` asks for, from the data to the report; return the row that a sweep's table shows.

    Raises ValueError when the run cannot begin, RunFailed when it cannot finish.
    """
    if not partition_asked(config):
        adopt_cohort(config)
    request = Request(config=config, typed=parse_typed_keys(list_arguments(), config))
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
            with guard_report(folder):
                return _say_gap(folder, gap, cohort)
        run_federation(config, cohort, folder, (display.event,), named)
    with guard_report(folder):
        if config.baseline is Baseline.local:
            report = report_run(folder, cohort)
            found = say_alone(folder)
            say_report(report)
            return found
        report = report_run(folder, cohort)
        found = say_result(folder)
    if config.predict is not None:
        with Display() as display:
            predicted = predict_set(config, folder, display.step)
        say_evaluation(predicted)
        say_submissions(folder, find_task(config.data.task), hashed=config.data.hash_ids)
    say_report(report)
    return found


def report_run(folder: Path, cohort: Cohort) -> Path:
    """Write a finished run's report.html and the files it is made from; return its path.

    The first of two stages has a report of its own.
    """
    # these load matplotlib, which must not delay the first round
    from fl_rsna.reporting.images.explanations import explain
    from fl_rsna.reporting.pages.data_pages import cohort_view
    from fl_rsna.reporting.pages.run_page import write_report

    if (folder / SLICE_STAGE).is_dir():
        report_run(folder / SLICE_STAGE, cohort)
    RunFolder(folder).write_json(COHORT_VIEW, cohort_view(cohort))
    if (folder / MODEL).exists():  # baseline=local has no global model
        explain(folder)
    return write_report(folder)


def _say_gap(folder: Path, summary: dict[str, Any], cohort: Cohort) -> dict[str, Any]:
    """Report the three runs of a gap, and print how federated compares with pooled and alone; return the row of a sweep's table."""
    from fl_rsna.reporting.pages.comparison import write_comparison
    from fl_rsna.reporting.pages.find_runs import find_runs

    reports = {name: report_run(folder / name, cohort) for name in PARTS}
    row = say_result(folder / GLOBAL)
    label = read_run(folder / GLOBAL).primary_label
    for name, by_label in summary["gap"].items():
        found = by_label[label]
        text = f"difference {interval(found['difference'])}, ratio {interval(found['ratio'])}"
        _say(f"federated against {name}, {area_name(label)}: {text}, paired over patients")
        row[f"federated / {name}"] = interval(found["ratio"])
    say_report(reports[GLOBAL])
    _say(f"all three: {write_comparison(find_runs(folder), folder / 'compare.html')}")
    return row


def say_alone(folder: Path) -> dict[str, Any]:
    """Print which round each site's own model is of and its AUROC on the test site; return the row of a sweep's table."""
    summary = RunFolder(folder).read_json("summary.json")
    run, areas = read_run(folder), dict[str, str]()
    for site, alone in summary["alone"].items():
        areas[site] = interval(area_of(alone["test_site"], run.primary_label))
        chosen = describe_final_model(cast(Summary, read_summary(folder / ALONE / site)), run.config)
        _say(f"{site} alone, final model: {chosen}")
        _say(f"{site} alone, {title_area(run.task, run.primary_label)}: {areas[site]}")
    return {
        "run": str(folder),
        **{f"{site} alone": area for site, area in areas.items()},
    }


def say_result(folder: Path) -> dict[str, Any]:
    """Print which model a run ended with, its scores on the test site and what they cannot show; return the row of a sweep's table."""
    run = read_run(folder)
    assert run.summary is not None
    scores, pictures = run.summary["test_site"], plural(run.task.picture)
    _say(f"final model: {describe_final_model(run.summary, run.config)}")
    if (detection := detect_exams(run)) is not None:
        _say(detection.text)
        _say(detection.how)
    for line in class_lines(scores, run.task):
        _say(f"test site, {line}")
    names = {label: title_area(run.task, label) for label in scores["slice"]}
    for label, score in scores["slice"].items():
        counted = f"{score['auroc']['positives']} of {scores['slices']} {pictures} positive"
        _say(f"{names[label]:<{max(map(len, names.values()))}}  {interval(score['auroc'])}, {counted}")
    controls = {name: interval(area) for name, area in control_of(scores["controls"], run.primary_label).items()}
    for control, area in controls.items():
        _say(f"{title_area(run.task, run.primary_label)} from {CONTROLS[Control(control)]} alone: {area}")
    for line in [*stage_lines(run.summary, run.headline), *stack_lines(run.summary, run.headline)]:
        _say(line)
    for text in list_cautions(run):
        console.print(f"[yellow]warning: {escape(text)}[/yellow]", soft_wrap=True)
    return {
        "run": str(folder),
        f"test {area_name(run.primary_label)} [95%]": interval(area_of(scores, run.primary_label)),
        **{f"{control} alone": area for control, area in list(controls.items())[:1]},
        "log loss": f"{scores['log_loss']:.3f}",
        "seconds": f"{run.summary['wall_s']:.0f}",
        "model_sha256": run.summary["model_sha256"][:12],
    }


def say_report(report: Path) -> None:
    """Print where the report is: the last line of a run."""
    _say(f"report: {report}")


def _say(line: str) -> None:
    if line:
        console.print(line, soft_wrap=True, markup=False)
