"""Run the ray engine: Flower's simulation runtime, for several GPUs or a Ray cluster. It is imported only where it is used.

An actor that the system kills is started and asked again, once for each message, like a worker of the local engine.
"""

import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fl_rsna.common.command_end import RunFailed

ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # only the head of a Ray cluster answers this call
ANSWER_S = 10
NOBODY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)


def run_ray(
    server_app: ServerApp,
    client_app: Callable[[], ClientApp],
    *,
    num_sites: int,
    workers: int,
    gpus_per_worker: float | None,
    address: str | None = None,
) -> None:
    """Run a ServerApp against `num_sites` nodes on Ray actors of one CPU and `gpus_per_worker` GPUs, by default an even share.

    This machine gets `workers` actors; the cluster at `address`, which keeps running, gets as many as fit. Raises ValueError
    when there is no such cluster or no actor fits.
    """
    from flwr.simulation import run_simulation

    watched, ended = ServerApp(), list[BaseException | None]()

    @watched.main()
    def _main(grid: Grid, context: Context) -> None:
        """Run the ServerApp and keep its error, because Flower's thread loses some errors."""
        try:
            server_app(grid, context)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    with _cluster(workers, address) as nodes:
        share = gpu_share(workers, nodes, alone=address is None) if gpus_per_worker is None else gpus_per_worker
        check_room(nodes, share)
        logging.getLogger("flwr").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # run_simulation is deprecated in favour of `flwr run`, which needs a SuperLink
            run_simulation(
                server_app=watched,
                client_app=client_app(),
                num_supernodes=num_sites,
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": share, "max_restarts": -1, "max_task_retries": 1}
                },
            )

    for error in ended or [RunFailed("Flower's simulation ended before the run did")]:
        if error is not None:
            raise error


Resources = dict[str, float]  # of a node, in Ray's names: CPU, GPU


def gpu_share(workers: int, nodes: list[Resources], *, alone: bool) -> float:
    """Return the GPUs of one worker: 0 without GPUs, 1 in a cluster, and alone on this machine an even share for `workers`."""
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus == 0:
        return 0.0
    return 1 / math.ceil(workers / gpus) if alone else 1.0


def check_room(nodes: list[Resources], share: float) -> None:
    """Refuse to begin where no node has room for a worker; raises ValueError."""
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= share for node in nodes):
        held = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ValueError(
            f"engine.gpus_per_worker: expected a node with 1 CPU and {share:g} GPUs, got nodes with {held or 'nothing'}; "
            "lower it or add nodes"
        )


@contextmanager
def _cluster(workers: int, address: str | None) -> Iterator[list[Resources]]:
    """Join the cluster at `address`, or start one here, and yield the resources of its nodes; leave or end it afterwards."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    if address is not None:
        check_alive(address)
    code = [folder or os.getcwd() for folder in [*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]]
    variables = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(code)),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(
                address="local" if address is None else address,
                num_cpus=workers if address is None else None,
                include_dashboard=False if address is None else None,
                runtime_env={"env_vars": variables},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, SystemExit) as error:  # SystemExit: Ray's way to say it timed out
            if address is None:
                raise
            reason = " ".join(str(error).split()).split(". ")[0]
            raise ValueError(f"engine.address: expected a running Ray cluster at {address}, got: {reason}") from None
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def check_alive(address: str) -> None:
    """Refuse an address at which no head of a Ray cluster answers; raises ValueError. Ray itself tries for minutes and ends the process."""
    if address == "auto" or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    try:
        with grpc.insecure_channel(address) as channel:
            channel.unary_unary(ALIVE)(b"", timeout=ANSWER_S)
    except grpc.RpcError as error:
        if error.code() in NOBODY:
            raise ValueError(
                f"engine.address: expected the head of a Ray cluster at {address}, got no answer; "
                "start one with ray start --head, or leave engine.address out"
            ) from None
