"""Why federated training falls behind pooled training, and what closes the gap, on real patients.

Every variant is one run of the package under the same budget of passes over the data, for every seed (which is also the
seed of the split), and is compared with pooled training on the same split: AUROC `any` on the test site, its ratio to
the pooled one with a paired patient bootstrap, then mean and range over seeds. Runs are kept and resumed: the study can be stopped
and repeated with more seeds or variants.

    python scripts/gap_study.py [--data ct_ich] [--splits iid dirichlet] [--seeds 0 1 2] [--only fedavg fedavgm ...]
"""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from fl_rsna.compose import compose_config
from fl_rsna.learning.metrics import Estimate, compare_aurocs
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.loading import begin_loading
from fl_rsna.reporting.tables import read_run
from fl_rsna.runner import run_federation
from fl_rsna.steps import cohort_for_run

SPLITS = {"iid": ["partition=iid"], "dirichlet": ["partition=dirichlet", "partition.alpha=0.3"]}
CENTRAL = "central"
VARIANTS = {
    CENTRAL: ["baseline=central"],
    "fedavg": [],
    "norm frozen": ["model.norm=frozen"],
    "norm adapted": ["model.norm=adapted"],
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
    "fedprox": ["strategy=fedprox"],
    "scaffold": ["strategy=scaffold"],
    "ema": ["strategy.averaging=ema", "strategy.ema_decay=0.5"],
    "last 3 rounds": ["strategy.averaging=window"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ct_ich")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/gap_study"))
    parser.add_argument("words", nargs="*", help="settings for every run, e.g. rounds=8 paths.prepared=...")
    words = parser.parse_args()
    begin_loading()
    found = {
        split: {
            name: [run(words, split, name, seed) for seed in words.seeds]
            for name in dict.fromkeys([CENTRAL, *words.only])
        }
        for split in words.splits
    }
    report(found, words.seeds)


def run(words: argparse.Namespace, split: str, name: str, seed: int) -> Path:
    """The run folder of one variant, made now or earlier."""
    folder = words.runs / split / f"{name.replace(' ', '_').replace('/', 'by')}-{seed}"
    config = compose_config(
        [
            f"experiment={words.data}", *SPLITS[split], *VARIANTS[name], f"seed={seed}", f"partition.seed={seed}",
            "partition.allow_missing_labels=true", "resume=true", "run.keep=last", *words.words,
        ]
    )  # fmt: skip
    cohort = cohort_for_run(config, lambda what, done, total: None)
    run_federation(config, cohort, folder, ())
    summary = read_run(folder).summary
    assert summary is not None
    area = summary["test_site"]["slice"]["any"]["auroc"]["value"]
    print(f"{split}, {name}, seed {seed}: AUROC any {area:.3f}, {summary['wall_s']:.0f} s", flush=True)
    return folder


def ratio(ours: Path, pooled: Path, seed: int) -> tuple[float, Estimate]:
    """AUROC `any` of a run, and its ratio to the pooled run's."""
    one, other = (pd.read_parquet(folder / "predictions.parquet") for folder in (ours, pooled))
    scores = [table["probability_any"].to_numpy(np.float32) for table in (one, other)]
    labels, patients = one["label_any"].to_numpy(np.float32), one["patient_id"].to_numpy()
    drawn = derive_seed(seed, "bootstrap", "any")
    found = compare_aurocs(labels, scores[0], [scores[1]], patients, seed=drawn)
    area = json.loads((ours / "summary.json").read_text())["test_site"]["slice"]["any"]["auroc"]["value"]
    return area, found.ratio


def report(found: dict[str, dict[str, list[Path]]], seeds: list[int]) -> None:
    figures: dict[str, dict[str, object]] = {}
    for split, variants in found.items():
        table = Table(
            title=f"{split}, seeds {', '.join(map(str, seeds))}: test-site AUROC any, and its ratio to pooled training"
        )
        for column in ("variant", "AUROC by seed", "mean", "ratio by seed [95% over patients]", "mean ratio"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        figures[split] = {}
        for name, folders in variants.items():
            pairs = [ratio(*both, seed) for *both, seed in zip(folders, variants[CENTRAL], seeds, strict=True)]
            areas, ratios = [area for area, _ in pairs], [estimate.value or float("nan") for _, estimate in pairs]
            said = ", ".join(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for _, e in pairs)
            table.add_row(
                name, ", ".join(f"{area:.3f}" for area in areas), f"{statistics.mean(areas):.3f}", said, f"{statistics.mean(ratios):.3f}"
            )  # fmt: skip
            figures[split][name] = {"auroc": areas, "ratio": ratios, "mean_ratio": statistics.mean(ratios)}
        Console(width=160).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
