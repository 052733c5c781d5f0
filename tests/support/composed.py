"""Configurations from arguments, and the settings of a strategy by its name."""

from collections.abc import Sequence
from typing import Any, TypeVar

import hydra

from fl_rsna.cli.hydra_arguments import quote_paths
from fl_rsna.cli.own_settings import OwnSettings
from fl_rsna.settings import compose
from fl_rsna.settings.config import Config
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.find import STRATEGIES

T = TypeVar("T")


def compose_config(arguments: Sequence[str]) -> Config:
    return compose.compose_config(arguments, STRATEGIES)


def strategy_config(name: str, **settings: Any) -> StrategyConfig:
    return STRATEGIES[name].settings(**settings)  # type: ignore[no-any-return]


def read_own(schema: type[T], arguments: Sequence[str]) -> T:
    """The settings that a command of its own dataclass `schema` gets from these arguments on its command line."""
    own, quoted = OwnSettings(command="try", schema=schema), [quote_paths(argument) for argument in arguments]
    own.register()
    own.refuse_unknown(quoted)
    with compose.say_plainly(), hydra.initialize(config_path=None, version_base="1.3"):
        composed = hydra.compose("try", quoted)
    return own.read(composed)
