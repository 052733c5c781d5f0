"""Prepare what was typed for Hydra: quote paths that hold an equals sign, such as runs/strategy=fedbn, and find the options."""

import re
from collections.abc import Sequence

from fl_rsna.settings.suggest import find_near

NAMED = r"(.*/)?[A-Za-z]\w*(\.\w+)*=."  # a path with a folder that is named by a key=value word
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


def quote_paths(word: str) -> str:
    """Quote every path with an equals sign in a word's value, where Hydra can read the word only then."""
    key, equals, value = word.partition("=")
    if not equals or "=" not in value or _is_readable(word):
        return word

    def quote(part: re.Match[str]) -> str:
        return f"'{part[0]}'" if re.match(NAMED, part[0]) else part[0]

    found = f"{key}={re.sub(PLAIN, quote, value)}"
    return found if _is_readable(found) else word


def _is_readable(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser  # not loaded for --help
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def split_options(words: Sequence[str], such_as: str) -> tuple[list[str], list[str]]:
    """Split what was typed into Hydra's options, with their values, and the rest; each keeps its order.

    Hydra finds its options only where they stand before all key=value words. Raises ValueError for an option that is
    none of Hydra's; its sentence gives `such_as` as an example of words.
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
            known = [option for option in (*FLAGS, *VALUED) if option.startswith("--")]
            near = find_near(word.partition("=")[0], known)
            said = f"did you mean {near}?" if near else "--help lists them"
            raise ValueError(f"{word}: expected key=value words, such as {such_as}, got an option that is none; {said}")
    return options, rest
