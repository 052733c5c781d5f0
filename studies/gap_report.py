"""The table and the picture of gap_study.py."""

import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.metrics.metrics import Estimate, compare_aurocs
from fl_rsna.reporting.record.run_record import interval

Found = dict[str, dict[str, dict[int, Path]]]  # split, variant, seed
COLUMNS = ("variant", "seeds", "AUROC by seed", "mean", "ratio by seed [95% over patients]", "mean ratio", "GB")
GOALS = {"iid": 0.97, "dirichlet": 0.95}


def rows(
    variants: dict[str, dict[int, Path]], against: str
) -> Iterator[tuple[str, dict[int, tuple[float, Estimate]], float]]:
    """A variant, its AUROC and its ratio to the reference by seed, and the gigabytes it sent."""
    for name, folders in variants.items():
        pairs = {
            s: compared(folder, variants[against][s], s) for s, folder in folders.items() if s in variants[against]
        }
        if pairs:
            yield name, pairs, statistics.mean(gigabytes(folder) for folder in folders.values())


def compared(ours: Path, theirs: Path, seed: int) -> tuple[float, Estimate]:
    """AUROC `any` of a run, and its ratio to another's."""
    one, other = (pd.read_parquet(folder / "predictions.parquet") for folder in (ours, theirs))
    scores = [table["probability_any"].to_numpy(np.float32) for table in (one, other)]
    labels, patients = one["label_any"].to_numpy(np.float32), one["patient_id"].to_numpy()
    drawn = derive_seed(seed, "bootstrap", "any")
    found = compare_aurocs(labels, scores[0], [scores[1]], patients, seed=drawn)
    return summary(ours)["test_site"]["slice"]["any"]["auroc"]["value"], found.ratio


def gigabytes(folder: Path) -> float:
    """Sent both ways in a whole run."""
    return float(summary(folder)["bytes_down"] + summary(folder)["bytes_up"]) / 1e9


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def lines(variants: dict[str, dict[int, Path]], against: str) -> list[list[str]]:
    return [
        [
            name, ", ".join(map(str, pairs)), ", ".join(f"{area:.3f}" for area, _ in pairs.values()),
            f"{statistics.mean(area for area, _ in pairs.values()):.3f}",
            ", ".join(interval(asdict(e)) for _, e in pairs.values()), f"{mean_ratio(pairs):.3f}", f"{sent:.2f}",
        ]
        for name, pairs, sent in rows(variants, against)
    ]  # fmt: skip


def mean_ratio(pairs: dict[int, tuple[float, Estimate]]) -> float:
    return statistics.mean(ratio.value or float("nan") for _, ratio in pairs.values())


def title(split: str, variants: dict[str, dict[int, Path]], against: str) -> str:
    reference = next(iter(variants[against].values()))
    scores = summary(reference)["test_site"]
    label, position = scores["slice"]["any"]["auroc"], scores["controls"]["position"]["any"]["auroc"]
    return (
        f"{split}: AUROC any (test site), ratio to {against}; seed {next(iter(variants[against]))}: {scores['patients']} patients, "
        f"{label['positives']} positive slices, position alone {position['value']:.3f}"
    )


def report(found: Found, against: str) -> None:
    figures: dict[str, dict[str, object]] = {}
    for split, variants in found.items():
        table = Table(title=title(split, variants, against))
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "variant" else "right")
        for line in lines(variants, against):
            table.add_row(*line)
        Console(width=170).print(table)
        figures[split] = {
            name: {
                "auroc": {s: area for s, (area, _) in pairs.items()},
                "mean_ratio": mean_ratio(pairs),
                "gigabytes": sent,
            }
            for name, pairs, sent in rows(variants, against)
        }
    print(json.dumps(figures))


def write(found: Found, against: str, docs: Path) -> None:
    """Put the tables between gap.md's markers, and the picture beside it."""
    text = ""
    for split, variants in found.items():
        text += f"\n{title(split, variants, against)}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        text += "".join(f"| {' | '.join(line)} |\n" for line in lines(variants, against))
    page = docs / "gap.md"
    marked = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)
    page.write_text(marked.sub(lambda match: match[1] + text + "\n" + match[2], page.read_text()))
    draw(found, against, docs / "gap.png")


def draw(found: Found, against: str, path: Path) -> None:
    figure, axes = plt.subplots(
        1, len(found), figsize=(6 * len(found), 7), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, (split, variants) in zip(axes[0], found.items(), strict=True):
        shown = sorted(
            ((mean_ratio(pairs), name, pairs) for name, pairs, _ in rows(variants, against) if name != against)
        )
        for y, (mean, _, pairs) in enumerate(shown):
            for i, (_, ratio) in enumerate(pairs.values()):
                at = y + 0.22 * (i - (len(pairs) - 1) / 2)
                axis.plot([ratio.low, ratio.high], [at, at], color="#b0b7c3", linewidth=1.2, zorder=1)
                axis.plot(ratio.value, at, "o", color="#4477aa", markersize=4, zorder=2)
            axis.plot(mean, y, "D", color="#cc3311", markersize=7, zorder=3)
        axis.set_ylim(-0.6, max(8, len(shown)) - 0.4)
        axis.axvline(1, color="black", linewidth=1)
        axis.axvline(GOALS[split], color="black", linewidth=1, linestyle=":")
        axis.set_yticks(range(len(shown)), [f"{name} ({len(pairs)})" for _, name, pairs in shown])
        axis.set_title(f"{split}, 4 sites", loc="left")
        axis.set_xlabel(f"AUROC any (test site) / that of {against}")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Red: mean over seeds (their number). Blue: one seed with its 95% interval over patients. Dotted: the goal.",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
