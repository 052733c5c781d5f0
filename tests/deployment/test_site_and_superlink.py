"""A site before and after the coordinator knows its key, at a real SuperLink, through the commands that people type."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.deployment.coordinator import sync_keys
from fl_rsna.deployment.flower_internals import control
from fl_rsna.deployment.keys.key_folder import demo_files, write_new
from fl_rsna.deployment.site_node import free_port

pytestmark = pytest.mark.slow


@contextmanager
def started(*arguments: str, log: Path, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, from when its log says `until` on; ended by SIGTERM."""
    with log.open("wb") as stream:
        running = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        until_true(lambda: until in log.read_text() or running.poll() is not None, log.read_text)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(60)


def until_true(what: Callable[[], bool], failing: Callable[[], str]) -> None:
    """Look again and again, for a minute."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail(failing())


def test_a_key_is_known_once_it_is_registered_and_asking_changes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    keys, port = tmp_path / "certificates", free_port()
    write_new(keys, demo_files(keys, ["localhost"], ["site-1"]))
    place = ["--folder", str(cohort.site_folder("site-1")), "--state", str(tmp_path / "state"), "--name", "site-1"]
    site = ["fl_rsna.site", *place, "--keys", str(keys / "sites" / "site-1"), "--superlink", f"localhost:{port}"]
    serve = ["fl_rsna.superlink", "--certificates", str(keys / "superlink"), "--state", str(tmp_path / "superlink")]

    def checked() -> dict[str, str]:
        ended = subprocess.run([sys.executable, "-m", *site, "--check"], capture_output=True, text=True)
        found = [line.split(maxsplit=2) for line in ended.stdout.splitlines()]
        return {arguments[1].rstrip(":"): arguments[0] for arguments in found}

    def status_of_nodes() -> list[str]:
        with control(f"localhost:{port}", (keys / "superlink" / "ca.crt").read_bytes()) as api:
            return [node.status for node in api.nodes()]

    def answers() -> bool:
        try:
            status_of_nodes()
        except httpx.HTTPError:
            return False
        return True

    log = tmp_path / "superlink.log"
    with started(*serve, "--host", "127.0.0.1", "--port", str(port), log=log, until="https://"):
        until_true(answers, log.read_text)
        assert checked()["registered"] == "problem"
        sync_keys(f"localhost:{port}", keys / "superlink" / "ca.crt", keys / "authorized")
        before = status_of_nodes()
        assert checked()["registered"] == "ok"
        assert status_of_nodes() == before == ["registered"]
        assert not (tmp_path / "state").exists()
        with started(*site, log=tmp_path / "site.log", until="Uvicorn running"):
            until_true(lambda: status_of_nodes() == ["online"], log.read_text)
            assert checked()["registered"] == "ok"
            assert status_of_nodes() == ["online"]
    assert (tmp_path / "site.log").read_text().startswith("site-1 of cohort")
