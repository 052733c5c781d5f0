"""Configurations from words, and the settings of a strategy by its name."""

from collections.abc import Sequence
from typing import Any

from fl_rsna.settings import compose
from fl_rsna.settings.config import Config
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.find import STRATEGIES


def compose_config(words: Sequence[str]) -> Config:
    return compose.compose_config(words, STRATEGIES)


def strategy_config(name: str, **settings: Any) -> StrategyConfig:
    return STRATEGIES[name].settings(**settings)  # type: ignore[no-any-return]
