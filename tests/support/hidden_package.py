"""Hide an installed package from this process: it can neither be found nor imported, as where it is not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from unittest import mock


@contextmanager
def hide_package(package: str) -> Iterator[None]:
    """Hide a package, and what was imported of it, until the context ends."""
    find = PathFinder.find_spec

    def find_others(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] == package else find(name, path, target)  # type: ignore[arg-type]

    others = {name: module for name, module in sys.modules.items() if name.partition(".")[0] != package}
    with mock.patch.dict(sys.modules, others, clear=True), mock.patch.object(PathFinder, "find_spec", find_others):
        yield
