"""How often the 95% intervals of the scorecard hold the truth, on simulated patients whose slices are alike.

    python studies/interval_coverage.py [--sets 600] [--patients 20 30 50 150] [--resamples 1000]

A patient has a bleed with probability `share`, on a part of the 20 to 40 slices drawn from Beta(2, 3). A slice's score is
normal around the patient's own level (standard deviation 0.7) and, if positive, shifted by the patient's own conspicuity
(mean `shift`, standard deviation 0.7); so slices of a patient agree, and a set of patients knows less than its slices
suggest. The truth is that of 20,000 such patients. Thresholds are fixed beforehand, for a sensitivity of about 0.81 and
0.94. The second model, for the paired difference, sees the same patients with noise of its own.

Coverage is among the sets that get an interval (at least five patients of either kind). `AUROC, percentiles` is what plain
percentiles of the same resamples would have covered. Prints a table with Monte-Carlo standard errors, marks what lies
outside 93% to 97% by more than two of them, and, as the last line, one JSON object.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from fl_rsna.learning.metrics.bootstrap import draw_patients
from fl_rsna.learning.metrics.metrics import auroc, compare_aurocs
from fl_rsna.learning.metrics.operating_points import OperatingPoints
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.task import ICH

TASK = replace(
    ICH, name="simulated", labels=("bleed",), published=("bleed",), label_weights=(1.0,), union=None, headline="bleed"
)
SPREAD, TRUTH = 0.7, 20_000
SHIFTS = {2.0: 0.9, 3.0: 1.0}  # mean conspicuity, and the threshold on the score
SHARES = (0.25, 0.6)  # of patients with a bleed
GOAL = (0.93, 0.97)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=600)
    parser.add_argument("--patients", type=int, nargs="+", default=[20, 30, 50, 150])
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        rows = [
            covered(truth, patients, share, shift, threshold, arguments.sets, arguments.resamples)
            for (shift, threshold), share in product(SHIFTS.items(), SHARES)
            for truth in [
                values(*simulate(TRUTH, share, shift, np.random.default_rng(1)), threshold, seed=0, resamples=0)
            ]
            for patients in arguments.patients
        ]
    report(rows, arguments.resamples)


def simulate(
    patients: int, share: float, shift: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores of two models, and patients of slices."""
    member = np.repeat(np.arange(patients), rng.integers(20, 41, patients))
    bleeds = rng.random(patients) < share
    labels = bleeds[member] & (rng.random(len(member)) < rng.beta(2, 3, patients)[member])
    shown = shift + SPREAD * rng.normal(size=patients)
    level = SPREAD * rng.normal(size=patients)
    scores = labels * shown[member] + level[member] + rng.normal(size=len(member))
    other = scores + 0.5 * rng.normal(size=patients)[member] + 0.5 * rng.normal(size=len(member))
    return labels.astype(np.float32), scores, other, member


def values(
    labels: np.ndarray,
    scores: np.ndarray,
    other: np.ndarray,
    member: np.ndarray,
    threshold: float,
    *,
    seed: int,
    resamples: int,
) -> dict[str, dict[str, Any]]:
    """Estimates of one set by name; exams are judged by their most probable slice."""
    found = 1 / (1 + np.exp(-scores))
    at = {"bleed": {"point": float(1 / (1 + np.exp(-threshold)))}}
    settings = OperatingPoints(slice=at, exam={"max": at, "noisy_or": at}, temperatures={})
    card = scorecard(
        labels[:, None], found[:, None], member, member, task=TASK, settings=settings, seed=seed, resamples=resamples
    )
    of_slices, of_exams = card["slice"]["bleed"], card["exam"]["max"]["bleed"]
    point = of_slices["points"]["point"]
    compared = compare_aurocs(labels, scores, [other], member, seed=seed, resamples=resamples)
    difference = compared.difference
    return {
        "AUROC": of_slices["auroc"],
        "AUROC, percentiles": percentiles(labels, scores, member, seed=seed, resamples=resamples) | {"value": auroc(labels, scores)},
        "average precision": of_slices["average_precision"],
        **{name: point[name] for name in ("sensitivity", "specificity", "ppv", "npv", "f1")},
        "Brier": of_slices["brier"],
        "log loss": of_slices["log_loss"],
        "exam AUROC": of_exams["auroc"],
        "exam sensitivity": of_exams["points"]["point"]["sensitivity"],
        "difference of AUROCs": {"value": difference.value, "low": difference.low, "high": difference.high},
    }  # fmt: skip


def percentiles(
    labels: np.ndarray, scores: np.ndarray, member: np.ndarray, *, seed: int, resamples: int
) -> dict[str, Any]:
    if not resamples:
        return {}
    drawn = rank(labels, scores, draw_patients(member, seed=seed, resamples=resamples)).auroc[1:]
    if np.isnan(drawn).all():
        return {"low": None, "high": None}
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def covered(
    truth: dict[str, dict[str, Any]],
    patients: int,
    share: float,
    shift: float,
    threshold: float,
    sets: int,
    resamples: int,
) -> dict[str, Any]:
    """Of the sets with an interval for the AUROC, how many hold the truth, by metric."""
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    given = 0
    for number in range(sets):
        rng = np.random.default_rng([number, patients, int(100 * share), int(10 * shift)])
        drawn = simulate(patients, share, shift, rng)
        found = values(*drawn, threshold, seed=number, resamples=resamples)
        if found["AUROC"]["low"] is None:
            continue
        given += 1
        for name, estimate in found.items():
            if estimate["low"] is not None:
                hits[name].append(estimate["low"] <= truth[name]["value"] <= estimate["high"])
    rates = {
        name: {
            "truth": truth[name]["value"],
            "sets": len(hit),
            "coverage": float(np.mean(hit)) if hit else None,
            "error": error(hit),
        }
        for name, hit in hits.items()
    }
    return {"patients": patients, "share": share, "shift": shift, "given": given / sets, "metrics": rates}  # fmt: skip


def error(hit: list[bool]) -> float | None:
    """Monte-Carlo standard error, from the goal's own 95% where every set was covered."""
    if not hit:
        return None
    rate = min(float(np.mean(hit)), 1 - 0.5 / len(hit))
    return float(np.sqrt(rate * (1 - rate) / len(hit)))


def report(rows: list[dict[str, Any]], resamples: int) -> None:
    table = Table(
        title=f"coverage of 95% intervals in %, {resamples} resamples of patients; * outside {GOAL[0]:.0%} to {GOAL[1]:.0%} by two errors"
    )
    names = list(rows[0]["metrics"])
    for column in ("patients", "with bleed", "AUROC", "given", *names):
        table.add_column(column, justify="right")
    for row in rows:
        found = row["metrics"]
        table.add_row(
            str(row["patients"]), f"{row['share']:.0%}", f"{found['AUROC']['truth']:.2f}", f"{row['given']:.0%}",
            *(shown(found[name]) for name in names),
        )  # fmt: skip
    Console(width=200).print(table)
    print(json.dumps({"resamples": resamples, "rows": rows}))


def shown(found: dict[str, Any]) -> str:
    if found["coverage"] is None:
        return "-"
    out = found["coverage"] + 2 * found["error"] < GOAL[0] or found["coverage"] - 2 * found["error"] > GOAL[1]
    return f"{100 * found['coverage']:.1f}±{100 * found['error']:.1f}{'*' if out else ''}"


if __name__ == "__main__":
    main()
