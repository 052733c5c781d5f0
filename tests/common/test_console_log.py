"""console.log of a run holds what was printed for it, and nothing else."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.control import Control
from rich.table import Table
from rich.text import Text

from fl_rsna.common.command_end import attempt, command_again
from fl_rsna.common.console_log import CONSOLE_LOG, console_log, end_log, keep_log, note
from fl_rsna.reporting.record.console import console


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    end_log()


def lines(folder: Path) -> list[str]:
    return (folder / CONSOLE_LOG).read_text().splitlines()


def test_what_is_printed_before_and_after_the_folder_is_there_in_order(tmp_path: Path) -> None:
    with console_log():
        console.print("[red]before[/red]")
        keep_log(tmp_path)
        console.print(Text("after", "green"))
        console.print(Control.home())
        table = Table()
        table.add_column("site")
        table.add_row("site-1")
        console.print(table)
    console.print("later")
    date, *said = lines(tmp_path)
    assert date.startswith("--- 20")
    assert (said[:2], "site-1" in "".join(said), "later" in said) == (["before", "after"], True, False)
    assert "\x1b" not in (tmp_path / CONSOLE_LOG).read_text()


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with console_log():
            keep_log(tmp_path)
            console.print(text)
    assert [line for line in lines(tmp_path) if not line.startswith("--- ")] == ["first", "second"]


def test_the_sentence_that_ends_a_run_is_its_last_line(tmp_path: Path) -> None:
    @console_log()
    def act() -> None:
        keep_log(tmp_path)
        raise ValueError("rounds: that cannot be")

    assert attempt(act) == (None, "rounds: that cannot be")
    assert lines(tmp_path)[-1] == "error: rounds: that cannot be"


def test_the_folder_that_came_first_keeps_the_log(tmp_path: Path) -> None:
    """A run of several parts has one log, in the folder around them."""
    (tmp_path / "part").mkdir()
    with console_log():
        keep_log(tmp_path)
        keep_log(tmp_path / "part")
    assert not (tmp_path / "part" / CONSOLE_LOG).exists()


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with console_log():
        console.print("no run begins")
        keep_log(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_was_taken_back_does_not_come_again(tmp_path: Path) -> None:
    with console_log():
        keep_log(tmp_path)
        (tmp_path / CONSOLE_LOG).unlink()
        console.print("refused")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argument", ["data.salt=0123456789abcdef", "data.salt=a b's", "tracking.mlflow_uri=http://me:pass@x"]
)
def test_secrets_are_not_written(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["simulate.py", argument, "rounds=2"])
    with console_log():
        keep_log(tmp_path)
        note(f"go on with: {command_again('resume=true')}\n")
    key, _, value = argument.partition("=")
    assert value not in (tmp_path / CONSOLE_LOG).read_text()
    assert f"{key}=*** rounds=2 resume=true" in lines(tmp_path)[-1]
