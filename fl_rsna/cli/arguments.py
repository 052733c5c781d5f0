"""Make the parser of every command that takes options and paths. What takes settings is read by Hydra: command.py."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fl_rsna.settings.suggest import find_near


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError for arguments it cannot read, so that the command says one sentence and exits with code 2.

    It also takes key=value where it has an option or a path of that name: run=runs/first is runs/first, and port=8020 is --port 8020.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(self._read_settings(sys.argv[1:] if args is None else args), namespace)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self._suggest(message) or f'{self.prog} --help says what is expected'}")

    def complete(self, arguments: Sequence[str], current: str) -> list[str]:
        """List what `current`, which follows `arguments`, may become: a mode of the command, an option, or a choice. Paths are not listed."""
        places = self._get_positional_actions()
        modes = {
            name: mode for place in places if isinstance(place.choices, dict) for name, mode in place.choices.items()
        }
        for number, argument in enumerate(arguments):
            if isinstance(mode := modes.get(argument), Parser):
                return mode.complete(arguments[number + 1 :], current)
        option, equals, value = current.partition("=")
        action = self._option_string_actions.get(option if equals else arguments[-1] if arguments else "")
        if action is not None and action.nargs != 0:
            typed, start = (value, f"{option}=") if equals else (current, "")
            return [f"{start}{choice} " for choice in action.choices or () if str(choice).startswith(typed)]
        if current.startswith("-"):
            known = [name for name in self._option_string_actions if name.startswith("--")]
            return [f"{name} " for name in known if name.startswith(current)]
        choices = [str(choice) for place in places for choice in place.choices or ()]
        return [f"{choice} " for choice in choices if choice.startswith(current) and choice not in arguments]

    def _read_settings(self, typed: Sequence[str]) -> list[str]:
        """Write key=value settings as options and paths; a path that exists stays as it is."""
        positional = {action.dest.rstrip("s") for action in self._get_positional_actions()} - {"setting"}
        found = list[str]()
        for argument in typed:
            key, equals, value = argument.partition("=")
            action = self._option_string_actions.get(f"--{key.replace('_', '-')}")
            if not equals or key.startswith("-") or Path(argument).exists():
                found.append(argument)
            elif key.rstrip("s") in positional:
                found += value.strip("[]").split(",") if value.startswith("[") else [value]
            elif action is None:
                found.append(argument)
            elif action.nargs == 0:
                found += [action.option_strings[-1]] if value.lower() == "true" else []
            else:
                values = value.strip("[]").split(",") if action.nargs == "+" else [value]
                found += [action.option_strings[-1], *values]
        return found

    def _suggest(self, message: str) -> str:
        """Write what was meant by an option or a choice that does not exist; nothing where none is near."""
        if option := re.match(r"unrecognized arguments: (--?[\w-]+)", message):
            near = find_near(option[1], [name for name in self._option_string_actions if name.startswith("--")])
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            near = find_near(choice[1], [name.strip("' ") for name in choice[2].split(",")], 0.5)
        else:
            return ""
        return f"did you mean {near}?" if near else ""


def create_parser(command: str, about: str | None, more: str | None = None) -> Parser:
    """Make the parser of `python -m fl_rsna.<command>`; --help says `about`, then the options, then `more`, as they are written."""
    form = argparse.RawDescriptionHelpFormatter
    return Parser(prog=f"python -m fl_rsna.{command}", description=about, epilog=more, formatter_class=form)


def parse_share(text: str) -> float:
    """Read an argument as a share above 0 and below 1."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got {text}")
    return share


def parse_count(text: str) -> int:
    """Read an argument as a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text}")
    return int(text)
