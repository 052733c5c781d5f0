"""Prepare what was typed for Hydra: quote paths that hold an equals sign, such as runs/strategy=fedbn, and find the options."""

import re
from collections.abc import Sequence

from fl_rsna.settings.suggest import find_near

NAMED = r"(.*/)?[A-Za-z]\w*(\.\w+)*=."  # a path with a folder that is named by a key=value setting
PLAIN = r"[^\s,\[\]{}()'\":$]+"  # text between the signs that have a meaning in a value
FLAGS = (
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-m",
    "--multirun",
    "-r",
    "--run",
    "-sc",
    "--shell-completion",
    "--resolve",
)
VALUED = (
    "-c",
    "--cfg",
    "-p",
    "--package",
    "-cp",
    "--config-path",
    "-cn",
    "--config-name",
    "-cd",
    "--config-dir",
    "-i",
    "--info",
)
AGAIN = "--experimental-rerun"


def quote_paths(argument: str) -> str:
    """Quote every path with an equals sign in a setting's value, where Hydra can read the setting only then."""
    key, equals, value = argument.partition("=")
    if not equals or "=" not in value or _is_readable(argument):
        return argument

    def quote(part: re.Match[str]) -> str:
        return f"'{part[0]}'" if re.match(NAMED, part[0]) else part[0]

    found = f"{key}={re.sub(PLAIN, quote, value)}"
    return found if _is_readable(found) else argument


def _is_readable(argument: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser  # not loaded for --help
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def split_options(arguments: Sequence[str], such_as: str) -> tuple[list[str], list[str]]:
    """Split what was typed into Hydra's options, with their values, and the rest; each keeps its order.

    Hydra finds its options only where they stand before all key=value settings. Raises ValueError for an option that is
    none of Hydra's; its sentence gives `such_as` as an example of settings.
    """
    options, rest, left = list[str](), list[str](), list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            rest.append(argument)
        elif argument in FLAGS or (argument.partition("=")[0] in (*VALUED, AGAIN) and "=" in argument):
            options.append(argument)
        elif argument in (*VALUED, AGAIN):
            options += [argument, *(left[:1] if left and "=" not in left[0] else [])]
            left = left[1:] if left and "=" not in left[0] else left
        else:
            known = [option for option in (*FLAGS, *VALUED) if option.startswith("--")]
            near = find_near(argument.partition("=")[0], known)
            said = f"did you mean {near}?" if near else "--help lists them"
            raise ValueError(
                f"{argument}: expected key=value settings, such as {such_as}, got an option that is none; {said}"
            )
    return options, rest
