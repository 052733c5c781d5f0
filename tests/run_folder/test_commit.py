"""The manifest names the commit of fl_rsna's own checkout, and no other repository's."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fl_rsna.run_folder.manifest import git_commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def repository(folder: Path, package: str) -> Path:
    """A repository with a package in it, committed."""
    inside = folder / package
    inside.mkdir(parents=True)
    (inside / "version.py").write_text("")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return inside


def test_a_checkout_has_its_commit_and_a_sign_for_changes(tmp_path: Path) -> None:
    package = repository(tmp_path, "fl_rsna")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(package) == commit
    (tmp_path / "notes").write_text("")
    assert git_commit(package) == f"{commit}+"


def test_a_worktree_is_a_checkout(tmp_path: Path) -> None:
    repository(tmp_path / "main", "fl_rsna")
    git(tmp_path / "main", "worktree", "add", "-q", str(tmp_path / "other"))
    assert git_commit(tmp_path / "other" / "fl_rsna") == git(tmp_path / "main", "rev-parse", "HEAD")


def test_what_is_installed_inside_another_repository_has_none(tmp_path: Path) -> None:
    """Whether that repository keeps its environment out, as most do, or has it committed."""
    repository(tmp_path, "theirs")
    installed = tmp_path / ".venv" / "lib" / "fl_rsna"
    installed.mkdir(parents=True)
    (installed / "version.py").write_text("")
    assert git_commit(installed) is None
    git(tmp_path, "add", "-f", ".")
    git(tmp_path, "commit", "-qm", "all of it")
    assert git_commit(installed) is None
    untracked = tmp_path / "fl_rsna"
    shutil.copytree(installed, untracked)
    assert git_commit(untracked) is None


def test_no_repository_no_git_and_names_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = repository(tmp_path / "ours", "fl_rsna")
    repository(tmp_path / "theirs", "fl_rsna")
    (tmp_path / "theirs" / "more").write_text("")
    git(tmp_path / "theirs", "add", ".")
    git(tmp_path / "theirs", "commit", "-qm", "second")
    ours = git(tmp_path / "ours", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))  # as in a hook
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "theirs"))
    assert git_commit(package) == ours
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    (tmp_path / "fl_rsna").mkdir()
    assert git_commit(tmp_path / "fl_rsna") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(package) is None
