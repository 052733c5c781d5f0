"""The watch command: what it refuses in one sentence, and how it ends."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fl_rsna.reporting.live.server import Watcher, make_server
from fl_rsna.watch import watch


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_machines_are_not_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match=r"--host: expected 127\.0\.0\.1"):
        watch(tmp_path, host, 0)


def test_what_cannot_be_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "no" / "such" / "run"):
        with pytest.raises(ValueError, match="expected runs/<name>"):
            watch(run, "127.0.0.1", 0)


def test_a_run_that_is_not_there_is_said_at_once_with_the_one_that_was_meant(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
    with pytest.raises(ValueError, match=r"frist: no such run; did you mean .*/first\? With --wait this command waits"):
        watch(tmp_path / "frist", "127.0.0.1", 0)
    with pytest.raises(ValueError, match="no such run; there are first, second; with --wait"):
        watch(tmp_path / "other", "127.0.0.1", 0)
    with pytest.raises(ValueError, match="no such run; there is no run in "):
        watch(tmp_path / "none" / "x", "127.0.0.1", 0)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with make_server(Watcher(tmp_path), 0) as taken, pytest.raises(ValueError, match="--port: expected a free port"):
        watch(tmp_path, "127.0.0.1", taken.server_address[1])
    with pytest.raises(ValueError, match="--port: expected a free port"):
        watch(tmp_path, "127.0.0.1", 65536)


def hears_ctrl_c() -> None:
    """Whoever runs the tests in the background has SIGINT ignored, and what is started from there with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "fl_rsna.watch", str(tmp_path / "to-come"), "--port", "0", "--wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "which has not begun" in said
        url = next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
        with urllib.request.urlopen(url) as answer:
            assert b"waiting for the run to begin" in answer.read()
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
