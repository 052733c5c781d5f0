"""The table of commands, the list of them, and what is no command."""

import ast
import runpy
import subprocess
import sys

import pytest
from package import COMMANDS as MODULES
from package import PACKAGE, ROOT

from fl_rsna.cli.commands import COMMANDS, list_commands, main


def test_every_command_stands_in_the_table_once() -> None:
    assert set(COMMANDS) == MODULES - {"__main__"}


def test_the_page_of_commands_has_the_same_table() -> None:
    page = (ROOT / "docs" / "commands.md").read_text().splitlines()
    for name, what in COMMANDS.items():
        assert f"| `{name}` | {what} |" in page


@pytest.mark.parametrize("typed", [[], ["--help"], ["help"]])
def test_the_list_has_a_line_for_each_command(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    list_commands(typed)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for name, what in COMMANDS.items():
        assert [line.split(maxsplit=1) for line in lines if line.startswith(f"  {name} ")] == [[name, what]]


def test_the_version_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    list_commands(["--version"])
    assert " (code " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("simualte", "simualte: no such command; did you mean fl-rsna simulate?"),
        ("own-sites", "own-sites: no such command; did you mean fl-rsna own_site?"),
        ("qqq", "qqq: no such command; fl-rsna alone lists all commands"),
        ("rounds=5", "rounds=5: expected a command first, e.g. fl-rsna simulate; fl-rsna alone lists all"),
    ],
)
def test_what_is_no_command_is_refused_in_one_sentence(argument: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=": ") as refused:
        list_commands([argument])
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("argument", ["own_site", "own-site"])
def test_a_command_gets_its_own_arguments(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started as python -m would start its module."""
    started = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **how: started.append((name, how, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["/env/bin/fl-rsna", argument, "--site", "a"])
    main()
    assert started == [("fl_rsna.own_site", {"run_name": "__main__", "alter_sys": True}, ["--site", "a"])]


HELP = """
import contextlib, runpy, sys
from fl_rsna.cli.commands import COMMANDS
for name in COMMANDS:
    sys.argv = ["fl-rsna", "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_module(f"fl_rsna.{name}", run_name="__main__")
    loaded = [library for library in ("numpy", "pandas", "torch", "flwr", "hydra", "matplotlib") if library in sys.modules]
    print(name, *loaded, file=sys.stderr)
"""


def test_the_help_of_no_command_loads_what_takes_time() -> None:
    """All of them one after the other in one process: what one loads is seen from there on."""
    done = subprocess.run([sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [*COMMANDS]


def test_the_table_loads_no_command_and_no_library() -> None:
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.parse((PACKAGE / "cli" / "commands.py").read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= {"runpy", "sys", "difflib", "fl_rsna.common.command_end"}
