"""Find a strategy by its name, in the files of this folder or in other installed packages.

A package declares `[project.entry-points."fl_rsna.strategies"]` with a line `name = "module:VALUE"`, where VALUE is a `Strategy` of
that name. A file or package is imported only when its strategy is asked for.
"""

import functools
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fl_rsna.common.plugins import STRATEGIES as STRATEGY_GROUP
from fl_rsna.common.plugins import find_plugin, find_plugins
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.strategy import Strategy

OURS = Path(__file__).parent


class Strategies(Mapping[str, Strategy[Any]]):
    """Every installed strategy by its name; the sites need the same ones as the server."""

    def __getitem__(self, name: str) -> Strategy[Any]:
        """Return the strategy called `name`.

        Raises KeyError when there is none, and ValueError when a package's entry point is no `Strategy` of that name.
        """
        # The file of that name comes first, so that FedAvg imports no other.
        ours = strategies_in(name).get(name) if name in _modules() else None
        ours = ours or _list_ours().get(name)
        plugin = find_plugin(STRATEGY_GROUP, name, "strategy.name", is_ours=ours is not None)
        if ours is not None:
            return ours
        if plugin is None:
            raise KeyError(name)
        value = plugin.load()
        if not isinstance(value, Strategy) or value.name != name:
            got = f"one called {value.name}" if isinstance(value, Strategy) else f"a {type(value).__name__}"
            raise ValueError(
                f"strategy.name: expected a Strategy called {name} in {plugin.package}, got {got}; ask its authors"
            )
        return value

    def __iter__(self) -> Iterator[str]:
        yield from sorted({*_list_ours(), *find_plugins(STRATEGY_GROUP)})

    def __len__(self) -> int:
        return sum(1 for _ in self)


STRATEGIES = Strategies()


def find_strategy(config: StrategyConfig) -> Strategy[Any]:
    """Return the strategy that the settings name; the settings were checked against the installed strategies."""
    return STRATEGIES[config.name]


def strategies_in(module: str) -> dict[str, Strategy[Any]]:
    """Import a module of this folder and return its strategies by name."""
    values = vars(import_module(f"{__package__}.{module}")).values()
    return {value.name: value for value in values if isinstance(value, Strategy)}


@functools.cache
def _list_ours() -> dict[str, Strategy[Any]]:
    found: dict[str, Strategy[Any]] = {}
    for module in _modules():
        found |= strategies_in(module)
    return found


def _modules() -> list[str]:
    return sorted(
        path.stem for path in OURS.glob("*.py") if path.stem not in ("__init__", "find", "strategy", "flower")
    )
