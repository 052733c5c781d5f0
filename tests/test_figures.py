"""The page of measured figures is written from their file, and a figure is older when its code changed after its commit."""

import importlib
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from package import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("figures")


def test_the_page_is_written_from_the_file(script: ModuleType) -> None:
    assert script.PAGE.read_text() == script.render_page(script.read_figures()), "run python scripts/figures.py write"


def test_what_a_figure_depends_on_exists(script: ModuleType) -> None:
    figures = script.read_figures()
    assert len({one.id for one in figures}) == len(figures)
    for one in figures:
        assert one.paths
        assert [path for path in one.paths if not (ROOT / path).exists()] == [], one.id
        named = [argument for argument in one.command.split() if argument.endswith((".py", ".sh"))]
        assert [argument for argument in named if not (ROOT / argument).exists()] == [], one.id


def test_a_figure_is_older_once_a_path_of_it_changes(script: ModuleType, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *user, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        git("add", name)
        git("commit", "-qm", f"{name} {text}")
        return git("rev-parse", "--short", "HEAD")

    git("init", "-q")
    figure = replace(script.read_figures()[0], commit=commit("measured", "1"), paths=("measured",))
    assert script.list_changes(figure, tmp_path) == []
    commit("other", "1")
    assert script.list_changes(figure, tmp_path) == []
    changed = commit("measured", "2")
    assert script.list_changes(figure, tmp_path) == [f"{changed} measured 2"]
    with pytest.raises(ValueError, match="git does not know commit 1234567"):
        script.list_changes(replace(figure, commit="1234567"), tmp_path)
