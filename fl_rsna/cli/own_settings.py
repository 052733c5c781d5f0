"""Compose the settings of a command that has its own: evaluate, ensemble and export.

One dataclass is all that Hydra composes. There are no groups and no files of conf/, so a setting may have the name of a group:
`model=runs/first` is a path here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fl_rsna.settings.compose import say_plainly
from fl_rsna.settings.suggest import suggest_key

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSettings(Generic[T]):
    """A command and the dataclass of its settings, which may hold further dataclasses."""

    command: str
    schema: type[T]

    def register(self) -> None:
        """Store the dataclass as Hydra's primary configuration, by the command's name."""
        store = ConfigStore.instance()
        store.store(name=f"{self.command}_schema", node=OmegaConf.structured(self.schema))
        quiet = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
        hydra = {"run": {"dir": "."}, "output_subdir": None, "job": {"chdir": False}}
        node = {"defaults": [f"{self.command}_schema", "_self_", *quiet], "hydra": hydra}
        store.store(name=self.command, node=node)

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Raise ValueError for an argument that is no key=value with one value, or whose key the command does not have."""
        known = [key for key, _ in list_settings(self.schema)]
        for argument in arguments:
            try:
                override = OverridesParser.create().parse_override(argument)
                is_plain = "=" in argument and not argument.startswith(("+", "~")) and not override.is_sweep_override()
            except HydraException:
                is_plain = False
            if not is_plain:
                raise ValueError(
                    f"{argument}: expected a key=value setting of python -m fl_rsna.{self.command}, got one that cannot be read; "
                    "quote special characters: key='\"a value\"'"
                )
            if override.key_or_group not in known:
                key, takes = override.key_or_group, f"python -m fl_rsna.{self.command} takes {', '.join(known)}"
                value = argument.partition("=")[2]
                raise ValueError(f"{key}: no such setting{suggest_key(key, known, value, otherwise=takes)}")

    def read(self, composed: DictConfig) -> T:
        """Turn what Hydra composed into the dataclass. Raises ValueError."""
        with say_plainly():
            settings = OmegaConf.to_object(composed)
        assert isinstance(settings, self.schema)
        return settings


def list_settings(schema: type[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the default of every value in a dataclass of dataclasses."""
    types = get_type_hints(schema)
    for field in fields(schema):
        kind = types[field.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from list_settings(kind, f"{path}{field.name}.")
        else:
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            yield f"{path}{field.name}", made
