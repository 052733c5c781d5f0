"""What other installed packages add to fl_rsna: entry points, and the folder of settings that each brings along."""

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A value that a package adds: `name` is how users call it, `package` and `version` are the distribution's."""

    name: str
    package: str
    version: str
    entry: EntryPoint

    def load(self) -> Any:
        """The value itself; raises ValueError when its module cannot be imported or has no such value."""
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
    """What installed packages declare under an entry point, by name; of two of one name the first on Python's path counts."""
    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        package, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else ("unknown", "unknown")
        found.setdefault(entry.name, Plugin(name=entry.name, package=package, version=version, entry=entry))
    return found
