"""A deployed site reads its folder and writes beside it; a test site nobody may write to is packed with the runs."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny import SIZE, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.protocol.messages import Failure, reply_failure
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import _locate_by_node, app_for_cohort, line_of, make_client_app, site_name
from fl_rsna.federation.site.handlers import SitePaths
from fl_rsna.learning.data.dataset import open_site, writable_cache
from fl_rsna.run_folder.run_folder import RunFolder, start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.partition import TEST_SITE

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below with its size and time of change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


def run_deployed(cohort: Cohort, states: Path, run: Path, config: Config) -> None:
    """A whole run whose sites are where SuperNodes were told to look, each with a folder of its own to write in."""

    def locate(context: Context) -> SitePaths:
        site = cohort.sites[int(context.node_config["partition-id"])]
        told = {"site-folder": str(cohort.site_folder(site)), "memory-folder": str(states / site)}
        return _locate_by_node(Context(run_id=1, node_id=1, node_config=told, state=RecordDict(), run_config={}))

    server = make_server_app(lambda context: (config, cohort, start_run(run, config, cohort, "cpu", ())))
    run_local(server, lambda: make_client_app(locate), num_sites=len(cohort.sites), workers=0)


def test_a_run_writes_nothing_into_site_folders(
    own_cohort: Cohort, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, run = listing(own_cohort.folder), tmp_path / "runs" / "one"
    with read_only(*(own_cohort.site_folder(site) for site in (*own_cohort.sites, TEST_SITE))):
        run_deployed(own_cohort, tmp_path / "states", run, tiny_config(rounds=1))
    assert listing(own_cohort.folder) == before
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    for site in own_cohort.sites:
        assert [path.suffix for path in (tmp_path / "states" / site / "packed").iterdir()] == [".npy"]
    assert [path.suffix for path in RunFolder(run).cache_folder(own_cohort.sha256).iterdir()] == [".npy"]
    said = [line.split() for line in capfd.readouterr().err.splitlines()]
    assert [words[1] if words[1] == "answered" else words[3] for words in said if words[0] == "site-1"] == [
        "answered",
        "trained",
        "validated",
        "counted",
        "scorecard",
    ]


def test_a_site_in_a_simulation_says_nothing(cohort: Cohort, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(rounds=1)
    server = make_server_app(lambda context: (config, cohort, start_run(tmp_path / "one", config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, tmp_path / "one" / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)
    assert capfd.readouterr().err == ""


def test_where_a_folder_is_packed(own_cohort: Cohort, tmp_path: Path) -> None:
    folder = own_cohort.site_folder("site-1")
    assert writable_cache(folder, tmp_path / "elsewhere") == folder / "packed"
    with read_only(folder):
        assert writable_cache(folder, tmp_path / "elsewhere") == tmp_path / "elsewhere"
        data = open_site(folder, image_size=SIZE, cache=tmp_path / "elsewhere")
    np.testing.assert_array_equal(data.images, open_site(folder, image_size=SIZE).images)


def test_a_failed_message_is_said_with_its_reason() -> None:
    sent = Message(RecordDict(), 1, MessageType.TRAIN, group_id="2")
    line = line_of(sent, reply_failure(sent, Failure(error="no image a.png", traceback="")), "site-1")
    assert line == "site-1  round 2  train failed: no image a.png"


def test_a_site_is_called_as_its_folder_says(own_cohort: Cohort, tmp_path: Path) -> None:
    assert site_name(own_cohort.site_folder("site-2").rename(tmp_path / "mounted")) == "site-2"
    assert site_name(tmp_path / "nothing") == "nothing"
