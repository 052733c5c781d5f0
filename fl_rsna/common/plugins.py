"""Find what other installed packages add to fl_rsna by entry points, and their folders of settings.

    [project.entry-points."fl_rsna.strategies"]     a Strategy of that name: fl_rsna/strategies/strategy.py
    [project.entry-points."fl_rsna.models"]         a function of a ModelConfig and a number of labels: learning/models/backbone.py
    [project.entry-points."fl_rsna.tasks"]          a Task of that name: fl_rsna/task.py
    [project.entry-points."fl_rsna.partitioners"]   a function that assigns patients: cohort/partition/training_sites.py

Each entry is a line `name = "module:value"`. A package is imported only when its value is loaded.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STRATEGIES, MODELS, TASKS = "fl_rsna.strategies", "fl_rsna.models", "fl_rsna.tasks"
PARTITIONERS = "fl_rsna.partitioners"
GROUPS = (STRATEGIES, MODELS, TASKS, PARTITIONERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A value that a package adds. Users choose it by `name`; `package` and `version` are those of the distribution."""

    name: str
    package: str
    version: str
    entry: EntryPoint

    def load(self) -> Any:
        """Import the value. Raises ValueError when its module cannot be imported or has no such value."""
        try:
            return self.entry.load()
        except Exception as error:
            raise ValueError(
                f"{self.name}: expected {self.entry.value} of the package {self.package} {self.version}, got "
                f"{type(error).__name__}: {error}; install the package again or uninstall it"
            ) from error

    @property
    def conf(self) -> Path | None:
        """The folder `conf` of the package that holds the value, with groups of settings such as strategy/<name>.yaml."""
        spec = find_spec(self.entry.module.partition(".")[0])
        places = spec.submodule_search_locations if spec is not None else None
        return next((folder for place in places or () if (folder := Path(place) / "conf").is_dir()), None)


@functools.cache
def find_plugins(group: str) -> dict[str, Plugin]:
    """Find what installed packages declare under an entry point, by name. Of two with one name the first on Python's path counts."""
    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        package, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else ("unknown", "unknown")
        found.setdefault(entry.name, Plugin(name=entry.name, package=package, version=version, entry=entry))
    return found


def find_plugin(group: str, name: str, key: str, *, is_ours: bool) -> Plugin | None:
    """Find what a package adds under a name; None where there is nothing.

    Raises ValueError, which begins with the setting's `key`, where fl_rsna has a value of that name itself (`is_ours`).
    """
    plugin = find_plugins(group).get(name)
    if plugin is not None and is_ours:
        raise ValueError(
            f"{key}: expected one thing called {name}, got two: fl_rsna's own and that of {plugin.package}; uninstall "
            f"{plugin.package} or let it choose another name"
        )
    return plugin


def versions_of(named: Mapping[str, str]) -> dict[str, str]:
    """Map package to version for the plug-ins among `named`, which has a name for each group of entry points."""
    found = [find_plugins(group).get(name) for group, name in named.items()]
    return {plugin.package: plugin.version for plugin in found if plugin is not None}
