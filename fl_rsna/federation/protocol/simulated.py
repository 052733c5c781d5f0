"""Simulated faults and simulated time, seeded and the same in every engine and on every machine.

Faults: sites drop out, straggle, crash or send what they should not. Time: how long a round would take over real links, from
bytes and steps.
"""

import numpy as np

from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.federation import FaultKind, FaultsConfig, LinkConfig, parse_fault


class SiteCrashed(RuntimeError):
    """What a site raises that was told to crash."""


def fault_of(faults: FaultsConfig, site: str, round_: int) -> FaultKind | None:
    """What is wrong with a site in a round."""
    if site not in faults.sites:
        return None
    fault = parse_fault(faults.sites[site])
    return fault.kind if fault.first <= round_ <= fault.last else None


def corrupt_model(kind: FaultKind, received: FlatModel, trained: FlatModel) -> FlatModel:
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


def site_seconds(
    network: LinkConfig, site: str, *, bytes_down: float, bytes_up: float, steps: float, slowdown: float = 1.0
) -> float:
    """Virtual seconds from sending a site the model to holding its reply.

    Two latencies, both transfers at the link's rate, and the steps at `step_s` each over the site's speed; all of it as
    much longer as the site's downtime makes it on average.
    """
    transfer_s = 8e-6 * (bytes_down / network.down_mbit + bytes_up / network.up_mbit)
    work_s = slowdown * steps * network.step_s / network.speeds.get(site, 1.0)
    return (2 * network.latency_s + transfer_s + work_s) / (1 - network.downtime.get(site, 0.0))


def money(network: LinkConfig, *, byte_count: float, seconds: float, sites: int) -> float:
    """US dollars for so much traffic, and for the machines of so many sites over so many virtual seconds."""
    return network.usd_per_gigabyte * byte_count / 1e9 + network.usd_per_hour * sites * seconds / 3600
