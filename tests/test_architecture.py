"""The house keeps its order: imports point one way, among rooms and within them, and a few modules alone know a library."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from package import COMMANDS, PACKAGE

TOP = ""  # the modules of a room that lie in none of its folders
ROOMS: dict[str, tuple[str, ...]] = {  # each room, and each folder within one, may import those before it
    "version": (),
    "common": (),
    "task": (),
    "settings": (),
    "imaging": ("dicom", TOP),
    "phantom": ("head", "chest"),
    "cohort": ("prepared", "partition", "sites", "audit", TOP),
    "learning": ("data", "metrics", "models", "training", "inference"),
    "strategies": (),
    "run_folder": (),
    "federation": ("engines", "protocol", "site", "server", "stacking", TOP),
    "reporting": ("record", "images", "live", "sections", "trackers", "pages"),
    "evaluation": (),
    "checks": (),
    "simulation": (),
    "deployment": ("keys", TOP, "site_checks"),
    "cli": (),
}
MOST_FILES = 15  # in a folder; the commands at the top are not counted
MOST_LINES = 500  # of a module
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
NAMES = {path: ".".join(("fl_rsna", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in MODULES}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports anywhere in it, and of what it imports from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def ours(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    return imported(path) & set(NAMES.values())


def place_of(module: str) -> tuple[str, str]:
    """A module's room and the folder within it."""
    parts = module.split(".")[1:]
    return parts[0], parts[1] if len(parts) > 2 else TOP


def test_every_module_has_its_place() -> None:
    assert {"prepare", "partition", "simulate", "report"} <= COMMANDS
    for path, name in NAMES.items():
        room, folder = place_of(name)
        assert room in ROOMS or room in COMMANDS, f"{name_of(path)} lies in no room"
        assert not path.stem.startswith("test_"), f"flwr run leaves {name_of(path)} out"
        if room in ROOMS:
            assert folder in (ROOMS[room] or (TOP,)), f"{name_of(path)} lies in no folder of {room}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    room, folder = place_of(NAMES[path])
    for other in ours(path):
        their_room, their_folder = place_of(other)
        assert their_room not in COMMANDS, "nothing imports a command"
        if room in COMMANDS:
            continue
        rooms, folders = list(ROOMS), list(ROOMS[room] or (TOP,))
        assert rooms.index(their_room) <= rooms.index(room), f"{room} comes before {other}"
        if their_room == room:
            assert folders.index(their_folder) <= folders.index(folder), f"{room}/{folder} comes before {other}"


def test_no_modules_import_each_other() -> None:
    tuple(TopologicalSorter({name: ours(path) for path, name in NAMES.items()}).static_order())


def test_no_folder_is_too_full_and_no_module_too_long() -> None:
    for folder in {path.parent for path in MODULES} - {PACKAGE}:
        assert len([path for path in MODULES if path.parent == folder]) <= MOST_FILES, folder
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(path)}
    room, _ = place_of(NAMES[path])
    if "pydicom" in libraries:
        assert path == PACKAGE / "imaging" / "dicom" / "reader.py"
    if "flwr" in libraries:
        assert room in ("federation", "deployment", "strategies")
    if room == "learning":
        assert not libraries & {"flwr", "hydra", "omegaconf", "ray"}


def test_task_and_version_import_nothing_of_ours_but_what_other_packages_add() -> None:
    assert ours(PACKAGE / "task.py") == {"fl_rsna.common.plugins"}
    assert not ours(PACKAGE / "version.py")


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
