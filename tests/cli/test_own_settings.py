"""key=value settings of a command whose settings are one dataclass of its own."""

import sys
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from composed import read_own

from fl_rsna.cli.command import run_own_command
from fl_rsna.cli.own_settings import OwnSettings


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
    ("arguments", "expected"),
    [
        ([], Outer()),
        (["model=runs/2026-01-02_03-04-05"], Outer(model="runs/2026-01-02_03-04-05")),
        (["model='a (b)=c'", "colour=red"], Outer(model="a (b)=c", colour=Colour.red)),
        (["data.size=3", "data.name=12", "data.size=4"], Outer(data=Inner(size=4, name="12"))),
        (["data.size=3", "data.size=null"], Outer()),
    ],
)
def test_words_are_read_as_hydra_reads_them(arguments: list[str], expected: Outer) -> None:
    assert read_own(Outer, arguments) == expected


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("modell=x", "modell: no such setting; did you mean model=x?"),
        ("xyzzy=x", "xyzzy: no such setting; python -m fl_rsna.try takes model, colour, data.size, data.name"),
        ("+model=x", r"\+model=x: expected a key=value setting"),
        ("~model", "~model: expected a key=value setting"),
        ("model", "model: expected a key=value setting"),
        ("model=a,b", "model=a,b: expected a key=value setting"),
        ("model=a(b", "quote special characters"),
        ("data.size=many", "data.size: Value 'many'"),
        ("colour=reed", r"colour: Invalid value 'reed', expected one of \[red\]; did you mean colour=red\?"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(argument: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        read_own(Outer, [argument])
    assert "\n" not in str(refused.value)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, list[Outer]]:
    """Run the command `try` with these arguments; its exit code, and the settings that its story was told."""
    told: list[Outer] = []
    monkeypatch.setattr(sys, "argv", ["fl_rsna", *arguments])
    with pytest.raises(SystemExit) as left:
        run_own_command(told.append, OwnSettings(command="try", schema=Outer))
    return int(left.value.code or 0), told


def test_a_command_is_told_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "model=runs/strategy=fedbn", "data.size=3") == (
        0,
        [Outer(model="runs/strategy=fedbn", data=Inner(size=3))],
    )


@pytest.mark.parametrize("argument", ["--multirun", "-m", "--size", "size=3", "data.size=x", "model=${nowhere}"])
def test_a_command_refuses_in_one_sentence(
    argument: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, argument) == (2, [])
    said = capfd.readouterr().err
    assert said.startswith(f"error: {argument.partition('=')[0]}: ")
    assert said.count("\n") == 1
