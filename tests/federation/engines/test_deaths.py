"""A worker that the system kills costs a site one more attempt, and nobody else anything."""

import functools
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict
from telling import app_that, app_that_hangs, die, leave_pid
from tiny import LITE0, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import LocalGrid, identify, run_local
from fl_rsna.federation.engines.workers import hire
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Norm
from fl_rsna.settings.runtime import EngineName
from fl_rsna.simulation.simulation import run_federation

# Sites that remember: a repeated attempt finds the file that the killed one has written.
REMEMBERING = {
    "strategy__name": "scaffold",
    "model__norm": Norm.local,
    "network__precision_up": Precision.int8,
    "rounds": 2,
}


def run(cohort: Cohort, folder: Path, config: Config, client: Any, workers: int) -> list[tuple[int, str, str]]:
    """A run whose sites are those of `client`; the deaths it was told of: site, what it was asked, how."""
    deaths: list[tuple[int, str, str]] = []
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    run_local(
        server,
        functools.partial(client, cohort.folder, folder / "site_memory"),
        num_sites=len(cohort.sites),
        workers=workers,
        on_death=lambda site, message, how: deaths.append((site, message.metadata.message_type, how)),
    )
    return deaths


def dying(site: int, times: int, marks: Path) -> Any:
    marks.mkdir()
    return functools.partial(app_that, functools.partial(die, site, times, marks))


def leaving(marks: Path) -> Any:
    marks.mkdir()
    return functools.partial(app_that, functools.partial(leave_pid, marks))


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    assert not run(cohort, folder / "run", tiny_config(**REMEMBERING), leaving(folder / "marks"), 0)
    return str(summary(folder / "run")["model_sha256"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_site_whose_worker_is_killed_once_is_asked_again_and_the_model_is_the_same(
    cohort: Cohort, tmp_path: Path, undisturbed: str, workers: int
) -> None:
    client = dying(1, 1, tmp_path / "marks")
    [(site, asked, how)] = run(cohort, tmp_path / "run", tiny_config(**REMEMBERING), client, workers)
    assert (site, asked, how.split(",")[0]) == (1, "train", "SIGKILL")
    assert summary(tmp_path / "run")["site_failures"] == 0
    assert summary(tmp_path / "run")["model_sha256"] == undisturbed


@pytest.mark.slow
def test_a_site_whose_workers_always_die_is_named_and_the_others_go_on(cohort: Cohort, tmp_path: Path) -> None:
    deaths = run(cohort, tmp_path / "run", tiny_config(rounds=2), dying(1, 99, tmp_path / "marks"), 2)
    assert [site for site, _, _ in deaths] == [1, 1, 1, 1]  # twice a round
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    failed = [event for event in events if event["event"] == "site_failed"]
    assert [(event["round"], event["phase"], event["site"]) for event in failed] == [
        (1, "train", "site-2"),
        (2, "train", "site-2"),
    ]
    assert all("died twice (SIGKILL" in event["error"] for event in failed)
    assert all("lower engine.workers" in event["error"] for event in failed)
    done = [event["site"] for event in events if event["event"] == "site_done" and event["phase"] == "train"]
    assert done == ["site-1", "site-3"] * 2
    assert summary(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_the_run_folder_says_that_a_worker_died(cohort: Cohort, tmp_path: Path) -> None:
    config, [worker] = tiny_config(**LITE0, rounds=1, engine__name=EngineName.local, engine__workers=1), hire(1)

    def kill(kind: str, fields: Mapping[str, Any]) -> None:
        """Kill the worker on site-1's reply: by then it has site-2 in hand, of a network that takes a while."""
        if kind == "site_done" and fields["phase"] == "train" and fields["site"] == "site-1":
            worker.process.kill()

    run_federation(config, cohort, tmp_path / "run", (kill,))
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    [death] = [event for event in events if event["event"] == "worker_died"]
    assert (death["round"], death["phase"], death["site"]) == (1, "train", "site-2")
    assert death["how"].startswith("SIGKILL")
    assert summary(tmp_path / "run")["site_failures"] == 0


def test_jobs_of_one_process_share_workers_and_packed_data(own_cohort: Cohort, tmp_path: Path) -> None:
    def pids(name: str) -> set[str]:
        run(own_cohort, tmp_path / name, tiny_config(rounds=2), leaving(tmp_path / f"{name} marks"), 2)
        return {path.name.split("-")[0] for path in (tmp_path / f"{name} marks").iterdir()}

    def packed() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in own_cohort.folder.rglob("*.npy")}

    first, files = pids("first"), packed()
    assert files
    assert pids("second") <= {str(worker.process.pid) for worker in hire(2)}
    assert first <= {str(worker.process.pid) for worker in hire(2)}
    assert packed() == files


def test_a_worker_that_died_between_jobs_is_replaced_alone(cohort: Cohort, tmp_path: Path) -> None:
    before = [worker.process for worker in hire(2)]
    assert before[0].pid is not None
    os.kill(before[0].pid, signal.SIGKILL)
    before[0].join()
    assert not run(cohort, tmp_path / "run", tiny_config(rounds=1), leaving(tmp_path / "marks"), 2)
    after = [worker.process for worker in hire(2)]
    assert after[0].pid != before[0].pid
    assert after[1].pid == before[1].pid
    assert summary(tmp_path / "run")["site_failures"] == 0


def test_no_time_limits_a_site_of_a_simulation(cohort: Cohort, tmp_path: Path) -> None:
    """strategy.timeout_s is for sites that may be gone; here they work, or their worker is known to have died."""
    config = tiny_config(rounds=1, strategy__timeout_s=1e-9, strategy__quorum=1.0)
    assert not run(cohort, tmp_path / "run", config, leaving(tmp_path / "marks"), 1)
    found = summary(tmp_path / "run")
    assert (found["status"], found["site_failures"]) == ("finished", 0)


def test_a_worker_that_nobody_waits_for_any_more_is_ended(cohort: Cohort, tmp_path: Path) -> None:
    """Grid.send_and_receive keeps Flower's contract: what has not come in time is left out."""
    before = [worker.process for worker in hire(1)]
    identify()
    grid = LocalGrid(app_that_hangs, 2, 1)
    messages = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    assert list(grid.send_and_receive(messages, timeout=0.0)) == []
    before[0].join()
    assert before[0].exitcode == -signal.SIGKILL
    assert not run(cohort, tmp_path / "next", tiny_config(rounds=1), leaving(tmp_path / "next marks"), 1)
