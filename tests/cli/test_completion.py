"""What the Tab key offers after fl-rsna, asked of the function itself and of bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package import ROOT

from fl_rsna.cli.commands import COMMANDS
from fl_rsna.cli.completion import complete_line
from fl_rsna.settings.reference import list_groups


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fl-rsna sim", ["simulate "]),
        ("fl-rsna s", ["salt ", "simulate ", "site ", "superlink "]),
        ("fl-rsna simulate rou", ["rounds="]),
        ("fl-rsna simulate mod", ["model.", "model="]),
        ("fl-rsna simulate train.learn", ["train.learning_rate="]),
        ("fl-rsna simulate strategy=fedp", ["strategy=fedprox "]),
        ("fl-rsna simulate --multirun strategy=fedavg,fedp", ["strategy=fedavg,fedprox "]),
        ("fl-rsna simulate strategy=fedprox strategy.m", ["strategy.max_update=", "strategy.min_sites=", "strategy.mu="]),
        ("fl-rsna simulate train.optimizer=", ["train.optimizer=adamw ", "train.optimizer=sgd "]),
        ("fl-rsna simulate resume=t", ["resume=true "]),
        ("fl-rsna simulate --mul", ["--multirun "]),
        ("fl-rsna evaluate part=va", ["part=validation "]),
        ("fl-rsna evaluate mo", ["model="]),
        ("fl-rsna evaluate model=runs/fi", []),  # paths are left to the shell
        ("fl-rsna evaluate runs/fi", []),
        ("fl-rsna watch runs/fi", []),
        ("fl-rsna watch --", ["--help ", "--host ", "--port ", "--wait "]),
        ("fl-rsna own-site --a", ["--allow-unknown-patients "]),
        ("fl-rsna site --device ", ["auto ", "cpu ", "cuda "]),
        ("fl-rsna site --device=c", ["--device=cpu ", "--device=cuda "]),
        ("fl-rsna site --check --min", ["--min-count "]),
        ("fl-rsna site --folder ", []),
        ("fl-rsna keys s", ["server ", "site "]),
        ("fl-rsna keys site --n", ["--name "]),
        ("fl-rsna keys --folder x", []),
        ("fl-rsna replay r", ["run=", "round="]),
        ("fl-rsna audit st", ["study=", "strict="]),
        ("fl-rsna completion ", ["bash "]),
        ("fl-rsna evaluate --c", ["--cfg "]),
        ("fl-rsna nothing x", []),
    ],
)  # fmt: skip
def test_the_last_word_is_completed(line: str, found: list[str]) -> None:
    assert complete_line(line) == found


def test_an_empty_word_becomes_any() -> None:
    assert complete_line("fl-rsna ") == sorted(f"{name} " for name in COMMANDS)
    assert complete_line("fl-rsna simulate model=") == sorted(f"model={name} " for name in list_groups()["model"])
    assert {"train.", "train=", "rounds=", "experiment="} <= set(complete_line("fl-rsna simulate "))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_offers_its_options(name: str) -> None:
    assert "--help " in complete_line(f"fl-rsna {name} --h")


ASK = r"""
eval "$(fl-rsna completion bash)"
ask() {  # a line -> what bash would put in place of its last argument, or of what follows the last equals sign
    COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=(fl-rsna) COMPREPLY=()
    _fl_rsna
    printf '%s|' "${COMPREPLY[@]}"
    echo
}
ask "fl-rsna simu"
ask "fl-rsna simulate strategy=fedp"
ask "fl-rsna simulate train.learning_r"
ask "fl-rsna superlink --st"
ask "fl-rsna site --device=cu"
complete -p fl-rsna
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "fl-rsna"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fl_rsna "$@"\n')
    script.chmod(0o755)
    arguments = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", ASK], env=arguments, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "simulate |",
        "fedprox |",
        "train.learning_rate=|",
        "--state |",
        "cuda |",
        "complete -o default -o nospace -F _fl_rsna fl-rsna",
    ]


def test_nothing_is_loaded_that_takes_time() -> None:
    lines = ["fl-rsna simulate strategy=f", *(f"fl-rsna {name} -" for name in COMMANDS)]
    code = f"import sys; from fl_rsna.cli.completion import complete_line; [*map(complete_line, {lines})]; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in ("torch", "numpy", "pandas", "hydra", "flwr") if f"'{name}'" in loaded] == []
