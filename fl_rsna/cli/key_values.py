"""key=value words of a command that has a record of its own: read as Hydra reads them, refused as the others refuse."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fl_rsna.cli.words import quote_paths
from fl_rsna.common.command_end import Parser

T = TypeVar("T")


def read_words(schema: type[T], words: Sequence[str], command: str) -> T:
    """The dataclass `schema` with what the words say; a value may be quoted as on every other command line.

    Unlike them it has no groups, so a word may be called like one (`model=runs/first`). Raises ValueError naming the
    word that is unknown, no key=value, or of another type.
    """
    known, node = list(_keys(schema)), OmegaConf.structured(schema)
    for word in words:
        override = _parse_override(word, command)
        key = str(override.key_or_group)
        if key not in known:
            raise ValueError(f"{key}: no such word; python -m fl_rsna.{command} takes {', '.join(known)}")
        try:
            OmegaConf.update(node, key, override.value())
        except OmegaConfBaseException as error:
            raise ValueError(f"{key}: {str(error).splitlines()[0]}") from None
    read = OmegaConf.to_object(node)
    assert isinstance(read, schema)
    return read


def parse_words(command: str, about: str | None) -> list[str]:
    """What was typed after such a command's name."""
    parser = Parser(
        prog=f"python -m fl_rsna.{command}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value")
    return list(parser.parse_args().words)


def _parse_override(word: str, command: str) -> Override:
    word = quote_paths(word)
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        override = None
    plain = override is not None and "=" in word and override.type is not None and override.type.name == "CHANGE"
    if override is None or not plain or override.is_sweep_override():
        raise ValueError(
            f"{word}: expected a key=value word of python -m fl_rsna.{command}, got one that cannot be read; "
            "quote special characters: key='\"a value\"'"
        )
    return override


def _keys(schema: type[Any], path: str = "") -> Iterator[str]:
    """The dotted keys of a dataclass of dataclasses."""
    types = get_type_hints(schema)
    for field in fields(schema):
        kind = types[field.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _keys(kind, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}"
