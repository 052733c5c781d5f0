"""The scripts a README figure comes from run, and end with the JSON they promise; what they measure is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def last_line(script: str, *words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(figures, dict)
    return figures


@pytest.mark.slow
def test_bench_federation() -> None:
    words = [
        "--sites",
        "2",
        "--slices",
        "8",
        "--rounds",
        "2",
        "--repeats",
        "1",
        "--size",
        "32",
        "--model",
        "efficientnet_lite0",
    ]
    figures = last_line("bench_federation.py", *words)
    assert figures["ratio"]["bare loop"] == 1.0  # type: ignore[index]
    assert set(figures["round_s"]) == {"bare loop", "local, workers=0", "local, workers=2", "ray, workers=2"}  # type: ignore[call-overload]
    assert set(figures["first_step_s"]) == {"bare", "local", "ray"}  # type: ignore[call-overload]


@pytest.mark.slow
def test_phantom_difficulty() -> None:
    assert last_line("phantom_difficulty.py", "--patients", "30")


def test_bench_leak() -> None:
    figures = last_line("bench_leak.py", "--patients", "60", "--seeds", "2")
    assert [row["split"] for row in figures["rows"]] == ["by slice", "by series", "by patient", "10 shards of series"]  # type: ignore[attr-defined]
    assert figures["rows"][2]["test slices"] == [0.0, 0.0, 0.0]  # type: ignore[index]
