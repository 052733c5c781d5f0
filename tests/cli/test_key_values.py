"""key=value words of a command with a record of its own."""

from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from fl_rsna.cli.key_values import read_words


class Colour(StrEnum):
    red = "red"


@dataclass(kw_only=True, slots=True)
class Inner:
    size: int | None = None
    name: str = "x"


@dataclass(kw_only=True, slots=True)
class Outer:
    model: str | None = None
    colour: Colour | None = None
    data: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Outer()),
        (["model=runs/2026-01-02_03-04-05"], Outer(model="runs/2026-01-02_03-04-05")),
        (["model='a (b)=c'", "colour=red"], Outer(model="a (b)=c", colour=Colour.red)),
        (["data.size=3", "data.name=12", "data.size=4"], Outer(data=Inner(size=4, name="12"))),
        (["data.size=3", "data.size=null"], Outer()),
    ],
)
def test_words_are_read_as_hydra_reads_them(words: list[str], expected: Outer) -> None:
    assert read_words(Outer, words, "try") == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("modell=x", "modell: no such word; python -m fl_rsna.try takes model, colour, data.size, data.name"),
        ("data=x", "data: no such word"),
        ("+model=x", r"\+model=x: expected a key=value word"),
        ("~model", "~model: expected a key=value word"),
        ("model", "model: expected a key=value word"),
        ("model=a,b", "model=a,b: expected a key=value word"),
        ("model=a(b", "quote special characters"),
        ("data.size=many", "data.size: Value 'many'"),
        ("colour=blue", "colour: Invalid value 'blue', expected one of"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        read_words(Outer, [word], "try")
    assert "\n" not in str(refused.value)
