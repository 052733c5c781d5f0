"""Read a run folder, whatever state it was left in, and write its estimates as text."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, Protocol, TypedDict, cast

import numpy as np
import pandas as pd

from fl_rsna.cohort.sites.site_folders import PartCounts
from fl_rsna.common.reading import check_keys, read_json, refuse, refuse_unreadable
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS
from fl_rsna.learning.metrics.figures import ComparisonFigures, EstimateFigures
from fl_rsna.learning.metrics.scorecard import AreaFigures, CardFigures, CardInBrief, HeldOutFigures, ScorecardFigures
from fl_rsna.reporting.record.events import Event, describe_damage, read_log
from fl_rsna.run_folder.manifest import Manifest
from fl_rsna.run_folder.run_folder import (
    CONFIG,
    COPY,
    EVENTS,
    MANIFEST,
    REST,
    SCORECARDS,
    describe_changed_tables,
    read_config,
)
from fl_rsna.run_folder.summary import ChosenPoints, Summary
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import DataConfig, is_demo
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.stages import Baseline
from fl_rsna.task import MACRO, LabelKind, Task, find_task

SITE_COLUMNS = ("round", "phase", "site", "loss", "seconds", "bytes_down", "bytes_up", "error", "aurocs")
FEDERATED, LOCAL = "federated", "local"
PARTS = (FEDERATED, "central", LOCAL)  # folders of an experiment=gap
UNKNOWN = "?"  # a count of a label that a site does not annotate
TEXTS = ("phase", "site", "error", "aurocs")  # columns of sites.csv that are no numbers
MOST_ROUNDS = 10**9


class Failure(TypedDict):
    """A site that gave no answer, or a wrong one: in which round and phase, and what it was."""

    round: int
    phase: str
    site: str
    error: str


class ReadableCounts(TypedDict):
    """The counts of one part as people read them: `<5` for what is withheld, `?` for a label that the site does not annotate."""

    patients: int | str
    slices: int
    positives: dict[str, int | str]
    known: NotRequired[dict[str, int | str]]


Compared = Mapping[str, ComparisonFigures]  # by label


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The comparisons of an experiment=gap, paired over patients.

    `references` holds by the name of a reference (`central`, `local`) what the federated model is minus it; `sites` holds by site
    what the federated model is minus the site's own.
    """

    references: Mapping[str, Compared]
    sites: Mapping[str, Compared]


class ScoredRecord(Protocol):
    """What the sections on scores need: a run has it, and so has an evaluation of new scans.

    `test_data` is what the scores are of, as a page says it. `folder` holds predictions.parquet, and `draws_seed` seeds the draws of
    patients that the intervals rest on.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def headline(self) -> str: ...
    @property
    def test_site(self) -> HeldOutFigures | None: ...
    @property
    def thresholds(self) -> ChosenPoints | None: ...
    @property
    def test_data(self) -> str: ...
    @property
    def draws_seed(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything a report needs of one run. `summary` is None while the run is unfinished."""

    folder: Path
    config: Mapping[str, Any]  # settings by group, as config.yaml has them
    manifest: Manifest  # empty where manifest.json was not written
    summary: Summary | None
    rounds: pd.DataFrame
    sites: pd.DataFrame
    cohort: dict[str, dict[str, PartCounts]]  # by site and part
    failures: list[Failure]
    beware: list[str]  # files that are not as the run wrote them
    resumed: list[int]  # after which rounds a killed run went on
    leaky: bool  # one patient may be in two places, as was asked for by name
    crops_from_truth: bool  # annotations decided what the model was shown, as was asked for by name
    noise: dict[str, Mapping[str, Any]]  # by site, what partition.noise made wrong there
    unannotated: dict[str, list[str]]  # by site, the labels that it does not annotate
    labels: list[str]
    headline: str  # the label whose AUROC is quoted first
    gap: Gap | None  # None of a run that is not the federated part of an experiment=gap
    alone: Summary | None  # the summary of the sites alone: of this run, or of the same experiment

    @property
    def name(self) -> str:
        """The folder's name; a part of an experiment=gap has that of the experiment before it."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}" if folder.name in PARTS else folder.name

    @property
    def task(self) -> Task:
        """The task that the run learned."""
        return task_of(self.config)

    @property
    def primary_label(self) -> str:
        """The label by whose AUROC the run is judged; MACRO, the mean over all classes, where labels are classes."""
        return primary_label_of(self.config, self.headline)

    @property
    def num_training_sites(self) -> int:
        """The number of sites that hold a training part."""
        return sum("train" in parts for parts in self.cohort.values())

    @property
    def counts(self) -> dict[str, dict[str, ReadableCounts]]:
        """`cohort` as people read it."""
        return format_counts(self.cohort, self.config["privacy"]["min_count"], self.unannotated)

    @property
    def is_synthetic(self) -> bool:
        """Whether the run's images are phantoms of the task's demo, and no patients'."""
        data = self.config["data"]
        return data["dicom"] is None and is_demo(DataConfig(name=data["name"], task=data["task"]))

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary is not None and self.summary["status"] == "finished"

    @property
    def test_site(self) -> HeldOutFigures | None:
        """The final model's scores on the test site; None while there are none, and where every site trained alone."""
        return None if self.summary is None else self.summary.get("test_site")

    @property
    def thresholds(self) -> ChosenPoints | None:
        """The thresholds that the sites' validation parts chose; None while there are none."""
        return None if self.summary is None else self.summary.get("operating_points")

    @property
    def test_data(self) -> str:
        """What `test_site` holds the scores of."""
        return "the test site"

    @property
    def draws_seed(self) -> int:
        """The seed of the draws of patients that the intervals of `test_site` rest on."""
        return derive_seed(self.config["seed"], "bootstrap", TEST_SITE)

    @property
    def cards(self) -> dict[str, ScorecardFigures]:
        """The final model's scorecard by site, on each site's validation part; empty while there are none."""
        return {} if self.summary is None else self.summary.get("sites", {})


def read_run(folder: Path) -> RunRecord:
    """Read a run folder that is finished, failed or was killed at any moment.

    Raises ValueError when the folder holds no run, or a file of it is damaged beyond reading.
    """
    if not (folder / CONFIG).exists():
        raise ValueError(f"expected a run folder with config.yaml, found none in {folder}; give runs/<name>")
    config = _config(folder)
    summary = _summary(folder)
    events, damaged = read_log(folder / EVENTS)
    beware = [describe_damage(damaged, folder / EVENTS)] if damaged else []
    beware += describe_changed_tables(folder, {} if summary is None else summary.get("tables", {}))
    roll: Event = next((event for event in events if is_roll_call(event)), {"sites": {}})
    failed = [event for event in events if _is_failure(event)]  # a round played twice counts once
    failures = {(event["round"], event["phase"], event["site"]): event for event in failed}
    rounds = _rows(folder / "rounds.csv", ("round",))
    labels, headline = _labels(rounds, roll, config)
    gap, alone = _read_experiment(folder.absolute(), config, summary)
    quoted = primary_label_of(config, headline)
    rounds = rounds.reindex(columns=[*dict.fromkeys([*rounds.columns, *_round_columns(labels, quoted)])])
    return RunRecord(
        folder=folder,
        config=config,
        manifest=cast(Manifest, _json(folder / MANIFEST) or {}),
        summary=summary,
        rounds=rounds,
        sites=_sites(folder / "sites.csv"),
        cohort=roll["sites"],
        leaky=roll.get("leaky", False),
        crops_from_truth=roll.get("crops_from_truth", False),
        noise=roll.get("noise", {}),
        unannotated=roll.get("unannotated", {}),
        failures=[
            Failure(round=one["round"], phase=one["phase"], site=one["site"], error=one["error"])
            for one in failures.values()
        ],
        resumed=[event["round"] for event in events if event["event"] == "resumed" and "round" in event],
        beware=beware,
        labels=labels,
        headline=headline,
        gap=gap,
        alone=alone,
    )


def _summary(folder: Path) -> Summary | None:
    """summary.json, with the whole scorecards of scorecards.json in place of those in brief."""
    found = _json(folder / "summary.json")
    if found is None:
        return None
    check_keys(found, folder / "summary.json", {"status": str}, COPY)
    whole = found["status"] == "finished" and "test_site" in found
    return cast(Summary, {**found, **read_json(folder / SCORECARDS, COPY)} if whole else found)


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a run's configuration."""
    return find_task(config["data"]["task"])


def primary_label_of(config: Mapping[str, Any], headline: str) -> str:
    """Whose AUROC a run is judged by, of a headline label that need not be the task's."""
    return MACRO if task_of(config).kind is LabelKind.multi_class else headline


def area_of(card: CardFigures | CardInBrief, label: str) -> EstimateFigures:
    """The AUROC of a label on the test site or at a site, as an estimate; for MACRO the mean over classes."""
    return card["classes"]["slice"]["macro_auroc"] if label == MACRO else card["slice"][label]["auroc"]


def control_of(controls: Mapping[str, Mapping[str, AreaFigures]], label: str) -> dict[str, EstimateFigures]:
    """The AUROC of a label by control: of what never looks at the picture."""
    return {name: by_label[label]["auroc"] for name, by_label in controls.items()}


def interval(estimate: Mapping[str, Any]) -> str:
    """An estimate as text, e.g. `0.912 [0.871, 0.945]`, or why it or its interval is missing."""
    if estimate["value"] is None and estimate.get("positives", 0) is None:
        return "withheld"
    if estimate["value"] is None:
        return "undefined: " + why_undefined(estimate)
    if estimate["low"] is None:
        return f"{estimate['value']:.3f} [no interval: {_too_few(estimate)}]"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def why_undefined(estimate: Mapping[str, Any]) -> str:
    """Why a score has no value. A measure that counts no positives and no negatives, such as a share of heat, has nothing to divide by."""
    for name in ("positives", "negatives"):
        if estimate.get(name) == 0:
            return f"no {name}"
    return "nothing to divide by"


def _too_few(estimate: Mapping[str, Any]) -> str:
    count = estimate.get("positive_patients")  # a measure of heat counts none
    if count is None or count >= MIN_PATIENTS:
        return "too few patients"
    return f"{count} positive patient{'' if count == 1 else 's'}"


def format_counts(
    sites: Mapping[str, Mapping[str, PartCounts]],
    min_count: int,
    unannotated: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, dict[str, ReadableCounts]]:
    """Counts of a roll call by site and part as people read them.

    `<5` stands for what a site withheld under privacy.min_count=5, and `?` for a label that nobody there annotates.
    """
    withheld = UNKNOWN if min_count <= 1 else f"<{min_count}"

    def read(counts: Mapping[str, int] | Mapping[str, int | None], unknown: Sequence[str]) -> dict[str, int | str]:
        return {
            label: count if count is not None else UNKNOWN if label in unknown else withheld
            for label, count in counts.items()
        }

    found: dict[str, dict[str, ReadableCounts]] = {}
    for site, parts in sites.items():
        unknown = unannotated.get(site, ())
        for part, held in parts.items():
            patients = withheld if held["patients"] is None else held["patients"]
            readable = ReadableCounts(
                patients=patients, slices=held["slices"], positives=read(held["positives"], unknown)
            )
            if "known" in held:
                readable["known"] = read(held["known"], unknown)
            found.setdefault(site, {})[part] = readable
    return found


def areas_in(cell: object) -> dict[str, float]:
    """The AUROCs in a cell of sites.csv, by name; none where the cell is damaged."""
    try:
        found = json.loads(str(cell))
    except (ValueError, RecursionError):
        return {}
    return {name: area for name, area in found.items() if isinstance(area, float)} if isinstance(found, dict) else {}


def megabytes(count: float) -> str:
    """A number of bytes in megabytes of a million, as text."""
    return f"{count / 1e6:,.1f} MB"


def _json(path: Path) -> Mapping[str, Any] | None:
    return read_json(path, COPY) if path.exists() else None


def _config(folder: Path) -> Mapping[str, Any]:
    """A run's settings; raises ValueError when a group or a setting is missing, as in a file that was cut."""
    found, defaults = read_config(folder), asdict(Config())
    groups = {name: value for name, value in defaults.items() if isinstance(value, dict)}
    check_keys(found, folder / CONFIG, {"baseline": str, **dict.fromkeys(groups, dict)}, COPY)
    lacking = [name for name in defaults if name not in found]
    for group in groups.keys() - {"strategy"}:  # a strategy of another package has settings of its own
        lacking += [f"{group}.{name}" for name in groups[group] if name not in found.get(group, {})]
    if lacking:
        raise refuse(folder / CONFIG, lacking[-1], "a file without it: it was cut", COPY)
    with refuse_unreadable(folder / CONFIG, "data.task as a known task", COPY):
        task_of(found)
    return found


def _read_experiment(
    folder: Path, config: Mapping[str, Any], summary: Summary | None
) -> tuple[Gap | None, Summary | None]:
    """The gaps, and the summary of the sites alone, which the experiment that this run is the federated part of wrote one folder up."""
    if config["baseline"] == Baseline.local:
        return None, summary
    above = _json(folder.parent / "summary.json") if folder.name == FEDERATED else None
    whole = summary if summary is not None and "gap" in summary else cast(Summary | None, above)
    if whole is None or "gap" not in whole:
        return None, None
    alone = cast(Summary | None, _json(folder.parent / LOCAL / "summary.json"))
    return Gap(references=whole["gap"], sites=whole.get("joining", {})), alone


def is_roll_call(event: Event) -> bool:
    """Whether an event is a roll call: it says of every part of every site what it holds."""
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


def _labels(rounds: pd.DataFrame, roll: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[list[str], str]:
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
