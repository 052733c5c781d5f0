"""A run folder read back as tables and as text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fl_rsna.learning.bootstrap import MIN_PATIENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything a report needs of one run; `summary` is None while it is unfinished."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any] | None
    rounds: pd.DataFrame
    sites: pd.DataFrame
    cohort: dict[str, Any]  # site -> part -> patients, slices, positives a label
    failures: list[dict[str, Any]]
    resumed: list[int]  # after which rounds a killed run went on
    leaky: bool  # one patient may be in two places, as was asked for by name
    noise: dict[str, dict[str, float]]  # site -> what partition.noise made wrong there

    @property
    def headline(self) -> str:
        """The label whose AUROC is quoted first."""
        column = next(name for name in self.rounds.columns if name.startswith("validation_auroc_"))
        return column.removeprefix("validation_auroc_")

    @property
    def labels(self) -> list[str]:
        return [name.removeprefix("test_auroc_") for name in self.rounds.columns if name.startswith("test_auroc_")]

    @property
    def training_sites(self) -> int:
        return sum("train" in parts for parts in self.cohort.values())

    @property
    def finished(self) -> bool:
        return self.summary is not None and self.summary["status"] == "finished"


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished or not; raises ValueError when it holds no run."""
    for name in ("config.yaml", "manifest.json", "rounds.csv"):
        if not (folder / name).exists():
            raise ValueError(
                f"expected a run folder with {name}, found none in {folder}; give runs/<name> of a run that began training"
            )
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines() if line.endswith("}")]
    roll: dict[str, Any] = next((event for event in events if event["event"] == "roll_call"), {"sites": {}})
    failed = [event for event in events if event["event"] == "site_failed"]  # a round played twice counts once
    failures = {(event["round"], event["phase"], event["site"]): event for event in failed}
    sites = folder / "sites.csv"
    return RunRecord(
        folder=folder,
        config=yaml.safe_load((folder / "config.yaml").read_text()),
        manifest=json.loads((folder / "manifest.json").read_text()),
        summary=json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").exists() else None,
        rounds=pd.read_csv(folder / "rounds.csv"),
        sites=pd.read_csv(sites)
        if sites.exists()
        else pd.DataFrame(columns=["round", "phase", "site", "seconds", "bytes_down", "bytes_up"]),
        cohort=roll["sites"],
        leaky=roll.get("leaky", False),
        noise=roll.get("noise", {}),
        failures=list(failures.values()),
        resumed=[event["round"] for event in events if event["event"] == "resumed"],
    )


def interval(estimate: dict[str, Any]) -> str:
    """An estimate as text, e.g. `0.912 [0.871, 0.945]`, or why it or its interval is missing."""
    if estimate["value"] is None:
        if 0 in (estimate["positives"], estimate["negatives"]):
            return "undefined: " + ("no positives" if estimate["positives"] == 0 else "no negatives")
        return "undefined: no slice to divide by"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f} [no interval: {_too_few(estimate)}]"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _too_few(estimate: dict[str, Any]) -> str:
    count = estimate.get("positive_patients")  # runs of before it was counted lack it
    if count is None or count >= MIN_PATIENTS:
        return "too few patients"
    return f"{count} positive patient{'' if count == 1 else 's'}"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
