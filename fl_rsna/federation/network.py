"""Virtual time: how long a round would take over real links, from bytes and steps, the same on every machine."""

from fl_rsna.config import NetworkConfig


def site_seconds(
    network: NetworkConfig, site: str, *, bytes_down: float, bytes_up: float, steps: float, slowdown: float = 1.0
) -> float:
    """Virtual seconds from sending a site the model to holding its reply.

    Two latencies, both transfers at the link's rate, and the steps at `step_s` each over the site's speed; all of it as
    much longer as the site's downtime makes it on average.
    """
    transfer_s = 8e-6 * (bytes_down / network.down_mbit + bytes_up / network.up_mbit)
    work_s = slowdown * steps * network.step_s / network.speeds.get(site, 1.0)
    return (2 * network.latency_s + transfer_s + work_s) / (1 - network.downtime.get(site, 0.0))


def money(network: NetworkConfig, *, byte_count: float, seconds: float, sites: int) -> float:
    """US dollars for so much traffic, and for the machines of so many sites over so many virtual seconds."""
    return network.usd_per_gigabyte * byte_count / 1e9 + network.usd_per_hour * sites * seconds / 3600
