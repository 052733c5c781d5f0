"""Make the parser of every command that takes options and paths. What takes settings is read by Hydra: command.py."""

import argparse
import math
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError for words it cannot read, so that the command says one sentence and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self.prog} --help says what is expected")


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
