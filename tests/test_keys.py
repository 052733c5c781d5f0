"""The command that makes keys and certificates: once, never over others, private keys for their owner alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from fl_rsna.keys import declare_arguments, keys


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["keys", *arguments])
    keys(declare_arguments().parse_args())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_makes_a_demo_and_refuses_to_make_it_again(tmp_path: Path) -> None:
    arguments = ["demo", "--folder", str(tmp_path), "--sites", "a", "b", "--host", "h"]
    command = [sys.executable, "-m", "fl_rsna.keys", *arguments]
    made = subprocess.run(command, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    before = contents(tmp_path)
    assert len(made.stdout.splitlines()) == len(before) == 16
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout, len(again.stderr.splitlines())) == (2, "", 1)
    assert "never overwritten" in again.stderr
    assert contents(tmp_path) == before


def test_a_site_makes_its_keys_for_itself_and_one_file_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "site", "--name", "hospital-a")
    assert {path for path in contents(Path("certificates")) if path.suffix == ".pub"} == {
        Path("certificates/authorized/hospital-a.pub")
    }
    private = list(Path("certificates").rglob("*.key"))
    assert len(private) == 2
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    said = [line for line in capsys.readouterr().out.splitlines() if " travels " in line]
    assert [line.split()[0] for line in said] == ["certificates/authorized/hospital-a.pub"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: server|site|demo"),
        (["server", "--days", "0"], "expected 1 to 36500 days, got 0"),
        (["server", "--ca-days", "ten"], "expected 1 to 36500 days, got ten"),
        (["server", "--host", "a:9092"], "--host: expected a DNS name"),
        (["site"], "required: --name"),
        (["site", "--name", "../x"], "--name: expected letters"),
        (["demo", "--sites", "a", "A"], "--sites: expected each name once"),
    ],
)
def test_what_cannot_be_met_is_refused_and_leaves_nothing(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        run(monkeypatch, *arguments)
    assert sentence in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_one_key_that_is_there_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without ca.key but with the server's key gets neither an authority nor a certificate."""
    key = tmp_path / "superlink" / "server.key"
    key.parent.mkdir()
    key.write_text("mine")
    with pytest.raises(ValueError, match="never overwritten"):
        run(monkeypatch, "server", "--folder", str(tmp_path))
    assert contents(tmp_path) == {key: b"mine"}
