"""The tables of ablate.py: differences to the recipe and to plain, paired over slices, pooled over seeds, with intervals over patients."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.bootstrap import (
    Drawn,
    Estimate,
    Scale,
    by_patient,
    draw_patients,
    estimate,
    support,
    totals,
)
from fl_rsna.learning.metrics.metrics import slice_losses
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.reporting.record.run_record import interval
from fl_rsna.task import ICH

Found = dict[str, dict[str, dict[int, Path]]]  # cohort, variant, seed
Pair = tuple[pd.DataFrame, pd.DataFrame]  # one run's test slices, and another's of the same seed
Groups = Mapping[str, Sequence[str]]  # a variant, and those that are compared with it


def compared(pairs: Sequence[Pair]) -> tuple[Estimate, Estimate]:
    """Weighted log loss and AUROC `any` of the first minus the second's: the mean over seeds, every resample drawing the same

    patients for both models and for every seed in which they are.
    """
    patients = np.unique(np.concatenate([one[ICH.group_key].to_numpy(str) for one, _ in pairs]))
    drawn = draw_patients(patients, seed=0)
    losses, areas = [], []
    for one, other in pairs:
        assert one["image_id"].equals(other["image_id"])
        here = Drawn(member=np.searchsorted(patients, one[ICH.group_key].to_numpy(str)), weights=drawn.weights)
        ours, theirs = (losses_and_area(table, here) for table in (one, other))
        losses.append(ours[0] - theirs[0])
        areas.append(ours[1] - theirs[1])
    everything = pd.concat([one for one, _ in pairs])
    member = np.searchsorted(patients, everything[ICH.group_key].to_numpy(str))
    found = support(Drawn(member=member, weights=drawn.weights), everything["label_any"].to_numpy(np.float32))
    return (
        estimate(np.mean(losses, axis=0), found, len(patients), Scale.difference),
        estimate(np.mean(areas, axis=0), found, found.fewest, Scale.difference),
    )


def losses_and_area(table: pd.DataFrame, drawn: Drawn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted log loss and AUROC `any` [1 + R] as every draw of patients weighs them."""
    labels, found = labels_in(table, ICH.labels), probabilities_in(table, ICH.labels)
    losses = slice_losses(labels, found, ICH)
    sums, slices = totals(drawn, by_patient(drawn, losses, np.ones(len(losses))))
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums / slices, rank(labels[:, 0], found[:, 0], drawn).auroc


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet").sort_values("image_id", ignore_index=True)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def figures(folders: Mapping[int, Path], reference: Mapping[int, Path]) -> dict[str, Any] | None:
    """Everything a line says, of the seeds that both have."""
    seeds = sorted(folders.keys() & reference.keys())
    if not seeds:
        return None
    losses, areas = compared([(predictions(folders[seed]), predictions(reference[seed])) for seed in seeds])
    tests = [summary(folders[seed])["test_site"] for seed in seeds]
    return {
        "seeds": seeds,
        "log_loss": statistics.mean(test["log_loss"] for test in tests),
        "log_loss_difference": asdict(losses),
        "auroc": statistics.mean(test["slice"]["any"]["auroc"]["value"] for test in tests),
        "auroc_difference": asdict(areas),
        "auroc_by_seed": [test["slice"]["any"]["auroc"]["value"] for test in tests],
        "position_alone": [test["controls"]["position"]["any"]["auroc"]["value"] for test in tests],
        "positives": [test["slice"]["any"]["auroc"]["positives"] for test in tests],
        "seconds": statistics.mean(summary(folders[seed])["wall_s"] for seed in seeds),
    }


def line(name: str, of: Mapping[str, Any]) -> list[str]:
    return [
        name, ", ".join(map(str, of["seeds"])), f"{of['log_loss']:.4f}", signed(of["log_loss_difference"]),
        f"{of['auroc']:.3f}", signed(of["auroc_difference"]), ", ".join(f"{area:.3f}" for area in of["auroc_by_seed"]),
        f"{of['seconds']:.0f}",
    ]  # fmt: skip


def signed(found: Mapping[str, Any]) -> str:
    """A difference with its interval; a star where that excludes 0."""
    if found["value"] is None or found["low"] is None:
        return interval(dict(found))
    star = " *" if found["low"] * found["high"] > 0 else ""
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]{star}"


def title(data: str, against: str, whole: Mapping[str, Any]) -> str:
    position = ", ".join(f"{area:.3f}" for area in whole["position_alone"])
    positives = ", ".join(map(str, whole["positives"]))
    return f"{data}, compared with {against}. Positive slices of the test site: {positives}; slice position alone, AUROC any: {position}"


def columns(against: str) -> tuple[str, ...]:
    apart = f"minus {against} [95%]"
    return ("variant", "seeds", "log loss", apart, "AUROC any", apart, "by seed", "seconds")


def tables(found: Found, groups: Groups) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """By cohort and by what is compared with, the figures of every variant that has runs; nothing is compared with itself alone."""
    return {
        data: {
            against: {
                name: of for name in names if name in variants and (of := figures(variants[name], variants[against]))
            }
            for against, names in groups.items()
            if against in variants and any(name in variants for name in names if name != against)
        }
        for data, variants in found.items()
    }


def report(found: Found, groups: Groups) -> None:
    every = tables(found, groups)
    for data, by_reference in every.items():
        for against, variants in by_reference.items():
            table = Table(title=title(data, against, variants[against]))
            for column in columns(against):
                table.add_column(column, justify="left" if column == "variant" else "right")
            for name, of in variants.items():
                table.add_row(*line(name, of))
            Console(width=170).print(table)
    print(json.dumps(every))


def write(found: Found, groups: Groups, docs: Path) -> None:
    """Put the tables between the markers of ablations.md."""
    text = ""
    for data, by_reference in tables(found, groups).items():
        for against, variants in by_reference.items():
            heads = columns(against)
            text += f"\n{title(data, against, variants[against])}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
            text += "".join(f"| {' | '.join(line(name, of))} |\n" for name, of in variants.items())
    page = docs / "ablations.md"
    marked = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)
    page.write_text(marked.sub(lambda match: match[1] + text + "\n" + match[2], page.read_text()))
