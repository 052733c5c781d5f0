"""Complete what is typed after fl-rsna in a shell: commands, options, keys, and the choices of groups and settings; paths are left to the shell.

Nothing is imported but the declarations of settings, or the module of the command that is typed, so that the answer comes at once.
"""

import importlib
from collections.abc import Iterable, Sequence

from fl_rsna.cli.commands import COMMANDS
from fl_rsna.cli.guess import RUNS
from fl_rsna.cli.guides import GUIDES
from fl_rsna.settings.reference import Described, describe_settings, list_groups

BASH = r"""# bash completion of fl-rsna: eval "$(fl-rsna completion bash)"
_fl_rsna() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n' word before=""
    word="${line##*[[:space:]]}"
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        before="${word%=*}="  # readline replaces only what comes after the last equals sign
    fi
    COMPREPLY=($("${COMP_WORDS[0]}" completion bash --of "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o default -o nospace -F _fl_rsna fl-rsna
"""
# Of commands that take all settings; those with settings of their own have the first two.
OPTIONS = ("--help", "--cfg", "--multirun")


def complete_line(line: str) -> list[str]:
    """List what the last word of a line may become. A finished word ends with a space, a key with its equals sign, a group with a dot."""
    arguments = line.split()
    current = "" if line[-1:].isspace() or not arguments else arguments.pop()
    if len(arguments) < 2:
        return sorted(f"{name} " for name in COMMANDS if name.startswith(current))
    command = arguments[1].replace("-", "_")
    if command not in COMMANDS:
        return []
    if command not in GUIDES:
        module = importlib.import_module(f"fl_rsna.{command}")
        keys = [f"{key}=" for key in getattr(module, "KEYS", ()) if key.startswith(current)]  # of audit and replay
        return [*module.declare_arguments().complete(arguments[2:], current), *keys]
    if current.startswith("-"):
        options = OPTIONS if command in RUNS else OPTIONS[:2]
        return [f"{option} " for option in options if option.startswith(current)]
    described = {one.key: one for one in describe_settings(GUIDES[command].schema())}
    groups = list_groups() if command in RUNS else {}
    key, equals, value = current.partition("=")
    if key.startswith("strategy.") and command in RUNS:
        described |= _describe_strategies(arguments)
    if equals:
        return _complete_value(
            key, value, [*groups.get(key, ()), *(described[key].choices if key in described else ())]
        )
    return _complete_key(current, described, groups)


def _complete_value(key: str, value: str, choices: Iterable[str]) -> list[str]:
    """Complete a choice, or the last of several with commas between them, as a sweep takes them."""
    first, comma, last = value.rpartition(",")
    return sorted(f"{key}={first}{comma}{choice} " for choice in choices if choice.startswith(last))


def _complete_key(current: str, keys: Iterable[str], groups: Iterable[str]) -> list[str]:
    """Complete a key one part at a time: first `train.` and `train=`, then the keys in the group."""
    depth = current.count(".")
    found = {f"{group}=" for group in groups if group.startswith(current)}
    for key in keys:
        if key.startswith(current):
            parts = key.split(".")
            found.add(f"{key}=" if len(parts) == depth + 1 else ".".join(parts[: depth + 1]) + ".")
    return sorted(found)


def _describe_strategies(arguments: Sequence[str]) -> dict[str, Described]:
    """Describe the settings of the strategy that is typed before, or of every strategy."""
    from fl_rsna.strategies.find import STRATEGIES

    typed = [argument.partition("=")[2] for argument in arguments if argument.startswith("strategy=")]
    names = [name for name in typed if name in STRATEGIES] or list(STRATEGIES)
    return {one.key: one for name in names for one in describe_settings(STRATEGIES[name].settings(), "strategy.")}
