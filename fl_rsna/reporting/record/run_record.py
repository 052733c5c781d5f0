"""A run folder read back, whatever state it was left in, and its estimates as text."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.common.reading import check_keys, read_json, refuse, refuse_unreadable
from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS
from fl_rsna.reporting.record.events import Event, describe_damage, read_log
from fl_rsna.run_folder.run_folder import (
    CONFIG,
    COPY,
    EVENTS,
    REST,
    SCORECARDS,
    TABLES,
    describe_changed_tables,
    read_config,
)
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Baseline
from fl_rsna.task import MACRO, LabelKind, Task, find_task

SITE_COLUMNS = ("round", "phase", "site", "loss", "seconds", "bytes_down", "bytes_up", "error", "aurocs")
FEDERATED, LOCAL = "federated", "local"
PARTS = (FEDERATED, "central", LOCAL)  # folders of an experiment=gap
UNKNOWN = "?"  # a count of a label that a site does not annotate
TEXTS = ("phase", "site", "error", "aurocs")  # columns of sites.csv that are no numbers
MOST_ROUNDS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything a report needs of one run; `summary` is None while it is unfinished."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any] | None
    rounds: pd.DataFrame
    sites: pd.DataFrame
    cohort: dict[str, Any]  # site -> part -> patients, slices, positives a label; None where the site withheld it
    failures: list[dict[str, Any]]
    beware: list[str]  # files that are not as the run wrote them
    resumed: list[int]  # after which rounds a killed run went on
    leaky: bool  # one patient may be in two places, as was asked for by name
    crops_from_truth: bool  # annotations decided what the model was shown, as was asked for by name
    noise: dict[str, dict[str, Any]]  # site -> what partition.noise made wrong there
    unannotated: dict[str, list[str]]  # site -> labels that it does not annotate
    labels: list[str]
    headline: str  # the label whose AUROC is quoted first
    gap: dict[
        str, Any
    ]  # of an experiment=gap, its federated run: reference -> label -> difference and ratio; sites: the same by site
    alone: dict[str, Any]  # the summary of the sites alone: of this run, or of the same experiment; else empty

    @property
    def name(self) -> str:
        """The folder's name; of a part of an experiment=gap with that of the experiment."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}" if folder.name in PARTS else folder.name

    @property
    def task(self) -> Task:
        return task_of(self.config)

    @property
    def primary_label(self) -> str:
        """Whose AUROC the run is judged by: the headline label's, or of classes the mean over all."""
        return primary_label_of(self.config, self.headline)

    @property
    def num_training_sites(self) -> int:
        return sum("train" in parts for parts in self.cohort.values())

    @property
    def counts(self) -> dict[str, Any]:
        """`cohort` as people read it."""
        return format_counts(self.cohort, (self.config.get("privacy") or {}).get("min_count", 0), self.unannotated)

    @property
    def is_finished(self) -> bool:
        return self.summary is not None and self.summary["status"] == "finished"

    @property
    def test_site(self) -> dict[str, Any] | None:
        """The final model's scores on the test site; None while there are none, and where every site trained alone."""
        return self.summary.get("test_site") if self.summary is not None else None


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished, failed or killed at any moment; raises ValueError when it holds no run."""
    if not (folder / CONFIG).exists():
        raise ValueError(f"expected a run folder with config.yaml, found none in {folder}; give runs/<name>")
    config = _config(folder)
    summary = _summary(folder)
    events, damaged = read_log(folder / EVENTS)
    beware = [describe_damage(damaged, folder / EVENTS)] if damaged else []
    beware += describe_changed_tables(folder, (summary or {}).get(TABLES, {}))
    roll: dict[str, Any] = next((event for event in events if is_roll_call(event)), {"sites": {}})
    failed = [event for event in events if _is_failure(event)]  # a round played twice counts once
    failures = {(event["round"], event["phase"], event["site"]): event for event in failed}
    rounds = _rows(folder / "rounds.csv", ("round",))
    labels, headline = _labels(rounds, roll, config)
    gap, alone = _beside(folder.absolute(), config, summary or {})
    quoted = primary_label_of(config, headline)
    rounds = rounds.reindex(columns=[*dict.fromkeys([*rounds.columns, *_round_columns(labels, quoted)])])
    return RunRecord(
        folder=folder,
        config=config,
        manifest=_json(folder / "manifest.json") or {},
        summary=summary,
        rounds=rounds,
        sites=_sites(folder / "sites.csv"),
        cohort=roll["sites"],
        leaky=roll.get("leaky", False),
        crops_from_truth=roll.get("crops_from_truth", False),
        noise=roll.get("noise", {}),
        unannotated=roll.get("unannotated", {}),
        failures=list(failures.values()),
        resumed=[event["round"] for event in events if event["event"] == "resumed" and "round" in event],
        beware=beware,
        labels=labels,
        headline=headline,
        gap=gap,
        alone=alone,
    )


def _summary(folder: Path) -> dict[str, Any] | None:
    """summary.json, with whole scorecards in place of those in brief."""
    summary, cards = _json(folder / "summary.json"), _json(folder / SCORECARDS)
    if summary is not None:
        check_keys(summary, folder / "summary.json", {"status": str}, COPY)
    return {**summary, **cards} if summary and cards and summary["status"] == "finished" else summary


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a run's configuration."""
    return find_task(config["data"]["task"])


def primary_label_of(config: Mapping[str, Any], headline: str) -> str:
    """Whose AUROC a run is judged by, of a headline label that need not be the task's."""
    return MACRO if task_of(config).kind is LabelKind.multi_class else headline


def area_of(test_site: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The AUROC of a label on the test site or at a site, or of MACRO the mean over classes, as an estimate."""
    if label == MACRO:
        return dict(test_site["classes"]["slice"]["macro_auroc"])
    return dict(test_site["slice"][label]["auroc"])


def control_of(test_site: Mapping[str, Any], label: str) -> dict[str, dict[str, Any]]:
    """The same of what never looks at the picture, by control; none of a run that did not ask for that label."""
    return {name: of[label]["auroc"] for name, of in test_site.get("controls", {}).items() if label in of}


def interval(estimate: dict[str, Any]) -> str:
    """An estimate as text, e.g. `0.912 [0.871, 0.945]`, or why it or its interval is missing."""
    if estimate["value"] is None and estimate.get("positives", 0) is None:
        return "withheld"
    if estimate["value"] is None:
        return "undefined: " + why_undefined(estimate)
    if estimate["low"] is None:
        return f"{estimate['value']:.3f} [no interval: {_too_few(estimate)}]"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def why_undefined(estimate: dict[str, Any]) -> str:
    """Of a score; a measure of something else, as of heat where there is none, has no positives and no negatives to count."""
    for name in ("positives", "negatives"):
        if estimate.get(name) == 0:
            return f"no {name}"
    return "nothing to divide by"


def _too_few(estimate: dict[str, Any]) -> str:
    count = estimate.get("positive_patients")  # runs of before it was counted lack it
    if count is None or count >= MIN_PATIENTS:
        return "too few patients"
    return f"{count} positive patient{'' if count == 1 else 's'}"


def format_counts(
    sites: Mapping[str, Any], min_count: int, unannotated: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> dict[str, Any]:
    """Counts of a roll call with `<5` for what a site withheld under privacy.min_count=5, and `?` for what nobody there annotates."""

    def read(found: Any, site: str, label: str = "") -> Any:
        if isinstance(found, Mapping):
            return {name: read(inner, site, name) for name, inner in found.items()}
        withheld = UNKNOWN if min_count <= 1 or label in unannotated.get(site, ()) else f"<{min_count}"
        return withheld if found is None else found

    return {site: read(parts, site) for site, parts in sites.items()}


def areas_in(cell: object) -> dict[str, Any]:
    """The AUROCs in a cell of sites.csv, by name; none where it is damaged."""
    try:
        found = json.loads(str(cell))
    except (ValueError, RecursionError):
        return {}
    return {name: area for name, area in found.items() if isinstance(area, float)} if isinstance(found, dict) else {}


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path, COPY) if path.exists() else None


def _config(folder: Path) -> dict[str, Any]:
    """A run's settings; raises ValueError when not all groups of them are there, as in a file that was cut."""
    found = read_config(folder)
    kinds = {name: type(value) for name, value in asdict(Config()).items() if isinstance(value, dict)}
    check_keys(found, folder / CONFIG, {"baseline": str, **kinds}, COPY)
    lacking = [field.name for field in fields(Config) if field.name not in found]
    if lacking:
        raise refuse(folder / CONFIG, lacking[-1], "a file without it: it was cut", COPY)
    with refuse_unreadable(folder / CONFIG, "data.task as a known task", COPY):
        task_of(found)
    return found


def _beside(folder: Path, config: dict[str, Any], summary: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gaps and the sites alone, as the experiment that this run is the federated part of wrote them one folder up."""
    if config["baseline"] == Baseline.local:
        return {}, summary
    above = (_json(folder.parent / "summary.json") or {}) if folder.name == FEDERATED else {}
    whole = summary if summary.get("gap") else above
    gap = {**whole.get("gap", {}), "sites": whole.get("joining", {})} if whole.get("gap") else {}
    return gap, (_json(folder.parent / LOCAL / "summary.json") or {}) if gap else {}


def is_roll_call(event: Event) -> bool:
    """One that says of every part of every site what it holds."""
    sites = event.get("sites")
    return event["event"] == "roll_call" and isinstance(sites, dict) and all(map(_is_held, sites.values()))


def _is_held(parts: Any) -> bool:
    return isinstance(parts, dict) and all(
        isinstance(part, dict) and isinstance(part.get("positives"), dict) for part in parts.values()
    )


def _is_failure(event: Event) -> bool:
    return event["event"] == "site_failed" and {"round", "phase", "site", "error"} <= set(event)


def _rows(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """The whole rows of a table; a row that was cut while it was written is left out, and one without a number as its round.

    What is in another column than texts and is no number counts as missing.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(needed))
    with refuse_unreadable(path, "a CSV table", COPY):
        text = path.read_bytes().decode(errors="replace")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    if not text.endswith("\n"):
        rows = rows[:-1]
    if not rows or not set(needed) <= set(rows[0]):
        return pd.DataFrame(columns=list(needed))
    whole = [row for row in rows[1:] if len(row) == len(rows[0])]
    table = pd.DataFrame(whole, columns=list(rows[0]), dtype=str).replace("", np.nan)
    for name in table.columns:
        if name not in TEXTS:
            table[name] = pd.to_numeric(table[name], errors="coerce").replace([np.inf, -np.inf], np.nan)
    table = table[table["round"].between(-1, MOST_ROUNDS)].reset_index(drop=True)
    return table.astype({"round": np.int64})


def _sites(path: Path) -> pd.DataFrame:
    table = _rows(path, ("round", "phase", "site"))
    return table.reindex(columns=[*dict.fromkeys([*table.columns, *SITE_COLUMNS])])


def _labels(rounds: pd.DataFrame, roll: dict[str, Any], config: dict[str, Any]) -> tuple[list[str], str]:
    """The labels and the headline: as rounds.csv has them, else as the roll call counted them, else the task's."""
    tested = [name.removeprefix("test_auroc_") for name in rounds.columns if name.startswith("test_auroc_")]
    quoted = [name.removeprefix("validation_auroc_") for name in rounds.columns if name.startswith("validation_auroc_")]
    task = task_of(config)
    if tested and quoted:
        tested = [name for name in tested if name != MACRO]
        return tested, task.headline if quoted[0] == MACRO else quoted[0]
    counted = [list(part["positives"]) for parts in roll["sites"].values() for part in parts.values()]
    labels = counted[0] if counted else list(task.labels)
    return labels, task.headline if task.headline in labels else labels[0]


def _round_columns(labels: list[str], quoted: str) -> list[str]:
    areas = [f"validation_auroc_{quoted}", *(f"test_auroc_{label}" for label in dict.fromkeys([*labels, quoted]))]
    return ["round", "train_loss", "validation_loss", *REST, "test_loss", *areas, "seconds", "bytes_down", "bytes_up"]
