"""From a configuration and a cohort to a run folder: the engine is chosen here, for every command that trains."""

import functools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from fl_rsna.cohort.sites.site_folders import Cohort, read_site_files
from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.ownership import hold_lock, take_back
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.engines.workers import workers_for
from fl_rsna.federation.protocol.messages import phase_of
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.federation.server.run_log import STATE
from fl_rsna.federation.server_app import Story, make_server_app, select_entry
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.federation.site.heartbeat import no_old_beats
from fl_rsna.federation.stages import stages
from fl_rsna.learning.data.dataset import POOLED
from fl_rsna.learning.training.train import choose_device
from fl_rsna.reporting.trackers.follow import check_packages, track_run
from fl_rsna.run_folder.run_end import end_in_folder, end_of_parts
from fl_rsna.run_folder.run_folder import (
    BOTH,
    SLICE_STAGE,
    UNTRAINED,
    Listener,
    RunFolder,
    check_same,
    fold_folder,
    is_begun,
    is_finished,
    refuse_existing,
    start_run,
    take_run,
)
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import describe_need, without_effect
from fl_rsna.settings.fields import Asked
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.training import Device


def run_federation(
    config: Config,
    cohort: Cohort,
    folder: Path,
    listeners: tuple[Listener, ...],
    without: Mapping[str, str] | None = None,
) -> None:
    """Run the federation, or the baseline `config.baseline`, into a run folder, new or resumed; what is finished stays as it is.

    With `stage=both` that is two runs, the first inside the folder of the second. `without` are the settings without
    effect, of which the run says so; default: those that `config` by itself shows. Raises RunFailed when it cannot finish,
    ValueError when it cannot begin.
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
                check_same(where, part, cohort)  # all of them, before any is gone on with
        whole = take_run(folder, parts[-1][0], cohort, kind=BOTH, resume=config.resume) if len(parts) > 1 else None
        try:
            for number, (part, where) in enumerate(parts):
                _run_stage(part, cohort, where, listeners, named, says=number == 0)
        except ValueError:
            if whole is not None:
                take_back(folder, whole, ())
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
        with warnings.catch_warnings(record=True) as found:  # damage is named here: a site's own words stay at the site
            warnings.simplefilter("always")
            for site in (*cohort.sites, TEST_SITE):
                read_site_files(cohort.site_folder(site))
        run = start_run(folder, config, cohort, device, listeners, without=without)
        for key, need in without.items() if says and begins else ():
            run.event("warning", text=describe_need(key, need))
        if is_finished(folder):
            return
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
            if run.token is not None and not begun:  # refused at the roll call, before anything was trained
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
