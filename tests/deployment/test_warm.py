"""A warm site does each task in a fork of its own: output and exit codes arrive, and nothing stays behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from package import ROOT

from fl_rsna.deployment import ask_warm
from fl_rsna.deployment.warm import serve

LONGEST_WAIT_S = 120  # a slow machine needs some seconds to start Python
SERVER = """
import os, sys
parent = os.getppid()
from pathlib import Path
from fl_rsna.deployment.warm import serve
def act():
    print("did", *sys.argv, os.getpid(), flush=True)
    match sys.argv[1]:
        case "exits": sys.exit(int(sys.argv[2]))
        case "raises": raise ValueError("no such thing")
        case "dies": os.kill(os.getpid(), 9)
serve(Path(sys.argv[1]), act, parent)
"""


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A socket and the process behind it, whose standard input is what its parent's life hangs on."""
    path = tmp_path / "of" / "warm"
    path.parent.mkdir()
    holder = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {SERVER!r}, {str(path)!r}]); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        wait_until(lambda: path.exists() or parent.poll() is not None, f"no socket of the warm process at {path}")
        assert parent.poll() is None, "the parent of the warm process ended before the socket appeared"
        yield path, parent
    finally:
        parent.kill()
        parent.wait()


def wait_until(is_so: Callable[[], bool], complaint: str) -> None:
    """Wait until `is_so`; fail with the complaint after LONGEST_WAIT_S seconds."""
    end = time.monotonic() + LONGEST_WAIT_S
    while not is_so():
        if time.monotonic() > end:
            pytest.fail(f"{complaint} after {LONGEST_WAIT_S} s")
        time.sleep(0.05)


def asked(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", ask_warm.__file__, str(path), *arguments], capture_output=True, text=True
    )


def test_output_and_exit_code_are_those_of_the_task(warm: tuple[Path, subprocess.Popen[str]]) -> None:
    done = asked(warm[0], "a b", 'quote"d')
    assert done.returncode == 0
    assert done.stdout.startswith('did flwr-clientapp a b quote"d ')
    assert asked(warm[0], "exits", "7").returncode == 7
    raised = asked(warm[0], "raises")
    assert raised.returncode == 1
    assert "ValueError: no such thing" in raised.stderr


def test_every_task_has_a_process_of_its_own_and_a_killed_one_is_no_success(
    warm: tuple[Path, subprocess.Popen[str]],
) -> None:
    ids = {asked(warm[0], "x").stdout.split()[-1] for _ in range(3)}
    assert len(ids) == 3
    assert asked(warm[0], "dies").returncode != 0
    assert asked(warm[0], "exits", "3").returncode == 3


def test_it_ends_with_its_parent(warm: tuple[Path, subprocess.Popen[str]]) -> None:
    path, parent = warm
    parent.kill()
    parent.wait()
    wait_until(lambda: not path.parent.exists(), f"the warm process has not deleted its socket's folder {path.parent}")


def test_one_whose_parent_ended_while_it_was_loading_ends(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "of" / "warm"
    path.parent.mkdir()
    serve(path, lambda: None, gone.pid)
    assert not path.parent.exists()


def test_with_nobody_there_it_becomes_the_cold_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", ask_warm.__file__, str(tmp_path / "none"), "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.returncode == 0
    assert "Run a Flower ClientApp" in done.stdout
