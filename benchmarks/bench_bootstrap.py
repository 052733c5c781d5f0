"""Seconds for the whole scorecard of a large test set on one core, beside a plain loop over scikit-learn.

    python benchmarks/bench_bootstrap.py [--slices 100000] [--resamples 2000] [--loop 3] [--repeats 3]

Simulated: 33 slices a series and patient, the six labels of RSNA at about their shares, probabilities of a fair model.
The scorecard is every metric of every label by slice and by exam (max and noisy-or), with thresholds, temperatures and
reliability curves. The loop repeats patients' slices and asks scikit-learn for the slice-level metrics only: AUROC,
average precision, log loss, Brier score and the confusion matrices of three thresholds, label by label; it has fewer
metrics to find and no exams, so the ratio favours it. CPU seconds are this process's own; wall seconds depend on what else
the machine does. Prints a table of medians and ranges over repeats and, as the last line, one JSON object.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn import metrics as reference
from threadpoolctl import threadpool_limits

from fl_rsna.learning.metrics.bootstrap import draw_patients
from fl_rsna.learning.metrics.classification import predict_positive
from fl_rsna.learning.metrics.operating_points import OperatingPoints, choose, site_sums
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.task import ICH

EACH = 33  # slices of a patient
HOLDERS = (0.02, 0.2, 0.15, 0.2, 0.25)  # shares of patients with each subtype, in the order of the labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--loop", type=int, default=3, help="resamples of the loop over scikit-learn")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    labels, found, patients = simulate(-(-arguments.slices // EACH))
    labels, found, patients = labels[: arguments.slices], found[: arguments.slices], patients[: arguments.slices]
    settings = choose(site_sums(labels, found, patients, patients, ICH), ICH)

    def card() -> None:
        scorecard(labels, found, patients, patients, task=ICH, settings=settings, seed=0, resamples=arguments.resamples)

    with threadpool_limits(1):
        ours = [timed(card) for _ in range(arguments.repeats)]
        loops = [
            timed(lambda: loop(labels, found, patients, settings, arguments.loop)) for _ in range(arguments.repeats)
        ]
    report(arguments, ours, loops)


def simulate(patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [N, 6], probabilities [N, 6] and patients [N]; a third of a holder's slices are positive."""
    rng = np.random.default_rng(0)
    member = np.repeat(np.arange(patients), EACH)
    subtypes = (rng.random((patients, 5)) < HOLDERS)[member] & (rng.random((len(member), 5)) < 0.35)
    labels = np.c_[subtypes.any(1), subtypes].astype(np.float32)
    logits = 2.2 * labels - 2.5 + rng.normal(0, 1, (patients, 6))[member] + rng.normal(0, 1, labels.shape)
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32), member


def timed(work: Callable[[], None]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def loop(
    labels: np.ndarray, found: np.ndarray, patients: np.ndarray, settings: OperatingPoints, resamples: int
) -> None:
    """The plain way: the rows of the drawn patients, then every metric again."""
    drawn = draw_patients(patients, seed=0, resamples=resamples)
    for weights in drawn.weights.T[1:]:
        rows = np.repeat(np.arange(len(patients)), weights[drawn.member])
        for i, label in enumerate(ICH.labels):
            truth, scores = labels[rows, i], found[rows, i].astype(np.float64)
            reference.roc_auc_score(truth, scores)
            reference.average_precision_score(truth, scores)
            reference.log_loss(truth, scores)
            reference.brier_score_loss(truth, scores)
            for threshold in settings.slice[label].values():
                if threshold is not None:
                    reference.confusion_matrix(truth, predict_positive(scores, threshold))


def report(arguments: argparse.Namespace, ours: list[dict[str, float]], loops: list[dict[str, float]]) -> None:
    rows: dict[str, Any] = {"scorecard": (ours, arguments.resamples), "scikit-learn loop": (loops, arguments.loop)}
    table = Table(
        title=f"{arguments.slices:,} slices, 6 labels, one core; medians of {arguments.repeats}, least and most"
    )
    for column in ("", "resamples", "CPU s", "wall s", "CPU ms a resample"):
        table.add_column(column, justify="left" if not column else "right")
    for name, (times, resamples) in rows.items():
        each = statistics.median(one["cpu_s"] for one in times) / resamples * 1000
        table.add_row(name, f"{resamples:,}", shown(times, "cpu_s"), shown(times, "wall_s"), f"{each:,.1f}")
    Console(width=140).print(table)
    per = {
        name: statistics.median(one["cpu_s"] for one in times) / resamples for name, (times, resamples) in rows.items()
    }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{per['scikit-learn loop'] / per['scorecard']:,.0f} times as fast a resample; at most {memory:,.0f} MiB in memory"
    )
    figures = {name: {"resamples": resamples, "times": times} for name, (times, resamples) in rows.items()}
    speed = {"ratio_per_resample": per["scikit-learn loop"] / per["scorecard"], "max_rss_mib": memory}
    print(json.dumps({"slices": arguments.slices, "machine": platform.machine(), **figures, **speed}))


def shown(times: list[dict[str, float]], key: str) -> str:
    found = [one[key] for one in times]
    return f"{statistics.median(found):.1f} [{min(found):.1f}, {max(found):.1f}]"


if __name__ == "__main__":
    main()
