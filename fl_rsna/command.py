"""How every command that Hydra composes starts: the dataclass checks what was typed. How it ends: command_end.py."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fl_rsna.command_end import RunFailed as RunFailed
from fl_rsna.command_end import end_command, ending
from fl_rsna.compose import as_config, conf_folder, register_schema
from fl_rsna.config import Config, PartitionConfig
from fl_rsna.typed import options_first, quoted


def run_command(story: Callable[[Config], object], *, makes_runs: bool = True) -> NoReturn:
    """Compose the configuration from the command line, tell the story once (or per job of --multirun), exit.

    `makes_runs`: whether a sweep of the story has runs to keep in a folder.
    """
    from fl_rsna.sweep_jobs import in_sweep, new_sweep, run_job

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `ending` instead of Hydra's own printing
    register_schema()
    sweep = new_sweep(keeps=makes_runs)

    def job(composed: DictConfig) -> object:
        if in_sweep():
            run_job(story, composed)
            return None
        return ending(lambda: story(read_config(composed)))

    def composed() -> int:
        sys.argv[1:] = options_first([quoted(word) for word in sys.argv[1:]])
        with _plain_words():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
        return sweep.end(whole=True)

    def whole() -> int:
        try:
            return composed()
        except BaseException:  # a person, or a refusal between two batches of a sweep
            if sweep.began_jobs():
                sweep.end(whole=False)
            raise
        finally:
            sweep.leave()

    end_command(whole)


def read_config(composed: DictConfig) -> Config:
    """What Hydra composed, as the dataclass. Raises ValueError."""
    with _plain_words():
        return as_config(composed)


@contextmanager
def _plain_words() -> Iterator[None]:
    """Errors of Hydra and OmegaConf become a ValueError, whose sentence names the setting."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_sentence(error)) from None


def words_given() -> list[str]:
    """The key=value words of this command line."""
    return list(HydraConfig.get().overrides.task)


def partition_asked(config: Config) -> bool:
    """Whether the command line, or the experiment it names, says how to deal patients; a cohort's name alone does not."""
    words = [word.lstrip("+~") for word in words_given()]
    by_word = any(word.startswith("partition") and not word.startswith("partition.name=") for word in words)
    return by_word or replace(config.partition, name=None) != PartitionConfig()


def _sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's errors as one sentence that names the setting."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected key=value words, e.g. rounds=5, got one that cannot be read; quote special characters"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: expected one of {', '.join(error.options)}, got {choice!r}"
    text, cause = (str(error).splitlines() or [type(error).__name__])[0], error.__cause__
    if unknown := re.match(r"Could not (?:override|append.*) '(.+?)'", text):
        return f"{unknown[1]}: no such setting; python -m fl_rsna.simulate --cfg job prints all of them"
    if cause is not None and (key := getattr(cause, "full_key", None)):
        return f"{key}: {str(cause).splitlines()[0]}"
    return text
