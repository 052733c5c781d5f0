"""Why federated training falls behind pooled training, and what closes the gap, on real patients.

Every variant is one run of the package under the same budget of passes over the data, for every seed (which is also the seed
of the split), and is compared with pooled training on the same split: AUROC `any` on the test site, its ratio to the
pooled one with a paired patient bootstrap, then the mean over seeds. Runs are kept and resumed: the study can be stopped
and repeated with more seeds or variants, and reports all it finds in its folder. `--against fedavg` compares with FedAvg
instead, `--only "wire int8"` adds what fewer bytes cost, `--write docs` puts the table and the picture into docs/gap.md.

    python studies/gap_study.py [--data ct_ich] [--splits iid dirichlet] [--seeds 0 1 2] [--only fedavg fedavgm ...]
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from gap_report import Found, report, write

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.process import begin_loading
from fl_rsna.run_folder.run_folder import is_finished
from fl_rsna.settings.compose import compose_config
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.strategies.find import STRATEGIES

SPLITS = {"iid": ["partition=iid"], "dirichlet": ["partition=dirichlet", "partition.alpha=0.3"]}
CENTRAL = "central"
WIRE = {
    f"wire {name}": [f"network.precision_down={down}", f"network.precision_up={name}"]
    for name, down in [("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16")]
}
GAP = {
    CENTRAL: ["baseline=central"],
    "fedavg": [],
    "central, norm frozen": ["baseline=central", "model.norm=frozen"],
    "norm frozen": ["model.norm=frozen"],
    "recalibrated": ["model.recalibrate=true"],
    "central, recalibrated": ["baseline=central", "model.recalibrate=true"],
    "norm momentum 0.01, recalibrated": ["model.norm_momentum=0.01", "model.recalibrate=true"],
    "norm momentum 0.01": ["model.norm_momentum=0.01"],
    "central, norm momentum 0.01": ["baseline=central", "model.norm_momentum=0.01"],
    "norm adapted": ["model.norm=adapted"],
    "norm group": ["model.norm=group"],
    "norm local": ["model.norm=local"],
    "norm local_stats": ["model.norm=local_stats"],
    "rate / 3": ["train.learning_rate=1e-4"],
    "rate x 2": ["train.learning_rate=6e-4"],
    "batch / 2": ["train.batch_size=8"],
    "batch / 4": ["train.batch_size=4"],
    "sgd": ["train.optimizer=sgd", "train.momentum=0.9", "train.learning_rate=0.01"],
    "half the steps, twice the rounds": ["train.local_steps=5", "rounds=16"],
    "fedavgm": ["strategy=fedavgm"],
    "fedadam": ["strategy=fedadam"],
    "fedadam, server rate x 5": ["strategy=fedadam", "strategy.server_learning_rate=0.005"],
    "fedprox": ["strategy=fedprox"],
    "scaffold": ["strategy=scaffold"],
    "ema": ["strategy.averaging=ema", "strategy.ema_decay=0.5"],
    "last 3 rounds": ["strategy.averaging=window"],
    "norm frozen, last 3 rounds": ["model.norm=frozen", "strategy.averaging=window"],
    "norm frozen, rate x 2": ["model.norm=frozen", "train.learning_rate=6e-4"],
    "norm frozen, batch / 2": ["model.norm=frozen", "train.batch_size=8"],
}
VARIANTS = GAP | WIRE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ct_ich")
    parser.add_argument("--splits", nargs="*", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(GAP))
    parser.add_argument("--against", choices=VARIANTS, default=CENTRAL)
    parser.add_argument("--runs", type=Path, default=Path("runs/gap_study"))
    parser.add_argument("--write", type=Path, help="a folder with a gap.md to put the table into")
    parser.add_argument("settings", nargs="*", help="settings for every run, e.g. rounds=8 paths.prepared=...")
    arguments = parser.parse_args()
    begin_loading()
    for split in arguments.splits:
        for name in dict.fromkeys([arguments.against, *arguments.only]):
            for seed in arguments.seeds:
                run(arguments, split, name, seed)
    found = finished(arguments.runs)
    report(found, arguments.against)
    if arguments.write:
        write(found, arguments.against, arguments.write)


def run(arguments: argparse.Namespace, split: str, name: str, seed: int) -> None:
    """One variant, now or earlier."""
    config = compose_config(
        [
            f"experiment={arguments.data}", "model.recalibrate=false", *SPLITS[split], *VARIANTS[name], f"seed={seed}", f"partition.seed={seed}",
            "resume=true", "run.keep=last", *arguments.settings,
        ],
        STRATEGIES,
    )  # fmt: skip
    cohort = cohort_for_run(config, lambda what, done, total: None)
    run_federation(config, cohort, folder_of(arguments.runs, split, name, seed), ())
    print(f"{split}, {name}, seed {seed}: done", flush=True)


def folder_of(runs: Path, split: str, name: str, seed: int) -> Path:
    return runs / split / f"{name.replace(' ', '_').replace('/', 'by')}-{seed}"


def finished(runs: Path) -> Found:
    """By split and variant, the folders of all finished runs by seed."""
    found: Found = {}
    for split in SPLITS:
        for name in VARIANTS:
            for folder in sorted(runs.glob(f"{split}/{folder_of(runs, split, name, 0).name[:-1]}*")):
                seed = folder.name.rpartition("-")[2]
                if seed.isdigit() and folder_of(runs, split, name, int(seed)) == folder and is_finished(folder):
                    found.setdefault(split, {}).setdefault(name, {})[int(seed)] = folder
    return found


if __name__ == "__main__":
    main()
