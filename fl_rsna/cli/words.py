"""What was typed, as Hydra reads it: quotes around a folder `strategy=fedbn`, which has an equals sign, and options before words."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

NAMED = r"(.*/)?[A-Za-z]\w*(\.\w+)*=."  # a folder named by a word, or a path through one
PLAIN = r"[^\s,\[\]{}()'\":$]+"  # what stands between the signs that mean something in a value
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


def quote_paths(word: str) -> str:
    """A word as Hydra reads it: every part of its value that is such a path is quoted, where that makes it readable."""
    key, equals, value = word.partition("=")
    if not equals or "=" not in value or _is_readable(word):
        return word
    found = f"{key}={re.sub(PLAIN, lambda part: _in_quotes(part[0]), value)}"
    return found if _is_readable(found) else word


def _in_quotes(part: str) -> str:
    return f"'{part}'" if re.match(NAMED, part) else part


def _is_readable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def options_first(words: Sequence[str]) -> list[str]:
    """The words of a command with Hydra's options before those of the form key=value, among which Hydra does not find them.

    Raises ValueError for an option that is none of Hydra's.
    """
    options, rest, left = list[str](), list[str](), list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            rest.append(word)
        elif word in FLAGS or (word.partition("=")[0] in (*VALUED, AGAIN) and "=" in word):
            options.append(word)
        elif word in (*VALUED, AGAIN):
            options += [word, *(left[:1] if left and "=" not in left[0] else [])]
            left = left[1:] if left and "=" not in left[0] else left
        else:
            raise ValueError(
                f"{word}: expected key=value words, such as rounds=5, or --multirun, got an option that is none; --help lists them"
            )
    return [*options, *rest]
