"""How much of a score a crop around ground-truth boxes is worth, although it says nothing that a new film would say.

Films without a finding have no box and are shown whole, the others around what readers marked, so the crop gives the label
away, in training and on the test site. Same seeds, same patients: one federated run of the package for every crop and seed.
Compared are macro AUROC, the mean over the classes of one against the rest, and its difference to model.crop=none: the mean
over seeds, paired over films, with 95% intervals over patients. Runs are kept and resumed. Prints a table and, as the last line,
one JSON object.

    python studies/leaky_crop.py [--seeds 0 1 2] [--runs runs/leaky_crop] [rounds=6 data.name=...]
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: workers load it again

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.process import begin_loading
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.bootstrap import Drawn, Estimate, Scale, Support, draw_patients, estimate, support
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.reporting.record.run_record import interval
from fl_rsna.settings.compose import compose_config
from fl_rsna.settings.model import Crop
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import Task, find_task

TASK = "covid_cxr"
CROPS = (Crop.none, Crop.lungs, Crop.boxes_leaky)  # the first is what the others are compared with
SETTINGS = [
    f"task={TASK}",
    "model.image_size=64",
    "rounds=8",
    "train.local_steps=20",
]  # as studies/ablate.py has for the demo

Tables = Mapping[int, pd.DataFrame]  # the test site's predictions by seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/leaky_crop"))
    parser.add_argument("settings", nargs="*", help="settings for every run, e.g. rounds=6 paths.prepared=...")
    asked = parser.parse_args()
    begin_loading()
    found = {crop: {seed: run(asked, crop, seed) for seed in asked.seeds} for crop in CROPS}
    report(figures(found, find_task(TASK)))


def run(asked: argparse.Namespace, crop: Crop, seed: int) -> pd.DataFrame:
    """The test site's predictions of one run, made now or earlier, by image."""
    folder = asked.runs / f"{crop}-{seed}"
    config = compose_config(
        [*SETTINGS, f"model.crop={crop}", f"seed={seed}", "resume=true", "run.keep=last", *asked.settings],
        STRATEGIES,
    )
    cohort = cohort_for_run(config, lambda what, done, total: None)
    run_federation(config, cohort, folder, ())
    print(f"{crop}, seed {seed}: done", flush=True)
    return pd.read_parquet(folder / "predictions.parquet").sort_values("image_id", ignore_index=True)


def figures(found: Mapping[Crop, Tables], task: Task) -> dict[str, Any]:
    """By crop: macro AUROC with its interval, by seed, and minus the first crop's."""
    first = found[CROPS[0]]
    return {
        crop.value: {
            "macro_auroc": asdict(macro_auroc(tables, None, task)),
            "by_seed": [asdict(macro_auroc({seed: table}, None, task))["value"] for seed, table in tables.items()],
            "minus_none": None if crop is CROPS[0] else asdict(macro_auroc(tables, first, task)),
        }
        for crop, tables in found.items()
    }


def macro_auroc(ours: Tables, theirs: Tables | None, task: Task) -> Estimate:
    """Of `ours`, or of `ours` minus `theirs` of the same seeds: every resample draws the same patients for all of them."""
    films = next(iter(ours.values()))  # the same of every seed
    patients = np.unique(films[task.group_key].to_numpy(str))
    drawn = draw_patients(patients, seed=0)
    values = []
    for seed, table in ours.items():
        here = _of_rows(drawn, patients, table, task)
        assert table["image_id"].equals(films["image_id"]), "every seed was scored on the same films"
        one = areas(table, here, task)
        if theirs is not None:
            assert table["image_id"].equals(theirs[seed]["image_id"]), "both were scored on the same films"
            one = one - areas(theirs[seed], here, task)
        values.append(one)
    found = rarest(films, _of_rows(drawn, patients, films, task), task)
    scale = Scale.share if theirs is None else Scale.difference
    return estimate(np.mean(values, axis=0), found, found.fewest, scale)


def areas(table: pd.DataFrame, drawn: Drawn, task: Task) -> NDArray[np.float64]:
    """Macro AUROC [1 + R] as every draw of patients weighs it; NaN where it leaves a class without films."""
    labels, found = labels_in(table, task.labels), probabilities_in(table, task.labels)
    return np.mean([rank(labels[:, i], found[:, i], drawn).auroc for i in range(len(task.labels))], axis=0)


def rarest(table: pd.DataFrame, drawn: Drawn, task: Task) -> Support:
    """What the mean over classes rests on: the class with the fewest patients."""
    labels = labels_in(table, task.labels)
    return min((support(drawn, labels[:, i]) for i in range(len(task.labels))), key=lambda of: of.fewest)


def _of_rows(drawn: Drawn, patients: NDArray[np.str_], table: pd.DataFrame, task: Task) -> Drawn:
    """The draws of `patients`, sorted, for the films of a table, which need not be of all of them."""
    return Drawn(member=np.searchsorted(patients, table[task.group_key].to_numpy(str)), weights=drawn.weights)


def report(found: Mapping[str, Any]) -> None:
    table = Table(title="Macro AUROC on the test site; boxes_leaky is no result, for no patient's film has such boxes")
    for column in ("model.crop", "macro AUROC [95%]", "minus none [95%]", "by seed"):
        table.add_column(column, justify="left" if column == "model.crop" else "right")
    for crop, of in found.items():
        apart = "" if of["minus_none"] is None else signed(of["minus_none"])
        table.add_row(crop, interval(of["macro_auroc"]), apart, shown(of["by_seed"]))
    Console(width=150).print(table)
    print(json.dumps(found))


def signed(found: Mapping[str, Any]) -> str:
    if found["value"] is None or found["low"] is None:
        return interval(dict(found))
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def shown(values: Sequence[float | None]) -> str:
    return ", ".join("undefined" if value is None else f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
