"""Simulated faults: sites that drop out, straggle, crash or send what they should not. Seeded, the same in every engine."""

import numpy as np

from fl_rsna.config import FaultsConfig
from fl_rsna.fault_words import FaultKind, parse_fault
from fl_rsna.learning.flat import FlatModel
from fl_rsna.learning.seeds import derive_seed


class SiteCrashed(RuntimeError):
    """What a site raises that was told to crash."""


def fault_of(faults: FaultsConfig, site: str, round_: int) -> FaultKind | None:
    """What is wrong with a site in a round."""
    if site not in faults.sites:
        return None
    fault = parse_fault(faults.sites[site])
    return fault.kind if fault.first <= round_ <= fault.last else None


def corrupted(kind: FaultKind, received: FlatModel, trained: FlatModel) -> FlatModel:
    """What the site sends instead of what it trained."""
    change = trained.floats - received.floats
    match kind:
        case FaultKind.crash:
            raise SiteCrashed("told to crash by faults.sites")
        case FaultKind.nan:
            floats = trained.floats.copy()
            floats[:: max(1, floats.size // 7)] = np.nan
        case FaultKind.explode:
            floats = received.floats + np.float32(1e6) * change
        case FaultKind.misshape:
            floats = trained.floats[:-1]
        case FaultKind.flip:
            floats = received.floats - change
        case FaultKind.poison:
            floats = received.floats - np.float32(10) * change
    return FlatModel(floats, trained.integers)


def drops_out(faults: FaultsConfig, seed: int, site: str, round_: int) -> bool:
    """Whether a site is out of reach for a whole round."""
    return _draw(seed, "dropout", site, round_) < faults.dropout


def slowdown(faults: FaultsConfig, seed: int, site: str, round_: int) -> float:
    """How many times as long as usual a site takes in a round."""
    return faults.slowdown if _draw(seed, "straggler", site, round_) < faults.stragglers else 1.0


def _draw(seed: int, purpose: str, site: str, round_: int) -> float:
    return float(np.random.default_rng(derive_seed(seed, purpose, site, round_)).random())
