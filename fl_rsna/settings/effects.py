"""Where each setting acts. One that acts nowhere in a run is refused where somebody typed it, and named where a file chose it.

A setting acts where all the needs that it is declared with hold: fl_rsna/settings/fields.py. A value that is declared as off asks for
nothing, so nothing is said of it; neither is anything said of a default that nobody typed.
"""

from collections.abc import Collection, Sequence
from typing import Any

from fl_rsna.common.id_scheme import can_be_guessed
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import Asked, Command, Declaration, list_settings
from fl_rsna.settings.training import Optimizer

READ: dict[Command, tuple[str, ...]] = {  # beginnings of the settings that a step before a run reads
    Command.prepare: ("data.", "prepare.", "paths."),
    Command.deal: ("data.", "partition.", "paths."),
}
SIMULATED = (
    "data.",
    "prepare.",
    "demo.",
    "partition.",
    "engine.",
    "predict",
)  # of no account between machines, but for
DEPLOYED = ("data.name", "data.task", "partition.name")


def settings(config: Any) -> dict[str, Any]:
    """Every setting by its key, as in train.hu_shift."""
    return {key: value for key, value, _ in list_settings(config)}


def declarations(config: Any) -> dict[str, Declaration]:
    """What every setting is declared with, by its key."""
    return {key: declared for key, _, declared in list_settings(config)}


def defaults_of(config: Config) -> Config:
    """The defaults of every setting that a configuration has; which they are depends on its strategy."""
    return Config(strategy=type(config.strategy)())


def find_need(key: str, asked: Asked) -> str | None:
    """What a setting would need to act; None where it acts."""
    if (other := _command_of(key, asked.command)) is not None:
        return f"python -m fl_rsna.{other}"
    return next((need.words for need in declarations(asked.config)[key].needs if not need.holds(asked)), None)


def _command_of(key: str, command: Command) -> Command | None:
    """The command that reads a setting which this one does not."""
    match command:
        case Command.prepare | Command.deal:
            return None if key.startswith(READ[command]) else Command.simulate
        case Command.simulate:
            return Command.coordinate if key.startswith("deploy.") else None
        case Command.coordinate:
            return Command.simulate if key.startswith(SIMULATED) and key not in DEPLOYED else None


def without_effect(asked: Asked, typed: Collection[str] = ()) -> dict[str, str]:
    """The settings that were chosen, by a file or typed, and act nowhere, with what each would need; paths are never among them."""
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
    """A setting without effect, in words."""
    return f"{key}: has no effect in this run, which would need {need}"


def refuse_typed(asked: Asked, typed: Collection[str]) -> None:
    """Refuse a setting that somebody typed, with a value other than its default, and that acts nowhere; raises ValueError."""
    plain, now, declared = settings(defaults_of(asked.config)), settings(asked.config), declarations(asked.config)
    for key, need in without_effect(asked).items():
        if key in typed and not declared[key].may_be_idle and now[key] != plain[key]:
            raise ValueError(
                f"{key}: expected {need}, without which it has no effect, got {now[key]}; {declared[key].instead}"
            )


def parse_typed_keys(words: Sequence[str], config: Config) -> frozenset[str]:
    """The settings of `config` that key=value words name, also by a part of one that is a mapping.

    Groups, whose files choose, are none.
    """
    known = settings(config)
    named = {word.lstrip("+").partition("=")[0] for word in words if not word.startswith("~")}
    return frozenset(key for name in named for key in known if name == key or name.startswith(f"{key}."))


def cautions(config: Config) -> list[str]:
    """What acts, but not as its paper says, or not as a secret."""
    return [*list_salt_warnings(config), *list_optimizer_warnings(config)]


def list_salt_warnings(config: Config) -> list[str]:
    """The warning of a salt that is typed and hides no id."""
    data = config.data
    if not data.hash_ids or not data.salt or not can_be_guessed(data.salt):
        return []
    return [
        "data.salt: expected 32 random hexadecimal digits, as python -m fl_rsna.salt makes them, got a salt that can be guessed from its "
        "fingerprint in prepare.json, and patients' ids with it; a deployment refuses it"
    ]


def list_optimizer_warnings(config: Config) -> list[str]:
    """The warning of a strategy whose paper assumes SGD, under another optimizer."""
    why = config.strategy.assumes_sgd
    if not why or config.train.optimizer is Optimizer.sgd:
        return []
    return [
        f"strategy.name: {config.strategy.name} {why}; its paper assumes SGD: say train.optimizer=sgd and a rate for it, or take "
        "another strategy"
    ]
