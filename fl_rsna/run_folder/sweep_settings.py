"""Find which settings of a sweep vary from job to job, as they were typed, and make folder names of them."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

UNSAFE = r"[^A-Za-z0-9._+-]+"  # signs that are replaced in a folder's name
LONGEST, SWEEP_LONGEST, HASH = (
    100,
    60,
    6,
)  # characters of a folder's name, of a sweep's keys, and of what makes either unique
NOT_SETTINGS = ("resume", "run.name", "paths.")  # settings that are not part of a sweep's name
AS_CONFIGURED = "as-configured"  # the name of the only job of a sweep without settings


def find_job_settings(settings: Sequence[str], fixed: Sequence[str], typed: Mapping[str, str]) -> list[str]:
    """List the settings of a job that the whole sweep does not share, as they were typed; all settings where none varies."""
    own = [setting for setting in settings if setting not in fixed] or list(settings)
    return [typed.get(setting, setting).lstrip("+") for setting in own]


def find_fixed_settings(typed: Sequence[str]) -> list[str]:
    """List the settings that every job has, both as they were typed and as Hydra passes them to a job."""
    same = [
        override
        for setting in typed
        if (override := _parse_setting(setting)) is not None and not override.is_sweep_override()
    ]
    as_given = [f"{override.get_key_element()}={override.get_value_element_as_str()}" for override in same]
    return list(dict.fromkeys([*as_given, *(str(override.input_line) for override in same)]))


def map_typed_settings(typed: Sequence[str]) -> dict[str, str]:
    """Map each setting as Hydra writes it for a job, e.g. `a=1e+30`, to the setting as it was typed, e.g. `a=1e30`."""
    found: dict[str, str] = {}
    for setting in typed:
        override = _parse_setting(setting)
        if override is None or not override.is_choice_sweep() or override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            continue
        key, values = override.get_key_element(), list(override.sweep_string_iterator())
        texts = _elements(override.get_value_string())
        if len(texts) == len(values):
            pairs = zip(values, texts, strict=True)
            found |= {f"{key}={value}": f"{key}={text}" for value, text in pairs if value != text}
    return found


def find_varied_keys(typed: Sequence[str]) -> list[str]:
    """List the keys that a sweep varies: those of its settings with several values."""
    parsed = [(setting, _parse_setting(setting)) for setting in typed]
    swept = [setting for setting, override in parsed if override is None or override.is_sweep_override()]
    return [setting.partition("=")[0].lstrip("+") for setting in swept]


def folder_name(settings: Sequence[str]) -> str:
    """Name a job's folder by its settings, shortened and made unique by a hash where a file system would refuse them."""
    if not settings:
        return AS_CONFIGURED
    parts = [setting.partition("=") for setting in settings]
    name = "+".join(re.sub(UNSAFE, "_", key) + equals + re.sub(UNSAFE, "_", value) for key, equals, value in parts)
    exact = "+".join(settings)
    return name if name == exact and len(name) <= LONGEST else f"{name[: LONGEST - HASH - 1]}-{_hash(exact)}"


def sweep_name(typed: Sequence[str]) -> str:
    """Name a sweep by the keys that it varies and a hash of all its settings; the same settings give the same name."""
    settings = sorted(setting for setting in typed if not setting.lstrip("+~").startswith(NOT_SETTINGS))
    keys = re.sub(UNSAFE, "_", "+".join(find_varied_keys(typed)))[:SWEEP_LONGEST]
    return "-".join(["sweep", *([keys] if keys else []), _hash("\n".join(settings))])


def values_of(settings: Sequence[str]) -> dict[str, str]:
    """Split a job's settings into settings and their values, as they were typed."""
    return {key: text for key, _, text in (setting.partition("=") for setting in settings)}


def _parse_setting(setting: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(setting)
    except HydraException:
        return None


def _elements(text: str) -> list[str]:
    """List the values of `1,2` or `choice(1,2)` as they were typed; nothing for functions that sort or draw values."""
    if called := re.fullmatch(r"\s*(\w+)\((.*)\)\s*", text, re.DOTALL):
        if called[1] != "choice":
            return []
        text = called[2]
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if sign == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH]
