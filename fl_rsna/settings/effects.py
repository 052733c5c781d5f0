"""Find the settings that have no effect in a run: a typed one is refused, one that a file chose is named.

A setting has an effect where all the needs of its declaration hold (fl_rsna/settings/fields.py). Values declared as `off` ask for nothing
and are never reported; neither are defaults that nobody typed.
"""

from collections.abc import Collection, Sequence
from typing import Any

from fl_rsna.common.id_scheme import can_be_guessed
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import Asked, Command, Declaration, list_settings
from fl_rsna.settings.training import Optimizer

READ: dict[Command, tuple[str, ...]] = {  # prefixes of the settings that these commands read
    Command.prepare: ("data.", "prepare.", "paths."),
    Command.assign: ("data.", "partition.", "paths."),
}
SIMULATED = (
    "data.",
    "prepare.",
    "demo.",
    "partition.",
    "engine.",
    "predict",
)  # prefixes without effect in a deployment
DEPLOYED = ("data.name", "data.task", "partition.name")  # exceptions: these act in a deployment, too


def settings(config: Any) -> dict[str, Any]:
    """Collect the values of all settings by key, such as train.hu_shift."""
    return {key: value for key, value, _ in list_settings(config)}


def declarations(config: Any) -> dict[str, Declaration]:
    """Collect the declarations of all settings by key, such as train.hu_shift."""
    return {key: declared for key, _, declared in list_settings(config)}


def defaults_of(config: Config) -> Config:
    """Build a configuration with the same strategy and every setting at its default."""
    return Config(strategy=type(config.strategy)())


def find_need(key: str, asked: Asked) -> str | None:
    """Say in words what a setting lacks to have an effect, or return None where it has one.

    The first thing it can lack is another command, which reads the setting where the one asked does not.
    """
    match asked.command:
        case Command.prepare | Command.assign:
            other = None if key.startswith(READ[asked.command]) else Command.simulate
        case Command.simulate:
            other = Command.coordinate if key.startswith("deploy.") else None
        case Command.coordinate:
            other = Command.simulate if key.startswith(SIMULATED) and key not in DEPLOYED else None
    if other is not None:
        return f"python -m fl_rsna.{other}"
    return next((need.words for need in declarations(asked.config)[key].needs if not need.holds(asked)), None)


def without_effect(asked: Asked, typed: Collection[str] = ()) -> dict[str, str]:
    """Map every chosen setting without effect to what it lacks.

    A setting is chosen when its value is not the default or its key is in `typed`. Settings of `paths` are left out.
    """
    plain, found = settings(defaults_of(asked.config)), dict[str, str]()
    for key, value, declared in list_settings(asked.config):
        chosen = value != plain[key] or key in typed
        if not chosen or key.startswith("paths.") or value in declared.off:
            continue
        need = find_need(key, asked)
        if need is not None:
            found[key] = need
    return found


def describe_need(key: str, need: str) -> str:
    """Say in one sentence that a setting has no effect, and what it lacks."""
    return f"{key}: has no effect in this run, which would need {need}"


def refuse_typed(asked: Asked, typed: Collection[str]) -> None:
    """Raise ValueError for a typed setting that has no effect, unless its value is the default or it is declared as `may_be_idle`."""
    plain, now, declared = settings(defaults_of(asked.config)), settings(asked.config), declarations(asked.config)
    for key, need in without_effect(asked).items():
        if key in typed and not declared[key].may_be_idle and now[key] != plain[key]:
            raise ValueError(
                f"{key}: expected {need}, without which it has no effect, got {now[key]}; {declared[key].instead}"
            )


def parse_typed_keys(arguments: Sequence[str], config: Config) -> frozenset[str]:
    """Collect the keys of the settings of `config` that key=value settings name.

    One that names an entry of a mapping counts for the mapping. One that chooses a group's file, such as model=timm, names no setting.
    """
    known = settings(config)
    named = {argument.lstrip("+").partition("=")[0] for argument in arguments if not argument.startswith("~")}
    return frozenset(key for name in named for key in known if name == key or name.startswith(f"{key}."))


def cautions(config: Config) -> list[str]:
    """List warnings of settings that have an effect, but not the one a user may expect."""
    return [*list_salt_warnings(config), *list_optimizer_warnings(config)]


def list_salt_warnings(config: Config) -> list[str]:
    """Warn of a salt that can be guessed, under which hashed ids are not secret; return no or one sentence."""
    data = config.data
    if not data.hash_ids or not data.salt or not can_be_guessed(data.salt):
        return []
    return [
        "data.salt: expected 32 random hexadecimal digits, as python -m fl_rsna.salt makes them, got a salt that can be guessed from its "
        "fingerprint in prepare.json, and patients' ids with it; a deployment refuses it"
    ]


def list_optimizer_warnings(config: Config) -> list[str]:
    """Warn of a strategy whose paper assumes SGD, used with another optimizer; return no or one sentence."""
    why = config.strategy.assumes_sgd
    if not why or config.train.optimizer is Optimizer.sgd:
        return []
    return [
        f"strategy.name: {config.strategy.name} {why}; its paper assumes SGD: say train.optimizer=sgd and a rate for it, or take "
        "another strategy"
    ]
