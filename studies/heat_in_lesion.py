"""python studies/heat_in_lesion.py runs/<name>: how much of the heat of true positives lies in the blood.

The run must be of demo data, whose phantoms know where the blood is; data sets of real slices state no lesions here.
Every true positive of every label is measured, on the map the report's pictures are made on and on the network's last.
Prints a table and, as the last line, one JSON object.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fl_rsna.common.command_end import end_command
from fl_rsna.learning.inference.gradcam import CELLS
from fl_rsna.learning.training.train import settle_process
from fl_rsna.reporting.images.explanations import heat_in_lesion, lesions_on, read_finished, to_measure

MAPS = {f"at least {CELLS} cells a side": CELLS, "the last": 2}
COLUMNS = ("share", "uniform", "times_uniform", "others", "outside")


def measure(folder: Path) -> None:
    settle_process()
    run = read_finished(folder)
    rows = {label: to_measure(run, label, None) for label in run.task.labels}
    lesions = lesions_on(run, {row for of_label in rows.values() for row in of_label})
    if lesions is None:
        raise ValueError(
            f"expected a run on demo data as its config.yaml states it, got {folder}; where other data bleed is not known"
        )
    found = [
        {"map": name, **summary}
        for name, cells in MAPS.items()
        for label in run.task.labels
        if (summary := heat_in_lesion(run, label, rows[label], lesions, cells))
    ]
    table = Table(
        "map", "label", "slices", "patients", *COLUMNS, title=f"{folder}, threshold from {run.threshold_from}"
    )
    for row in found:
        table.add_row(
            row["map"], row["label"], str(row["slices"]), str(row["patients"]), *(_text(row[c]) for c in COLUMNS)
        )
    Console(width=180).print(table)
    print(json.dumps({"run": str(folder), "threshold_from": run.threshold_from, "rows": found}))


def _text(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    interval = "" if estimate["low"] is None else f" [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    return f"{estimate['value']:.3f}{interval}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="runs/<name>")
    arguments = parser.parse_args()
    end_command(lambda: measure(arguments.run))
