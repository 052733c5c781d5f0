"""No code but the installed one runs, whoever ships it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from package import ROOT

from fl_rsna.deployment.known_app import APP, INSTALLS, REFUSED, RUNS_IT, contents, guard_program, install_known
from fl_rsna.deployment.launch import environment


def test_the_installed_app_is_installed(tmp_path: Path) -> None:
    folder = install_known(build_fab_from_disk(APP), tmp_path)
    assert folder.is_relative_to(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize(
    ("file", "text"),
    [("evil.py", "print('here')\n"), ("pyproject.toml", "extra = 'a key'\n"), ("fl_rsna/__init__.py", "")],
)
def test_another_app_is_refused_and_leaves_nothing(file: str, text: str, tmp_path: Path) -> None:
    shutil.copytree(APP, tmp_path / "app")
    path = tmp_path / "app" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + text)
    bundle = build_fab_from_disk(tmp_path / "app")
    assert contents(bundle) != contents(build_fab_from_disk(APP))
    with pytest.raises(ValueError, match="installed here"):
        install_known(bundle, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bundle"):
        install_known(b"no zip", tmp_path)


@pytest.mark.parametrize("program", REFUSED)
def test_flowers_other_programs_are_refused(program: str) -> None:
    with pytest.raises(ValueError, match="no other"):
        guard_program(program)


@pytest.mark.parametrize("program", RUNS_IT)
def test_flower_still_installs_bundles_where_it_is_replaced(program: str) -> None:
    """In a process of its own: the replacement lasts."""
    code = f"""
from importlib import import_module
from fl_rsna.deployment.known_app import guard_program, install_known
act = guard_program({program!r})
assert getattr(import_module({RUNS_IT[program][0]!r}), {INSTALLS!r}) is install_known
assert callable(act)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_app_holds_no_code_and_says_our_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    app = tomllib.loads((APP / "pyproject.toml").read_text())
    assert [path.name for path in APP.iterdir()] == ["pyproject.toml"]
    assert app["project"]["version"] == project["project"]["version"]
    assert app["tool"]["flwr"] == project["tool"]["flwr"]


def test_flowers_programs_are_ours_in_the_environment(tmp_path: Path) -> None:
    found = environment(tmp_path / "with space")
    for program in (*RUNS_IT, *REFUSED):
        path = shutil.which(program, path=found["PATH"])
        assert path is not None
        assert Path(path).is_relative_to(tmp_path)
    ended = subprocess.run(["flwr-simulation", "--token", "x"], env=found, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "no other of Flower's apps" in ended.stderr
