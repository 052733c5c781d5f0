"""Build a checked Config from command-line overrides with Hydra. The files in conf/ choose values; the dataclasses refuse unknown keys."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.settings.reference import conf_folder, list_plugin_folders
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.suggest import ALL_SETTINGS, list_keys, suggest_key, suggest_value
from fl_rsna.settings.validation import check


class HasSettings(Protocol):
    """A strategy, of which only the type of its settings is needed here."""

    @property
    def settings(self) -> type[StrategyConfig]: ...


Strategies = Mapping[str, HasSettings]


class PluginFolders(SearchPathPlugin):
    """A Hydra plug-in that searches the conf folders of other installed packages after fl_rsna's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder, package in list_plugin_folders().items():
            search_path.append(provider=package, path=f"file://{folder}")


@functools.cache
def register_schema() -> None:
    """Make the dataclasses the schema of conf/config.yaml, once a process.

    Mappings by site accept any site's name, mappings by label any label. The schema leaves `strategy` open: its keys are checked
    later, when the strategy's name is known.
    """
    Plugins.instance().register(PluginFolders)
    schema = OmegaConf.structured(Config)
    OmegaConf.set_struct(schema.strategy, False)
    by_site = (schema.partition.noise, schema.faults.sites, schema.network.speeds, schema.network.downtime)
    for named in (*by_site, schema.match.prevalence):
        OmegaConf.set_struct(named, False)
    ConfigStore.instance().store(name="schema", node=schema)


def as_config(composed: DictConfig, strategies: Strategies) -> Config:
    """Convert Hydra's composed configuration to the checked dataclass. Raises ValueError that names the key."""
    strategy = _read_strategy(composed.strategy, strategies)
    rest = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "strategy"])
    _refuse_unknown(rest, Config)
    groups: dict[str, Any] = {
        str(key): OmegaConf.to_object(node) if OmegaConf.is_config(node) else node for key, node in rest.items()
    }
    config = Config(**groups, strategy=strategy)
    check(config)
    return config


def _read_strategy(node: DictConfig, strategies: Strategies) -> StrategyConfig:
    """Read the settings of the strategy that `node` names, with its own parameters.

    Raises ValueError for an unknown strategy or key, and for another strategy's parameter unless its value is one that asks for nothing.
    """
    name, said = str(node.name), dict(node)
    if name not in strategies:
        near = suggest_value("strategy", name, list(strategies)) or "; choose one of them"
        raise ValueError(f"strategy.name: expected one of {', '.join(strategies)}, got {name!r}{near}")
    kind = strategies[name].settings
    known = {field.name for field in fields(kind)}
    for key in [str(key) for key in said if key not in known]:
        value = said.pop(key)
        owners = [other for other in strategies if key in {field.name for field in fields(strategies[other].settings)}]
        if not owners:
            theirs = {f"strategy.{field.name}" for other in strategies.values() for field in fields(other.settings)}
            near = suggest_key(f"strategy.{key}", [*theirs, *list_keys()], str(value), otherwise=ALL_SETTINGS)
            raise ValueError(f"strategy.{key}: no such setting{near}")
        owner = strategies[owners[0]].settings()
        off = next(declared.off for item, _, declared in list_settings(owner) if item == key)
        if value not in off:
            raise ValueError(
                f"strategy.{key}: expected strategy={' or '.join(owners)}, without which it has no effect, got {value}; leave it out"
            )
    found = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.create({"strategy": OmegaConf.structured(kind)}), {"strategy": said})
    )
    assert isinstance(found, dict)
    strategy = found["strategy"]
    assert isinstance(strategy, kind)
    return strategy


def _refuse_unknown(node: DictConfig, schema: Any, path: str = "") -> None:
    """Raise ValueError for a key that `+key=value` added and that no dataclass has."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(schema)}
    for key in map(str, node):
        if key not in kinds:
            near = suggest_key(f"{path}{key}", list_keys(), str(node[key]), otherwise=ALL_SETTINGS)
            raise ValueError(f"{path}{key}: no such setting{near}")
        if is_dataclass(kinds[key]):
            _refuse_unknown(node[key], kinds[key], f"{path}{key}.")


def compose_config(overrides: Sequence[str], strategies: Strategies) -> Config:
    """Compose the configuration that a command gets from these key=value settings. `strategies` holds every known strategy by name.

    Raises ValueError that names the key, or Hydra's own errors.
    """
    register_schema()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return as_config(compose("config", list(overrides)), strategies)


def quote_value(value: str) -> str:
    """Quote a text so that Hydra reads it back unchanged as the value of a key=value setting. A shell needs its own quotes around the setting."""
    text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return "'" + text.replace("${", "\\${") + "'"


def read_config(composed: DictConfig, strategies: Strategies) -> Config:
    """Convert Hydra's composed configuration to the checked dataclass. Raises ValueError for OmegaConf's errors, too."""
    with say_plainly():
        return as_config(composed, strategies)


@contextmanager
def say_plainly() -> Iterator[None]:
    """Turn errors that Hydra and OmegaConf raise in the body into a ValueError whose sentence names the setting."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_sentence(error)) from None


def list_arguments() -> list[str]:
    """List the key=value arguments of this command line; there are none where settings were composed in Python."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def partition_asked(config: Config) -> bool:
    """Say whether the command line, or the experiment it names, chooses how to assign patients. A cohort's name alone does not."""
    arguments = [argument.lstrip("+~") for argument in list_arguments()]
    by_argument = any(
        argument.startswith("partition") and not argument.startswith("partition.name=") for argument in arguments
    )
    return by_argument or replace(config.partition, name=None) != PartitionConfig()


def _sentence(error: Exception) -> str:
    """Describe an error of Hydra or OmegaConf in one sentence that names the setting."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: expected key=value settings, e.g. rounds=5, got one that cannot be read; quote special characters"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: expected one of {', '.join(error.options)}, got {choice!r}{suggest_value(group, choice, error.options)}"
    text, cause = (str(error).splitlines() or [type(error).__name__])[0], error.__cause__
    if unknown := re.match(r"Could not (?:override|append.*) '(.+?)'", text):
        typed = re.search(r"use \+(.+?)=(.*)", str(error))
        value = typed[2].strip() if typed and typed[1] == unknown[1] else None
        return f"{unknown[1]}: no such setting{suggest_key(unknown[1], list_keys(), value, otherwise=ALL_SETTINGS)}"
    told = cause or error
    if key := getattr(told, "full_key", None):
        said = str(told).splitlines()[0]
        wrong = re.match(r"Invalid value '(.*?)', expected one of \[(.*)\]", said)
        return f"{key}: {said}" + (suggest_value(key, wrong[1], wrong[2].split(", ")) if wrong else "")
    return text
