"""Simulate faults and time, from a seed and so alike in every engine and on every machine.

Sites drop out, straggle, crash or send corrupt models. The time of a round over real links is computed from bytes and steps.
"""

import numpy as np

from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.federation import FaultKind, FaultsConfig, LinkConfig, parse_fault


class SiteCrashed(RuntimeError):
    """The error of a site that faults.sites tells to crash."""


def fault_of(faults: FaultsConfig, site: str, round_: int) -> FaultKind | None:
    """Return the fault of a site in a round; None where it has none."""
    if site not in faults.sites:
        return None
    fault = parse_fault(faults.sites[site])
    return fault.kind if fault.first <= round_ <= fault.last else None


def corrupt_model(kind: FaultKind, received: FlatModel, trained: FlatModel) -> FlatModel:
    """Make the model that a site with this fault sends in place of the one it trained. Raises SiteCrashed under crash."""
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
    """Draw whether a site is out of reach for a whole round."""
    return _draw(seed, "dropout", site, round_) < faults.dropout


def slowdown(faults: FaultsConfig, seed: int, site: str, round_: int) -> float:
    """Draw the factor by which a site is slower than usual in a round; 1 for most sites."""
    return faults.slowdown if _draw(seed, "straggler", site, round_) < faults.stragglers else 1.0


def _draw(seed: int, purpose: str, site: str, round_: int) -> float:
    return float(np.random.default_rng(derive_seed(seed, purpose, site, round_)).random())


def site_seconds(
    network: LinkConfig, site: str, *, bytes_down: float, bytes_up: float, steps: float, slowdown: float = 1.0
) -> float:
    """Compute the virtual seconds from sending a site the model until its reply is there.

    They are two latencies, both transfers at the link's rate, and the steps at `step_s` each, divided by the site's speed and
    multiplied by `slowdown`; the sum is divided by 1 - downtime, the share of time in which the site is reachable.
    """
    transfer_s = 8e-6 * (bytes_down / network.down_mbit + bytes_up / network.up_mbit)
    work_s = slowdown * steps * network.step_s / network.speeds.get(site, 1.0)
    return (2 * network.latency_s + transfer_s + work_s) / (1 - network.downtime.get(site, 0.0))


def money(network: LinkConfig, *, byte_count: float, seconds: float, sites: int) -> float:
    """Compute the US dollars of `byte_count` bytes of traffic and of the machines of `sites` sites over `seconds` virtual seconds."""
    return network.usd_per_gigabyte * byte_count / 1e9 + network.usd_per_hour * sites * seconds / 3600
