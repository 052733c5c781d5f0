"""The ray engine joins a cluster that runs, works on all of its nodes, leaves it running, and refuses what is none."""

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from telling import app_that, die, leave_node
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.engines.ray import check_alive, check_room, gpu_share, run_ray
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config

pytestmark = pytest.mark.xdist_group("Ray cluster")  # which the tests of one worker share


def test_gpus_are_shared_alike() -> None:
    machine = [{"CPU": 8.0, "GPU": 2.0}]
    share = functools.partial(gpu_share, nodes=machine, alone=True)
    assert [share(workers) for workers in (1, 2, 3, 4, 5)] == [1, 1, 1 / 2, 1 / 2, 1 / 3]
    assert gpu_share(4, [{"CPU": 8.0}], alone=True) == 0
    assert gpu_share(2, [{"CPU": 8.0}, *machine], alone=False) == 1


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    check_room([{"CPU": 1.0}], 0)
    check_room([{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}], 0.5)
    with pytest.raises(
        ValueError, match=r"gpus_per_worker: expected a node with 1 CPU and 0\.5 GPUs, got nodes with 4 CPUs"
    ):
        check_room([{"CPU": 4.0}], 0.5)
    with pytest.raises(ValueError, match="got nodes with 0 CPUs and 2 GPUs"):
        check_room([{"GPU": 2.0}], 1)


def test_an_address_where_nothing_or_something_else_answers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    with pytest.raises(ValueError, match=rf"engine\.address: .* at 127\.0\.0\.1:{nobody}, got no answer; start one"):
        check_alive(f"127.0.0.1:{nobody}")
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with pytest.raises(ValueError, match=f"at 127.0.0.1:{port}, got no answer"):
            check_alive(f"127.0.0.1:{port}")
    finally:
        other.stop(None)


def test_telemetry_is_off_unless_asked_for() -> None:
    ask = "import fl_rsna.common.process, flwr.supercore.telemetry as t; print(t.FLWR_TELEMETRY_ENABLED)"
    free = {name: value for name, value in os.environ.items() if name != "FLWR_TELEMETRY_ENABLED"}
    for asked, expected in (({}, "0"), ({"FLWR_TELEMETRY_ENABLED": "1"}, "1")):
        said = subprocess.run([sys.executable, "-c", ask], env=free | asked, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == expected


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes of one CPU each, in processes of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "run"
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(_server(cohort, folder, tiny_config(rounds=1)), client, num_sites=3, workers=0)
    return _sha256(folder)


def _server(cohort: Cohort, folder: Path, config: Config) -> Any:
    return make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))


def _sha256(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["model_sha256"])


@pytest.mark.slow
def test_a_cluster_of_two_nodes_trains_the_same_model_and_runs_on(
    cohort: Cohort, tmp_path: Path, address: str, undisturbed: str
) -> None:
    for name in ("first", "second"):  # which needs the cluster that the first one left
        marks, folder = tmp_path / f"{name} marks", tmp_path / name
        marks.mkdir()
        client = functools.partial(
            app_that, functools.partial(leave_node, marks), cohort.folder, folder / "site_memory"
        )
        server = _server(cohort, folder, tiny_config(rounds=1))
        run_ray(server, client, num_sites=3, workers=2, gpus_per_worker=0, address=address)
        assert _sha256(folder) == undisturbed
        nodes = {path.name.split(" ")[0] for path in marks.iterdir()}
        assert len(nodes) == 2
        assert {path.name.split(" ")[1] for path in marks.iterdir()} == {"threads=1,telemetry=0"}
    check_alive(address)


@pytest.mark.slow
@pytest.mark.extra  # as a local worker that is killed, in test_deaths.py
def test_an_actor_that_is_killed_is_started_and_asked_again(
    cohort: Cohort, tmp_path: Path, address: str, undisturbed: str
) -> None:
    (tmp_path / "marks").mkdir()
    tell, folder = functools.partial(die, 1, 1, tmp_path / "marks"), tmp_path / "run"
    client = functools.partial(app_that, tell, cohort.folder, folder / "site_memory")
    run_ray(
        _server(cohort, folder, tiny_config(rounds=1)),
        client,
        num_sites=3,
        workers=2,
        gpus_per_worker=0,
        address=address,
    )
    assert len(list((tmp_path / "marks").iterdir())) == 1
    assert _sha256(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("unseen", ["cohort", pytest.param("run", marks=pytest.mark.extra)])
def test_a_node_that_cannot_see_the_folders_says_so(cohort: Cohort, tmp_path: Path, address: str, unseen: str) -> None:
    place = tmp_path / "elsewhere"
    folders = (place, tmp_path / "run" / "memory") if unseen == "cohort" else (cohort.folder, place / "memory")
    server = _server(cohort, tmp_path / "run", tiny_config())
    with pytest.raises(ValueError, match=r"roll call: node \d+ cannot take part: .*elsewhere"):
        run_ray(
            server,
            functools.partial(app_for_cohort, *folders),
            num_sites=3,
            workers=2,
            gpus_per_worker=0,
            address=address,
        )
    check_alive(address)
