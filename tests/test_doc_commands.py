"""Every command, file and setting that README, CONTRIBUTING and the docs name exists, and every command parses and composes."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed import compose_config, read_own
from hydra.core.override_parser.overrides_parser import OverridesParser
from package import COMMANDS, ROOT

from fl_rsna.audit import request_of
from fl_rsna.cli.hydra_arguments import quote_paths, split_options
from fl_rsna.evaluation.settings import EnsembleConfig, EvaluateConfig, ExportConfig
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings
from fl_rsna.strategies.find import STRATEGIES

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/tutorials/*.py"), *ROOT.glob("examples/**/*.md")]
)
HISTORY = {"CHANGELOG.md", "decisions.md"}  # they name what was, too
PAGES = [page for page in PAGES if page.name not in HISTORY]
EXAMPLE = ROOT / "examples" / "my_strategy"
ROOTS = (ROOT, EXAMPLE, EXAMPLE / "my_strategy")
MESSAGES = "threat-model.md"  # it names keys of messages; tests/federation/test_what_leaves.py reads it
OWN = {"evaluate": EvaluateConfig, "ensemble": EnsembleConfig, "export": ExportConfig}
COMPOSED = {"simulate", "prepare", "partition", "doctor", "coordinate"}
START = re.compile(r"(?:python3? -m fl_rsna\.|fl-rsna |docker compose run --rm )(\w+)((?:\\\n|[^`\n])*)")
FOLDERS = "fl_rsna|conf|docs|tests|studies|benchmarks|scripts|examples|deploy"
FILE = re.compile(rf"(?<![\w/.<-])(?:{FOLDERS})/[\w./-]*\w(?:/|\.\w+)")


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command in a page with its arguments; what stands in angle brackets is a name, what a shell fills in is a text.

    Left out are commands named in a sentence, and the table of short forms in commands.md, which tests/cli/test_guess.py reads.
    """
    for command, rest in START.findall(re.sub(r"^\| `fl-rsna .*$", "", text, flags=re.MULTILINE)):
        if rest.startswith((":", ",", ";", ")", ".")) or "<Tab>" in rest:
            continue
        rest = re.sub(r"\\\n\s*(?:# )?", " ", rest)
        rest = re.sub(r"\$\(.*?\)|\$\w+|<[^>]*>", "x", rest)
        rest = re.split(r" && | \| | > |; |\|$| \|\| |\) |\)\"", rest)[0]
        arguments = shlex.split(rest, comments=True)
        if arguments and "..." not in arguments and arguments != ["site"]:  # `keys site` without more
            yield {"coordinator": "coordinate"}.get(command, command), arguments  # a container's name


CALLS = [(page, *call) for page in PAGES for call in commands_of(page.read_text())]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [pytest.param(*call, id=f"{page.name}: {' '.join([call[0], *call[1]])[:70]}") for page, *call in CALLS],
)
def test_every_command_parses_and_composes(command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command in COMMANDS
    if arguments[0] == "--help" or any("my_strategy" in argument for argument in arguments):
        return  # help, or of examples/my_strategy; tests/test_plugins.py installs it and runs it
    if command in COMPOSED:
        options, arguments = split_options([quote_paths(argument) for argument in arguments], "rounds=5")
        assert ("--multirun" in options) == any("," in argument for argument in sweeps(arguments))
        compose_config([first_of(argument) for argument in arguments])
    elif command in OWN:
        read_own(OWN[command], arguments)
    elif command == "audit":
        request_of(arguments)
    else:
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        module = importlib.import_module(f"fl_rsna.{command}")
        module.parse_arguments() if command in ("site", "replay") else module.declare_arguments().parse_args()


def sweeps(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if OverridesParser.create().parse_override(argument).is_sweep_override()]


def first_of(argument: str) -> str:
    """An argument with the first of the values that it sweeps."""
    return argument.split(",")[0] if sweeps([argument]) else argument


def test_every_page_with_commands_is_read() -> None:
    pages = {page.name for page, *_ in CALLS}
    assert {
        "README.md",
        "own-data.md",
        "sweeps.md",
        "deploy.md",
        "cluster.md",
        "dicom-to-figure.py",
        "own-strategy.py",
    } - pages == {
        "dicom-to-figure.py"  # it calls them by subprocess; tests/test_tutorials.py runs it
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = {found.rstrip("/") for found in FILE.findall(page.read_text())}
    assert [name for name in sorted(named) if not any((root / name).exists() for root in ROOTS)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != MESSAGES], ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    config = Config()
    known = {key for key, _, _ in list_settings(config)}
    known |= {f"strategy.{name}" for of in STRATEGIES.values() for name in of.settings.__dataclass_fields__}
    groups = {key.split(".")[0] for key in known if "." in key}
    free = ("partition.noise.", "faults.sites.", "match.prevalence.", "network.speeds.", "network.downtime.")
    named = re.findall(rf"`'?((?:{'|'.join(sorted(groups))})\.[a-z_]\w*(?:\.\w+)*)(?=[`=])", page.read_text())
    files = re.compile(r"\.(py|yaml|md|csv|json|html|safetensors|parquet|jsonl|zip|onnx)$")
    typo = {"train.lr"}  # commands.md shows how it is answered
    wrong = [key for key in named if key not in known | typo and not key.startswith(free) and not files.search(key)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    found = [page.parent / link for link in links]
    wrong = [str(path) for path in found if not path.exists() and not path.with_suffix(".py").exists()]
    assert wrong == []


def test_readme_fits_on_a_page() -> None:
    assert (ROOT / "README.md").stat().st_size <= 9_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^    )make (?:\w+=\S+ )*([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets
