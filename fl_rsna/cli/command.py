"""How every command that Hydra composes starts: the dataclass checks what was typed. How it ends: command_end.py."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from fl_rsna.cli.words import options_first, quote_paths
from fl_rsna.common.command_end import end_command, run_to_end
from fl_rsna.settings.compose import conf_folder, plain_words, read_config, register_schema
from fl_rsna.settings.config import Config
from fl_rsna.strategies.find import STRATEGIES


def run_command(story: Callable[[Config], object], *, makes_runs: bool = True) -> NoReturn:
    """Compose the configuration from the command line, tell the story once (or per job of --multirun), exit.

    `makes_runs`: whether a sweep of the story has runs to keep in a folder.
    """
    from fl_rsna.cli.sweep_jobs import in_sweep, new_sweep, run_job

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `ending` instead of Hydra's own printing
    register_schema()
    sweep = new_sweep(keeps=makes_runs)

    def job(composed: DictConfig) -> object:
        if in_sweep():
            run_job(story, composed)
            return None
        return run_to_end(lambda: story(read_config(composed, STRATEGIES)))

    def run_hydra() -> int:
        sys.argv[1:] = options_first([quote_paths(word) for word in sys.argv[1:]])
        with plain_words():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
        return sweep.end(whole=True)

    def whole() -> int:
        try:
            return run_hydra()
        except BaseException:  # a person, or a refusal between two batches of a sweep
            if sweep.began_jobs():
                sweep.end(whole=False)
            raise
        finally:
            sweep.leave()

    end_command(whole)
