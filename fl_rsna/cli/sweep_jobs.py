"""Run the jobs of a sweep (--multirun): every job runs although others failed, and the end says how each ended.

The runs lie in one folder, named by the settings that the sweep varies. The same settings with resume=true go on with it.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from fl_rsna.common.command_end import attempt, command_again, goes_on_with, run_to_end
from fl_rsna.common.console_log import end_log, note
from fl_rsna.common.ownership import drop_folder, hold_lock, holds_nothing, make_folder, what_is
from fl_rsna.run_folder.sweep_folder import JOBS, Asked, Job, JobState, read_asked, read_jobs, write_asked, write_job
from fl_rsna.run_folder.sweep_settings import (
    find_fixed_settings,
    find_job_settings,
    find_varied_keys,
    folder_name,
    map_typed_settings,
    sweep_name,
)
from fl_rsna.settings.compose import read_config
from fl_rsna.settings.config import Config
from fl_rsna.strategies.find import STRATEGIES

SWEEP_FOLDER = "sweep"  # the kind of the folder in owner.json
Story = Callable[[Config], object]


class Sweep:
    """The sweep of this process; `folder` is None until it begins."""

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps  # whether jobs leave runs; if not, the folder is deleted at the end
        self.folder: Path | None = None
        self._lock = ExitStack()
        self._attempt = f"{os.getpid()}-{time.time_ns()}"

    def begin(self, config: DictConfig) -> None:
        """Make the folder, or open it with resume=true, and tell Hydra's jobs of it. Raises ValueError for a folder that is not this sweep's."""
        typed = [str(setting) for setting in config.hydra.overrides.task]
        given = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        settings = [*given, *typed]
        if "run.name" in find_varied_keys(settings):
            raise ValueError(
                "run.name: expected one name for the whole sweep, got several; its jobs are named by what differs"
            )
        self.folder = self._make_folder(config, settings)
        asked = Asked(
            words=tuple(settings),
            fixed=tuple(find_fixed_settings(settings)),
            typed=map_typed_settings(settings),
            attempt=self._attempt,
        )
        write_asked(self.folder, asked)
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(self.folder)
            quoted = str(self.folder).replace("\\", "\\\\").replace("'", "\\'")
            config.hydra.overrides.hydra.append(
                f"hydra.sweep.dir='{quoted}'"
            )  # Hydra composes jobs from these settings

    def _make_folder(self, config: DictConfig, settings: list[str]) -> Path:
        if not self.keeps:
            return Path(tempfile.mkdtemp(prefix="fl_rsna-sweep-"))
        given = [setting for setting in config.hydra.overrides.hydra if setting.startswith("hydra.sweep.dir=")]
        runs, name = Path(config.paths.runs), config.run.name
        folder = Path(config.hydra.sweep.dir) if given and name is None else runs / (name or sweep_name(settings))
        self._lock.enter_context(hold_lock(folder))  # until the end, so that no second process runs this sweep
        ours = what_is(folder) == SWEEP_FOLDER
        if ours and config.resume:
            return folder
        if folder.exists() and not holds_nothing(folder):
            raise ValueError(
                f"run.name: expected a new sweep, got the existing {folder}; choose another run.name, delete it"
                + (" or say resume=true" if ours else ": it is no sweep's")
            )
        make_folder(folder, SWEEP_FOLDER)
        return folder

    def leave(self) -> None:
        """Unlock the folder."""
        self._lock.close()

    def began_jobs(self) -> bool:
        """Check whether any job has begun."""
        return self.folder is not None and (self.folder / JOBS).is_dir()

    def jobs(self) -> list[Job]:
        """List the jobs that this command ran."""
        found = [] if self.folder is None else read_jobs(self.folder)
        return [job for job in found if job.attempt == self._attempt]

    def end(self, *, whole: bool) -> int:
        """Say how every job ended; return the exit code. `whole` is False where the sweep ended before all jobs ran."""
        from fl_rsna.reporting.pages.sweep_end import say_sweep

        if self.folder is None:
            return 0
        jobs = self.jobs()
        try:
            whole = whole and all(job.state is JobState.finished for job in jobs)
            say_sweep(self.folder, jobs, kept=self.keeps, go_on=None if whole else command_again("resume=true"))
        finally:
            if not self.keeps:
                drop_folder(self.folder)
        return 0 if whole else 1


class Begin(Callback):
    """Begin the sweep of this process before Hydra composes the first job (conf/config.yaml names this class)."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        run_to_end(lambda: self._begin(config))  # Hydra would turn an exception into a warning

    def _begin(self, config: DictConfig) -> None:
        try:
            _of_process.begin(config)
        except BaseException:
            _of_process.leave()
            raise


_of_process = Sweep(keeps=True)


def new_sweep(*, keeps: bool) -> Sweep:
    """Make the sweep that this process begins if --multirun asks for one."""
    global _of_process
    _of_process = Sweep(keeps=keeps)
    return _of_process


def in_sweep() -> bool:
    """Check whether Hydra runs a job of a sweep."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def run_job(story: Story, composed: DictConfig) -> None:
    """Run one job and record how it ended; raises only KeyboardInterrupt, which ends the sweep."""
    from fl_rsna.reporting.record.console import console

    folder, told = Path(HydraConfig.get().sweep.dir), HydraConfig.get()
    asked = read_asked(folder)
    settings = find_job_settings([str(setting) for setting in told.overrides.task], asked.fixed, asked.typed)
    name = folder_name(settings)

    def write(state: JobState, sentence: str = "", row: dict[str, Any] | None = None) -> None:
        job = Job(
            name=name, words=tuple(settings), number=told.job.num, attempt=asked.attempt, state=state, sentence=sentence, row=row or {}
        )  # fmt: skip
        write_job(folder, job)

    def act() -> object:
        config = read_config(composed, STRATEGIES)
        config.paths.runs, config.run.name = str(folder), name
        config.resume = (folder / name).exists()
        return story(config)

    console.print(f"sweep: {' '.join(settings) or name}", soft_wrap=True, markup=False)
    write(JobState.running)
    try:
        row, sentence = attempt(act)
    except KeyboardInterrupt:
        write(JobState.interrupted)
        note("error: interrupted\n")
        if _of_process.keeps:
            goes_on_with("resume=true")
        raise
    except SystemExit as left:
        row, sentence = None, f"ended with exit code {left.code}"
    finally:
        end_log()
    if sentence is not None:
        write(JobState.failed, sentence)
    else:
        write(JobState.finished, row=row if isinstance(row, dict) else None)
