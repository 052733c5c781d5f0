"""Read back what is declared of settings: key, default, type, range and meaning of each, and the choices that a group has.

docs/all-settings.md, every --help and the shell's completion are made from this. The module imports no library.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from fl_rsna.common.plugins import GROUPS, find_plugins
from fl_rsna.settings.fields import KEY, Declaration
from fl_rsna.version import PACKAGE

NUMBERS = {int: "whole number", float: "number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A setting as a page shows it: its key, its value, the values it may have, and its meaning."""

    key: str
    value: str
    values: str
    meaning: str
    choices: tuple[str, ...] = ()  # the values of a choice; empty for anything else


def conf_folder() -> Path:
    """Return the folder of the YAML groups: inside the package when installed, beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


@functools.cache
def list_plugin_folders() -> dict[Path, str]:
    """Map the conf folders of other installed packages to the names of the packages."""
    plugins = [plugin for group in GROUPS for plugin in find_plugins(group).values()]
    return {plugin.conf: plugin.package for plugin in plugins if plugin.conf is not None}


@functools.cache
def list_groups() -> dict[str, tuple[str, ...]]:
    """Map each group of which a file is chosen to its choices, such as strategy to fedavg, fedprox and so on."""
    found: dict[str, set[str]] = {}
    for folder in (conf_folder(), *list_plugin_folders()):
        for path in folder.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: tuple(sorted(names)) for group, names in sorted(found.items())}


@functools.cache
def list_default_choices() -> dict[str, str]:
    """Map each group to the choice that conf/config.yaml makes; experiment has null."""
    return dict(re.findall(r"^  - (\w+): (\w+)$", (conf_folder() / "config.yaml").read_text(), re.MULTILINE))


def describe_settings(record: Any, path: str = "") -> Iterator[Described]:
    """Describe every setting of a record and of the records in it."""
    kinds = get_type_hints(type(record))
    for item in fields(record):
        value, key = getattr(record, item.name), f"{path}{item.name}"
        if is_dataclass(value):
            yield from describe_settings(value, f"{key}.")
        elif KEY in item.metadata:
            kind, declared = kinds[item.name], item.metadata[KEY]
            plain = [of for of in get_args(kind) or (kind,) if of is not NoneType]
            number = next((NUMBERS[of] for of in plain if of in NUMBERS), "") if get_origin(kind) is not dict else ""
            values = describe_values(kind, declared).replace("`", "")
            values = values if not number else f"{number}, {values}" if declared.within is not None else number
            is_choice = isinstance(plain[0], type) and issubclass(plain[0], Enum)
            yield Described(
                key=key,
                value=write_value(value),
                values=values,
                meaning=declared.meaning,
                choices=tuple(str(choice.value) for choice in plain[0]) if is_choice else ("true", "false") if kind is bool else (),
            )  # fmt: skip


def describe_values(kind: Any, declared: Declaration) -> str:
    """Describe what a setting may be: the range of a number, the choices of a choice, or the kind of value."""
    if declared.within is not None:
        return str(declared.within)
    if get_origin(kind) in (list, dict):
        return "a list" if get_origin(kind) is list else "a mapping"
    kinds = [of for of in get_args(kind) or (kind,) if of is not NoneType]
    null = ", or null" if NoneType in get_args(kind) else ""
    if isinstance(kinds[0], type) and issubclass(kinds[0], Enum):
        return ", ".join(f"`{choice.value}`" for choice in kinds[0]) + null
    return ("`true` or `false`" if kinds[0] is bool else "text") + null


def write_value(value: Any) -> str:
    """Write a value as one types it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case "":
            return "''"
        case float():
            return f"{value:g}"
        case _:
            return str(value)
