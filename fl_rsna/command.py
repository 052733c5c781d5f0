"""How every command starts and ends: Hydra composes, the dataclass checks, and errors become exit codes.

Exit 0: done. 1: the run failed, named. 2: the request cannot be met, one sentence on stderr.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fl_rsna.compose import as_config, conf_folder, register_schema
from fl_rsna.config import Config, PartitionConfig
from fl_rsna.typed import quoted

T = TypeVar("T")


class RunFailed(Exception):
    """A run that started and could not finish; its message is what the user reads, the exit code is 1."""


def run_command(story: Callable[[Config], object], *, makes_runs: bool = True) -> NoReturn:
    """Compose the configuration from the command line, tell the story once (or per job of --multirun), exit.

    `makes_runs`: whether a sweep of the story has runs to keep in a folder.
    """
    from fl_rsna.sweep_jobs import Interrupted, in_sweep, new_sweep, run_job

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `ending` instead of Hydra's own printing
    sys.argv[1:] = [quoted(word) for word in sys.argv[1:]]
    register_schema()
    sweep = new_sweep(keeps=makes_runs)

    def job(composed: DictConfig) -> object:
        if in_sweep():
            run_job(story, composed)
            return None
        return ending(lambda: story(as_config(composed)))

    try:
        ending(hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job))
    except Interrupted:
        sys.exit(ending(lambda: sweep.end(whole=False)))
    except SystemExit:  # refused, by us or by Hydra, perhaps between two batches of a sweep
        if sweep.began_jobs():
            ending(lambda: sweep.end(whole=False))
        raise
    else:
        sys.exit(ending(lambda: sweep.end(whole=True)))
    finally:
        sweep.leave()


def words_given() -> list[str]:
    """The key=value words of this command line."""
    return list(HydraConfig.get().overrides.task)


def partition_asked(config: Config) -> bool:
    """Whether the command line, or the experiment it names, says how to deal patients; a cohort's name alone does not."""
    words = [word.lstrip("+~") for word in words_given()]
    by_word = any(word.startswith("partition") and not word.startswith("partition.name=") for word in words)
    return by_word or replace(config.partition, name=None) != PartitionConfig()


def ending(act: Callable[[], T]) -> T:
    """Run `act`; a request that cannot be met exits 2 and a failed run exits 1, each with one sentence."""
    try:
        return act()
    except (HydraException, OmegaConfBaseException) as error:
        leave(2, _sentence(error))
    except UnicodeEncodeError as error:  # a path whose bytes are not UTF-8, in a place that needs it
        leave(2, f"expected paths in UTF-8, got {error.object!r}; rename that folder or file, or choose another")
    except ValueError as error:
        leave(2, str(error))
    except RunFailed as error:
        leave(1, str(error))
    except OSError as error:
        leave(2, f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        leave(1, "stopped by the user")


def leave(code: int, sentence: str) -> NoReturn:
    """Exit with one sentence on stderr."""
    print(f"error: {sentence}", file=sys.stderr)
    raise Left(code, sentence)


class Left(SystemExit):
    """An exit that knows the sentence it was left with."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code)
        self.sentence = sentence


def sentence_left(left: SystemExit) -> str:
    """What a command said when it was left."""
    return left.sentence if isinstance(left, Left) else f"ended with exit code {left.code}"


def _sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's errors as one sentence that names the setting."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected key=value words, e.g. rounds=5, got one that cannot be read; quote special characters"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: expected one of {', '.join(error.options)}, got {choice!r}"
    text, cause = str(error).splitlines()[0], error.__cause__
    if unknown := re.match(r"Could not (?:override|append.*) '(.+?)'", text):
        return f"{unknown[1]}: no such setting; python -m fl_rsna.simulate --cfg job prints all of them"
    if cause is not None and (key := getattr(cause, "full_key", None)):
        return f"{key}: {str(cause).splitlines()[0]}"
    return text
