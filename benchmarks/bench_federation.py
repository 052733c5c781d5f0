"""What federation costs over the training itself, in one run with repeats.

The reference is a bare PyTorch loop (bench_loop.py): the same local steps, the same evaluations, one process, one
thread, no Flower. Each engine does the same rounds on the same cohort; so do Flower's own runtime on Ray, used as its
examples use it, and Apple's pfl where it is installed. Printed: median seconds of a steady round (from the end of one
to the end of the next; the first is left out), its ratio to the reference, training steps a round, and seconds to the
first step: cold, and for the second job of a sweep. pfl and Flower start without the command's arguments and files.

    python benchmarks/bench_federation.py [--sites 5] [--slices 48] [--rounds 4] [--repeats 3] [--model efficientnet_b0]
    python benchmarks/bench_federation.py --empty 5 20      # nothing is trained: seconds a round at 5 and at 20 sites
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_empty
from bench_cohort import bench_config, figures_of, make_cohort
from bench_engines import ENGINES, round_seconds, run_engine, steps_a_round
from bench_loop import bare_rounds
from bench_start import first_steps
from rich.console import Console
from rich.table import Table

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import ModelName

BARE, PFL = "bare loop", "pfl, one process"
PFL_PACKAGES = "pfl dp-accounting prv-accountant multiprocess dill absl-py"
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--slices", type=int, default=48, help="training slices a site")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--no-flower", action="store_true", help="leave out Flower's own runtime")
    parser.add_argument(
        "--pfl-python", default=sys.executable, help="an interpreter that has pfl besides our requirements"
    )
    parser.add_argument(
        "--empty", type=int, nargs="+", metavar="SITES", help="measure rounds that train nothing instead"
    )
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds: expected at least 2, of which the first is left out, got {arguments.rounds}")
    if arguments.empty:
        engines = [engine for engine in arguments.engines if engine in ("local, workers=0", "local, workers=2")]
        bench_empty.measure(
            arguments.empty, engines, arguments.rounds, arguments.repeats, flower=not arguments.no_flower
        )
        return
    config, peers = bench_config(arguments.rounds, arguments.model, arguments.size), peers_of(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in [BARE, *arguments.engines, *peers]}
    steps: dict[str, int] = {}
    kinds = dict.fromkeys(["bare", *(engine.partition(",")[0] for engine in arguments.engines)])
    starts: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cohort = make_cohort(folder, arguments.sites, arguments.slices, arguments.size)
        for repeat in range(arguments.repeats):  # interleaved, so a noisy minute hits all alike
            for engine in seconds:
                began = time.time()
                figures = rounds_of(engine, config, cohort, folder / f"{engine}-{repeat}", peers)
                seconds[engine] += figures["round_s"][1:]
                steps[engine] = figures["steps"]
                if engine in peers:
                    starts.setdefault(engine, []).append({"cold": figures["began"] - began})
            for kind in kinds:
                starts[kind].append(first_steps(kind, folder, arguments.model, arguments.size))
    report(arguments, seconds, steps, starts)


def peers_of(arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Other frameworks to measure: the script of each and the interpreter it runs in."""
    peers = {} if arguments.no_flower else {bench_empty.FLOWER: ("bench_flower.py", sys.executable)}
    if not subprocess.run([arguments.pfl_python, "-c", "import pfl"], capture_output=True).returncode:
        return {**peers, PFL: ("bench_pfl.py", arguments.pfl_python)}
    print(
        f"pfl left out: {arguments.pfl_python} cannot import it; in a copy of this environment: pip install --no-deps {PFL_PACKAGES}"
    )
    return peers


def rounds_of(
    engine: str, config: Config, cohort: Cohort, folder: Path, peers: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    """Seconds of each round, and the training steps of one."""
    if engine == BARE:
        round_s, steps = bare_rounds(config, cohort)
        return {"round_s": round_s, "steps": steps}
    if engine in peers:
        script, python = peers[engine]
        asked = ["--rounds", str(config.rounds), "--model", config.model.name, "--size", str(config.model.image_size)]
        return figures_of(HERE / script, "--folder", str(cohort.folder.parent), *asked, python=python)
    run_engine(engine, config, cohort, folder)
    return {"round_s": round_seconds(folder), "steps": steps_a_round(folder)}


def report(
    arguments: argparse.Namespace,
    seconds: dict[str, list[float]],
    steps: dict[str, int],
    starts: dict[str, list[dict[str, float]]],
) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: value / medians[BARE] for name, value in medians.items()}
    first = {
        kind: {when: statistics.median(found[when] for found in founds) for when in founds[0]}
        for kind, founds in starts.items()
    }
    table = Table(
        title=f"{arguments.model}, {arguments.size} px, {arguments.sites} sites of {arguments.slices} slices, {arguments.repeats} repeats, medians"
    )
    for name in ("", "s a steady round", "ratio to bare", "steps a round", "s to first step", "second job"):
        table.add_column(name, justify="right" if name else "left")
    for name, value in medians.items():
        kind = {BARE: "bare", "local, workers=2": "local", "ray, workers=2": "ray"}.get(name, name)
        spread = f"{value:.2f} ({min(seconds[name]):.2f}-{max(seconds[name]):.2f})"
        waits = [f"{first[kind][when]:.1f}" if when in first.get(kind, {}) else "" for when in ("cold", "second")]
        table.add_row(name, spread, f"{ratios[name]:.3f}", f"{steps[name]}", *waits)
    Console(width=120).print(table)
    for name, count in steps.items():
        if count != steps[BARE]:
            print(f"{name} took {count} steps a round, the bare loop {steps[BARE]}: its ratio means nothing")
    one, two = medians.get("local, workers=1"), medians.get("local, workers=2")
    speedup = one / two if one and two else None
    if speedup:
        print(f"two workers are {speedup:.2f} times as fast as one")
    print(
        json.dumps(
            {
                "model": arguments.model.value, "size": arguments.size, "sites": arguments.sites, "slices": arguments.slices,
                "repeats": arguments.repeats,
                "round_s": medians, "ratio": ratios, "steps": steps, "two_workers_over_one": speedup,
                "first_step_s": {kind: found["cold"] for kind, found in first.items()},
                "second_job_s": {kind: found["second"] for kind, found in first.items() if "second" in found},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
