"""How long a user waits for the first training step: cold, and for the second job of a sweep.

The command itself is run, `python -m fl_rsna.simulate -m seed=0,1`, two jobs in one process: from starting it to the
first step of job 1, and from the end of job 1, its report written, to the first step of job 2. The reference is a bare
process that imports torch, opens one site and trains. Used by bench_federation.py.

    python benchmarks/bench_start.py --folder <of make_cohort> [--engine local] [--size 64] [--model efficientnet_b0]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench_cohort import COHORT, NAME, bench_config
from bench_engines import first_step

from fl_rsna.settings.model import ModelName


def first_steps(kind: str, folder: Path, model: ModelName, size: int) -> dict[str, float]:
    """Seconds to the first step of `bare`, or of a command on `local` or `ray`, `cold` and for the `second` job."""
    if kind == "bare":
        arguments = [__file__, "--folder", str(folder), "--model", model, "--size", str(size)]
        start = time.time()
        return {"cold": float(_said([sys.executable, *arguments]).split()[-1]) - start}
    runs = folder / f"start-{kind}-{time.time()}"
    arguments = [
        f"data.name={NAME}", f"partition.name={COHORT}", f"paths.sites={folder}", f"paths.prepared={folder / 'nowhere'}",
        f"paths.runs={runs}", "run.name=job", "rounds=1", f"engine={kind}", "engine.workers=2",
        f"model={model}", "model.pretrained=false", f"model.image_size={size}", "train.device=cpu",
    ]  # fmt: skip
    start = time.time()
    _said([sys.executable, "-m", "fl_rsna.simulate", "-m", "seed=0,1", *arguments])
    one, two = runs / "job" / "seed=0", runs / "job" / "seed=1"
    second = first_step(two) - (one / "report.html").stat().st_mtime
    return {"cold": first_step(one) - start, "second": second}


def bare_step(folder: Path, model: ModelName, size: int) -> float:
    """The time of day at which the plain loop began to train."""
    from bench_loop import train_site

    from fl_rsna.cohort.sites.site_folders import read_cohort
    from fl_rsna.learning.data.dataset import open_site
    from fl_rsna.learning.models.classifier import build_model
    from fl_rsna.learning.training.train import settle_process
    from fl_rsna.settings.data import ImageKind
    from fl_rsna.task import ICH

    settle_process()
    config, cohort = bench_config(1, model, size), read_cohort(folder / COHORT)
    data = open_site(cohort.site_folder(cohort.sites[0]), image_size=size)
    result = train_site(build_model(config.model, ICH, ImageKind.hu, seed=0), data, config, 1)
    return time.time() - result.seconds


def _said(command: list[str]) -> str:
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--engine", choices=["local", "ray"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(first_steps(arguments.engine, arguments.folder, arguments.model, arguments.size)))
    else:
        print(bare_step(arguments.folder, arguments.model, arguments.size))


if __name__ == "__main__":
    main()
