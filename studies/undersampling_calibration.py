"""Whether under-sampling with prior correction leaves probabilities as honest as training on all slices does.

Three federations a seed, on the same split and under the same budget of rounds and passes: all slices, under-sampled and
corrected, and under-sampled as it is. On the test site, as the model says and at the temperatures that the run's sites chose:
log loss, Brier score and expected calibration error (15 bins), of the headline label and as the task weighs its labels, and
how the mean probability compares with the share of positives. Differences from all slices are paired: every resample draws
the same patients for all three and for all seeds, whose models are averaged over. Runs are kept and resumed. Any other argument is
a setting of every run: train.local_steps=20 gives all three the steps that a pass over all slices of the demo's sites has.

    python studies/undersampling_calibration.py [--seeds 0 1 2] [--negatives 1] [--runs runs/undersampling] [rounds=10 ...]
"""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.process import begin_loading
from fl_rsna.learning.inference.predict import PROBABILITY, labels_in, probabilities_in
from fl_rsna.learning.metrics.bootstrap import (
    Drawn,
    Estimate,
    Floats,
    Scale,
    by_patient,
    draw_patients,
    estimate,
    support,
    totals,
)
from fl_rsna.learning.metrics.metrics import label_losses
from fl_rsna.learning.metrics.operating_points import calibrate
from fl_rsna.learning.metrics.scorecard import BINS
from fl_rsna.run_folder.run_folder import is_finished
from fl_rsna.settings.compose import compose_config
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH

FULL = "all slices"
UNDER = {name: ["train.sampling=under", f"train.correction={name}"] for name in ("prior", "none")}
VARIANTS = {FULL: [], **{f"under, {name}": settings for name, settings in UNDER.items()}}
CORRECTED = "under, prior"
READINGS = ("as the model says", "at the run's temperatures")
MEASURES = ("log_loss", "brier", "ece", "mean_over_share")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--negatives", type=float, default=1.0, help="drawn for each positive slice")
    parser.add_argument("--runs", type=Path, default=Path("runs/undersampling"))
    parser.add_argument("settings", nargs="*", help="settings of every run, e.g. rounds=8 paths.prepared=...")
    arguments = parser.parse_args()
    begin_loading()
    runs = {name: [run(arguments, name, seed) for seed in arguments.seeds] for name in VARIANTS}
    said = {READINGS[0]: predictions, READINGS[1]: at_temperatures}
    every = {
        reading: compared({n: [of(folder) for folder in all_] for n, all_ in runs.items()})
        for reading, of in said.items()
    }
    for reading, facts in every.items():
        report(reading, facts, len(arguments.seeds))
    print(json.dumps({"seeds": arguments.seeds, "negatives": arguments.negatives, **every}))


def compared(tables: dict[str, list[pd.DataFrame]]) -> dict[str, Any]:
    """Values and paired differences of every variant's tables, one a seed."""
    patients = pd.concat([table["patient_id"] for table in tables[FULL]]).to_numpy(str)
    drawn, truth = draw_patients(patients, seed=0), pd.concat(tables[FULL])
    found = {name: measured(of_seeds, drawn) for name, of_seeds in tables.items()}
    values = {
        name: {of: asdict(_estimate(drawn, truth, all_)) for of, all_ in by.items()} for name, by in found.items()
    }
    differences = {
        name: {of: asdict(_estimate(drawn, truth, found[name][of] - found[FULL][of], Scale.difference)) for of in by}
        for name, by in found.items()
        if name != FULL
    }
    honest = {of: not_worse(differences[CORRECTED][of]) for of in differences[CORRECTED] if "mean_over" not in of}
    return {
        "patients": drawn.patients,
        "values": values,
        "differences": differences,
        "corrected_not_worse": honest,
    }


def run(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    """The folder of one variant's run, made now or earlier."""
    folder: Path = arguments.runs / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not is_finished(folder):
        sampled = VARIANTS[name] and [*VARIANTS[name], f"train.negatives={arguments.negatives}"]
        config = compose_config(
            [*sampled, f"seed={seed}", f"partition.seed={seed}", "resume=true", *arguments.settings], STRATEGIES
        )
        run_federation(config, cohort_for_run(config, lambda what, done, total: None), folder, ())
        print(f"{name}, seed {seed}: done", flush=True)
    return folder


def predictions(folder: Path) -> pd.DataFrame:
    """What a run's model says of the test site's slices."""
    return pd.read_parquet(folder / "predictions.parquet")


def at_temperatures(folder: Path) -> pd.DataFrame:
    """The same at the temperatures that the run chose on its sites' validation parts, as `evaluate` gives them out."""
    table, chosen = predictions(folder), json.loads((folder / "summary.json").read_text())["operating_points"]
    temperatures = np.array([chosen["temperatures"].get(label) or 1.0 for label in ICH.labels])
    found = calibrate(probabilities_in(table, ICH.labels), temperatures)
    return table.assign(**{f"{PROBABILITY}{label}": found[:, i] for i, label in enumerate(ICH.labels)})


def measured(tables: list[pd.DataFrame], drawn: Drawn) -> dict[str, Floats]:
    """Each measure [1 + R] of `any` and over labels, as the mean over seeds; `drawn` is of all seeds' rows in their order."""
    starts = np.cumsum([0, *map(len, tables)])
    of_seeds = [
        _of_labels(table, replace(drawn, member=drawn.member[start : start + len(table)]))
        for table, start in zip(tables, starts, strict=False)
    ]
    return {name: np.mean([by[name] for by in of_seeds], axis=0) for name in of_seeds[0]}


def _of_labels(table: pd.DataFrame, drawn: Drawn) -> dict[str, Floats]:
    labels, found = labels_in(table, ICH.labels), probabilities_in(table, ICH.labels).astype(np.float64)
    each = [_of_label(labels[:, i], found[:, i], drawn) for i in range(len(ICH.labels))]
    weighed = [np.average([of_label[i] for of_label in each], axis=0, weights=ICH.label_weights) for i in range(3)]
    headline = each[ICH.labels.index(ICH.headline)]
    return {f"{ICH.headline} {name}": value for name, value in zip(MEASURES, headline, strict=True)} | {
        f"weighted {name}": value for name, value in zip(MEASURES, weighed, strict=False)
    }


def _of_label(labels: NDArray[np.float32], found: Floats, drawn: Drawn) -> list[Floats]:
    """MEASURES of one label's rows [N], each [1 + R]."""
    ones = np.ones(len(found))
    sums = by_patient(drawn, label_losses(labels, found), (found - labels) ** 2, ones, found, labels)
    bins = drawn.member * BINS + np.minimum((found * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, labels - found, minlength=drawn.patients * BINS).reshape(drawn.patients, BINS)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may miss all patients of one seed
        loss, square, rows, predicted, positives = totals(drawn, sums)
        ece = np.abs(totals(drawn, gaps)).sum(0) / rows
        return [loss / rows, square / rows, ece, predicted / positives]


def _estimate(drawn: Drawn, truth: pd.DataFrame, values: Floats, scale: Scale = Scale.positive) -> Estimate:
    rests_on = support(drawn, truth[f"label_{ICH.headline}"].to_numpy(np.float32))
    return estimate(values, rests_on, rests_on.patients, scale)


def not_worse(difference: dict[str, float | None]) -> bool | None:
    """Whether the interval of a difference reaches 0 or below; None without an interval."""
    low = difference["low"]
    return None if low is None else low <= 0


def report(reading: str, facts: dict[str, Any], seeds: int) -> None:
    values, differences = facts["values"], facts["differences"]
    print(
        f"\n{reading}: test site, mean over {seeds} seeds [95% interval over patients]; beside it minus {FULL}, paired"
    )
    for of in values[FULL]:
        print(f"\n{of}")
        for name, by in values.items():
            against = "" if name == FULL else f"   {_said(differences[name][of], '+')}"
            print(f"  {name:14}{_said(by[of])}{against}")


def _said(found: dict[str, float | None], sign: str = "") -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:{sign}.4f}" + (f" [{low:{sign}.4f}, {high:{sign}.4f}]" if low is not None else " [no interval]")


if __name__ == "__main__":
    main()
