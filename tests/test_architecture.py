"""The house keeps its order: imports point one way, and a few modules alone know a library."""

import ast
from pathlib import Path

import pytest
from package import COMMANDS, PACKAGE

ROOMS = [
    "imaging",
    "cohort",
    "learning",
    "federation",
    "reporting",
    "using",
    "checkup",
    "deployment",
]  # each may import those before it
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(path: Path) -> str | None:
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in ROOMS else None


def ours(path: Path) -> set[str]:
    """First parts below fl_rsna of what a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("fl_rsna.")}


def test_there_are_commands_and_rooms() -> None:
    assert {"prepare", "partition", "simulate", "report"} <= COMMANDS
    assert {room_of(path) for path in MODULES} >= set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room is not None:
        later = set(ROOMS[ROOMS.index(room) + 1 :])
        assert not ours(path) & later, f"{room} comes before {ours(path) & later}"
    assert not ours(path) & COMMANDS, "nothing imports a command"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(path)}
    if "pydicom" in libraries:
        assert path == PACKAGE / "imaging" / "dicom.py"
    if "flwr" in libraries:
        assert room_of(path) in ("federation", "deployment")
    if room_of(path) == "learning":
        assert not libraries & {"flwr", "hydra", "omegaconf", "ray"}


def test_task_imports_nothing_of_ours() -> None:
    assert not ours(PACKAGE / "task.py")


def test_init_files_are_empty() -> None:
    assert [path for path in PACKAGE.rglob("__init__.py") if path.read_text()] == []


def test_ray_is_imported_only_when_asked_for() -> None:
    """No module imports ray or flwr.simulation when it is loaded."""
    for path in MODULES:
        top = {
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in names_of(node)
        }
        assert not any(name == "ray" or name.startswith(("ray.", "flwr.simulation")) for name in top), path


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
