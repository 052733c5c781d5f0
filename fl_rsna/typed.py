"""Words with values that Hydra's grammar would refuse unquoted: a folder `strategy=fedbn` has an equals sign."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

NAMED = r"(.*/)?[A-Za-z]\w*(\.\w+)*=."  # a folder named by a word, or a path through one
PLAIN = r"[^\s,\[\]{}()'\":$]+"  # what stands between the signs that mean something in a value


def quoted(word: str) -> str:
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
