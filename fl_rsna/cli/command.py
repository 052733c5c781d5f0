"""Start every command that takes settings: Hydra composes them, and a dataclass checks them. command_end.py ends the command."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import hydra
from omegaconf import DictConfig

from fl_rsna.cli.hydra_arguments import quote_paths, split_options
from fl_rsna.cli.own_settings import OwnSettings
from fl_rsna.common.command_end import end_command, run_to_end
from fl_rsna.settings.compose import read_config, register_schema, say_plainly
from fl_rsna.settings.config import Config
from fl_rsna.settings.reference import conf_folder
from fl_rsna.strategies.find import STRATEGIES

T = TypeVar("T")


def run_command(story: Callable[[Config], object], *, makes_runs: bool = True) -> NoReturn:
    """Compose the configuration from conf/ and the command line, call `story` with it, and exit; --multirun calls it once a job.

    `makes_runs` says whether the jobs of a sweep leave runs, which are kept in one folder.
    """
    from fl_rsna.cli.sweep_jobs import in_sweep, new_sweep, run_job

    register_schema()
    sweep = new_sweep(keeps=makes_runs)

    def job(composed: DictConfig) -> object:
        if in_sweep():
            run_job(story, composed)
            return None
        return run_to_end(lambda: story(read_config(composed, STRATEGIES)))

    def whole() -> int:
        try:
            options, arguments = _read_typed("rounds=5, or --multirun")
            _run_hydra(job, [*options, *arguments], str(conf_folder()), "config")
            return sweep.end(whole=True)
        except BaseException:  # Ctrl-C, or a refusal between two jobs
            if sweep.began_jobs():
                sweep.end(whole=False)
            raise
        finally:
            sweep.leave()

    end_command(whole)


def run_own_command(story: Callable[[T], object], own: OwnSettings[T]) -> NoReturn:
    """Compose a command's own settings from the command line, call `story` with them, and exit. There is no --multirun."""
    own.register()

    def job(composed: DictConfig) -> object:
        return run_to_end(lambda: story(own.read(composed)))

    def whole() -> None:
        options, arguments = _read_typed("seed=1")
        for option in options:
            if option in ("-m", "--multirun"):
                raise ValueError(f"{option}: expected key=value settings with one value each; leave it out")
        own.refuse_unknown(arguments)
        _run_hydra(job, [*options, *arguments], None, own.command)

    end_command(whole)


def _read_typed(such_as: str) -> tuple[list[str], list[str]]:
    """Split what was typed into Hydra's options and key=value settings, with quotes around paths that need them."""
    return split_options([quote_paths(argument) for argument in sys.argv[1:]], such_as)


def _run_hydra(job: Callable[[DictConfig], object], typed: list[str], folder: str | None, name: str) -> None:
    """Have Hydra compose the configuration `name` with what was typed, and hand it to the job."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `end_command` instead of Hydra's own printing
    sys.argv[1:] = typed
    with say_plainly():
        hydra.main(version_base="1.3", config_path=folder, config_name=name)(job)()
