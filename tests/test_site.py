"""The command of a hospital: exit codes, and nothing left behind by a look."""

import subprocess
import sys
from pathlib import Path

import pytest


def site(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = [
        "--folder",
        str(folder / "site"),
        "--state",
        str(folder / "state"),
        "--keys",
        str(folder / "keys"),
        *arguments,
    ]
    return subprocess.run([sys.executable, "-m", "fl_rsna.site", *given], capture_output=True, text=True)


def test_check_says_every_problem_and_exits_1(tmp_path: Path) -> None:
    ended = site(tmp_path, "--superlink", "127.0.0.1:9092", "--check")
    assert ended.returncode == 1
    problems = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("problem")]
    assert problems == ["site:", "node", "CA", "loopback", "SuperLink:"]
    assert ended.stderr.startswith("error: this site could not take part: site, node key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--superlink", "127.0.0.1:9092"], "error: site: "),
        (["--superlink", "nowhere", "--check"], "error: --superlink: expected host:port"),
    ],
)
def test_what_cannot_be_met_exits_2_with_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    ended = site(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(said)
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
