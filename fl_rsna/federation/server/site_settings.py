"""Check the settings that name sites, or need a number of them, against the sites that there are."""

from collections.abc import Sequence
from dataclasses import fields

from fl_rsna.federation.server.sampling import compute_sample_size
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.find import find_strategy

SHOWN = 10  # at most so many names in a message


def check_sites(config: Config, sites: Sequence[str]) -> None:
    """Refuse a strategy that needs more sites a round than there are, and settings of sites that are not there; raises ValueError."""
    strategy, pooled = config.strategy, config.baseline is Baseline.central
    if strategy.min_sites > len(sites) and not pooled:
        raise ValueError(
            f"strategy.min_sites: expected at most {len(sites)}, the sites of this run, got {strategy.min_sites}; "
            "lower it or take more sites"
        )
    at_once = len(sites) if config.baseline is Baseline.none else 1  # a pool, or every site alone
    asked, needed = compute_sample_size(at_once, strategy), find_strategy(strategy).fewest_sites(strategy)
    if asked < needed:
        raise ValueError(
            f"strategy.name: {strategy.name}{_describe_parameters(strategy)} needs {needed} sites a round, got {asked}; "
            "take more sites, raise strategy.fraction or ask less of the strategy"
            + ("" if config.baseline is Baseline.none else f", and no baseline={config.baseline}")
        )
    if pooled:  # a pool has no sites of its own
        return
    for key, named in (
        ("faults.sites", config.faults.sites),
        ("network.speeds", config.network.speeds),
        ("network.downtime", config.network.downtime),
    ):
        for name in named:
            if name not in sites:
                known = ", ".join(sites[:SHOWN]) + (", ..." if len(sites) > SHOWN else "")
                raise ValueError(f"{key}: expected one of {known}, got {name}; name a site of this run or leave it out")


def _describe_parameters(strategy: StrategyConfig) -> str:
    """Name the strategy's own parameters as they are typed."""
    common = {item.name for item in fields(StrategyConfig)}
    own = [
        f"strategy.{item.name}={getattr(strategy, item.name)}" for item in fields(strategy) if item.name not in common
    ]
    return f" with {' '.join(own)}" if own else ""
