"""The ray engine: Flower's simulation runtime, for several GPUs or a Ray cluster. Imported only when asked for."""

import logging
import os
import warnings
from collections.abc import Callable

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp


def run_ray(
    server_app: ServerApp, client_app: Callable[[], ClientApp], *, num_sites: int, workers: int, gpus_per_worker: float
) -> None:
    """Run a ServerApp against `num_sites` nodes on `workers` Ray actors of one CPU each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["OMP_NUM_THREADS"] = "1"
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # run_simulation is deprecated in favour of `flwr run`, which needs a SuperLink
        run_simulation(
            server_app=server_app,
            client_app=client_app(),
            num_supernodes=num_sites,
            backend_config={
                "init_args": {
                    "num_cpus": workers,
                    "include_dashboard": False,
                    "log_to_driver": False,
                    "logging_level": logging.ERROR,
                },
                "client_resources": {"num_cpus": 1, "num_gpus": gpus_per_worker},
            },
        )
