"""Run the tests with other arithmetic, in other order and under load: what passes on one machine has to pass on all.

    python tests/e2e/vary_arithmetic.py                      # make test's and make slow's tests in every setting: over an hour on two cores
    python tests/e2e/vary_arithmetic.py --only aten-default random-order --tests fast
    python tests/e2e/vary_arithmetic.py --only aten-default numpy-baseline openblas --together    # one run in all of these settings

Prints a line a setting and, last, one JSON object with the same figures; what pytest said of a failure goes to stderr. Exits 1 when a
test failed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

ROOT = Path(__file__).resolve().parents[2]
MARKS = {"fast": "not slow and not extra", "slow": "slow and not extra"}
BUSY = "while True: pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Environment variables and arguments of pytest, and how many processes keep the cores busy meanwhile."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    busy: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    setting: str
    tests: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...]


def list_settings() -> list[Setting]:
    """What this machine can do otherwise; NumPy is told only instruction sets that it uses here, for it ignores others."""
    simd = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    blas = {library.get("architecture") for library in threadpool_info() if library["internal_api"] == "openblas"}
    other = "Nehalem" if "Nehalem" not in blas else "Prescott"
    found = [
        Setting(name="as-is"),
        Setting(name="aten-default", environment={"ATEN_CPU_CAPABILITY": "default"}),
        Setting(name="aten-avx2", environment={"ATEN_CPU_CAPABILITY": "avx2"}),
        Setting(name="openblas", environment={"OPENBLAS_CORETYPE": other}),
        Setting(name="two-threads", environment={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}),
        Setting(name="random-order", arguments=("-p", "randomly", "--randomly-seed=2026")),
        Setting(name="load", busy=2 * (os.cpu_count() or 1)),
    ]
    if simd:
        found.insert(3, Setting(name="numpy-baseline", environment={"NPY_DISABLE_CPU_FEATURES": simd}))
    return found


def combine(settings: list[Setting]) -> Setting:
    """All of the settings at once."""
    return Setting(
        name="+".join(setting.name for setting in settings),
        environment={key: value for setting in settings for key, value in setting.environment.items()},
        arguments=tuple(argument for setting in settings for argument in setting.arguments),
        busy=sum(setting.busy for setting in settings),
    )


def run_tests(setting: Setting, tests: str, jobs: int) -> Outcome:
    """One whole run of pytest in this setting."""
    dist = ["-n", str(jobs), "--dist", "worksteal" if tests == "fast" else "loadgroup"]
    command = [sys.executable, "-m", "pytest", *dist, "-m", MARKS[tests], "-p", "no:cacheprovider", *setting.arguments]
    start = time.monotonic()
    with ExitStack() as stack:
        for _ in range(setting.busy):
            process = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(process.wait)
            stack.callback(process.kill)
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **setting.environment}, capture_output=True, text=True
        )
    text = done.stdout + done.stderr
    counts = {argument: int(count) for count, argument in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    failures = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE))
    if done.returncode not in (0, 1) or not counts:
        failures = (*failures, f"pytest ended with {done.returncode}: {text.strip().splitlines()[-1:]}")
    if failures:
        print(text, file=sys.stderr, flush=True)
    return Outcome(
        setting=setting.name,
        tests=tests,
        passed=counts.get("passed", 0),
        failed=max(counts.get("failed", 0) + counts.get("error", 0), len(failures)),
        skipped=counts.get("skipped", 0),
        seconds=round(time.monotonic() - start, 1),
        failures=failures,
    )


def main() -> None:
    settings = {setting.name: setting for setting in list_settings()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=settings, default=list(settings), metavar="SETTING")
    parser.add_argument("--together", action="store_true", help="one run in all settings instead of one run in each")
    parser.add_argument("--tests", nargs="+", choices=MARKS, default=list(MARKS))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    outcomes = []
    chosen = [settings[name] for name in arguments.only]
    for setting in [combine(chosen)] if arguments.together else chosen:
        for tests in arguments.tests:
            outcome = run_tests(setting, tests, arguments.jobs)
            outcomes.append(outcome)
            print(
                f"{setting.name:<15} {tests:<5} {outcome.passed:>5} passed {outcome.failed:>3} failed {outcome.skipped:>3} skipped "
                f"{outcome.seconds:>7.1f} s",
                *outcome.failures,
                flush=True,
            )
    print(json.dumps({"runs": [asdict(outcome) for outcome in outcomes]}))
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
