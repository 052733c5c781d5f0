"""Compare runs: their scores, paired differences, the gap to pooling, the gain over training alone, and the curves of a sweep.

Differences in AUROC are computed on the same test slices, with intervals by a paired bootstrap over patients.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.common.atomic import write_whole
from fl_rsna.common.hashes import read_table
from fl_rsna.common.ownership import refuse_stranger
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.classification import compare_macro_aurocs
from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.learning.metrics.metrics import compare_aurocs
from fl_rsna.reporting.pages.data_pages import MARK, render_page, write_page
from fl_rsna.reporting.pages.find_runs import common_folder, name_of
from fl_rsna.reporting.pages.run_page import interactive
from fl_rsna.reporting.pages.sweep import curves_over, diff_configs, of_sweep, select_drawn_settings
from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, without_empty
from fl_rsna.reporting.record.outcome import title_area
from fl_rsna.reporting.record.paper import as_csv, as_markdown, as_tex
from fl_rsna.reporting.record.paper_figures import write_figures
from fl_rsna.reporting.record.plotly import Plot, area_axis, axes, by_rounds, category_axis, lines, points
from fl_rsna.reporting.record.run_record import RunRecord, area_of, read_run
from fl_rsna.reporting.record.wording import area_name, area_title, format_count, task_words
from fl_rsna.reporting.sections.provenance import flat
from fl_rsna.reporting.sections.sites import measure_spread
from fl_rsna.run_folder.run_folder import ALONE, COPY
from fl_rsna.run_folder.sweep_folder import Job, job_of
from fl_rsna.run_folder.sweep_settings import values_of
from fl_rsna.task import MACRO

Runs = Mapping[str, RunRecord]  # by the name each has on the page
Score = EstimateFigures | float | None
TITLE = "Comparison of runs"
BEGINNINGS = {
    ".csv": b"run,state,",
    ".md": f"# {TITLE}\n".encode(),
    ".tex": f"% fl_rsna, {TITLE}".encode(),
}  # of our files
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError)  # what a damaged file may raise


class Difference(EstimateFigures):
    """An AUROC minus another; it has an interval where it is `paired`, which is where both are of the same slices."""

    paired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that a comparison names but does not show, and why."""

    run: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several runs side by side: what the page shows, and the JSON file beside it."""

    title: str
    synthetic: bool  # whether a run's images are phantoms
    runs: list[str]
    left_out: list[LeftOut]
    failed: Mapping[str, str]  # jobs of the runs' sweep, and why each failed
    headline: str
    words: Mapping[str, str]
    unfinished: list[str]
    crops_from_truth: list[str]
    table: Table
    differences: Table | None
    unpaired: list[str]  # runs whose test slices are not the first one's
    by_label: list[Table]  # differences of the other labels
    labels: Table
    plots: list[Plot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finished run with its predictions, sorted by image; several tables where every site has a model of its own."""

    run: RunRecord
    tables: Sequence[pd.DataFrame]

    @property
    def baseline(self) -> str:
        return str(self.run.config["baseline"])

    def auroc(self, label: str) -> EstimateFigures:
        """Return the run's AUROC of a label, for MACRO the mean over classes.

        Where every site trained alone it is the mean of the sites' own models, without an interval.
        """
        if self.run.test_site is not None:
            return area_of(self.run.test_site, label)
        areas = [area_of(of["test_site"], label) for of in (self.run.summary or {})["alone"].values()]
        values = [area["value"] for area in areas if area["value"] is not None]
        return {**areas[0], "value": float(np.mean(values)) if values else None, "low": None, "high": None}


def read_predictions(run: RunRecord) -> Scored | None:
    """Read a run's predictions; None for a run that is not finished or left none."""
    if not run.is_finished:
        return None
    alone = sorted((run.folder / ALONE).glob("*/predictions.parquet"))
    paths = alone or [path for path in [run.folder / "predictions.parquet"] if path.exists()]
    tables = [read_table(path, COPY, hashed=False).sort_values("image_id", ignore_index=True) for path in paths]
    return Scored(run=run, tables=tables) if tables else None


def same_slices(one: Scored, other: Scored) -> bool:
    """Whether two runs were scored on the same images with the same labels."""
    mine, theirs = one.tables[0], other.tables[0]
    names = ["image_id", *(name for name in mine.columns if name.startswith("label_"))]
    return set(names) <= set(theirs.columns) and len(mine) == len(theirs) and bool(mine[names].equals(theirs[names]))


def difference(one: Scored, other: Scored, label: str) -> Difference:
    """Subtract the AUROC of `other` from that of `one`: paired, with an interval, on the same slices; else without one."""
    if not same_slices(one, other):
        ours, theirs = one.auroc(label), other.auroc(label)
        apart = None
        if ours["value"] is not None and theirs["value"] is not None:
            apart = ours["value"] - theirs["value"]
        return {**ours, "value": apart, "low": None, "high": None, "paired": False}
    table, task, seed = one.tables[0], one.run.task, derive_seed(0, "bootstrap", label)
    patients = table[task.group_key].to_numpy()
    if label == MACRO:
        scores, *references = (probabilities_in(of, task.labels) for of in (table, *other.tables))
        found = compare_macro_aurocs(labels_in(table, task.labels), scores, references, patients, seed=seed)
    else:
        own, *others = (probabilities_in(of, [label])[:, 0] for of in (table, *other.tables))
        found = compare_aurocs(labels_in(table, [label])[:, 0], own, others, patients, seed=seed)
    return {**found.difference.to_json(), "paired": True}


def baseline_of(one: Scored, runs: Sequence[Scored], kind: str) -> Scored | None:
    """Find the run with a baseline whose settings are nearest to this run's, among those on the same slices if there are any.

    None where no other run has that baseline.
    """
    found = [other for other in runs if other.baseline == kind and other is not one]
    near = [other for other in found if same_slices(one, other)] or found
    return min(near, key=lambda other: _apart(one.run.config, other.run.config), default=None)


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    mine, theirs = flat(one), flat(other)
    return sum(mine.get(name) != theirs.get(name) for name in mine.keys() | theirs.keys())


def write_comparison(folders: Sequence[Path], out: Path, failed: Sequence[Job] = (), *, figures: bool = False) -> Path:
    """Write the page `out` and its content as JSON beside it, and return `out`; beside them its tables for a paper and as CSV, and
    with `figures` its plots as SVG and PDF.

    The page compares the runs that can be read and that learned the same. It names the others, and the jobs of a sweep that
    `failed`. Raises ValueError when no run can be read, and where files of these names are no comparisons.
    """
    refuse_stranger(out, lambda earlier: MARK in earlier)
    refuse_stranger(out.with_suffix(".json"), _is_comparison)
    for suffix, begin in BEGINNINGS.items():
        refuse_stranger(out.with_suffix(suffix), functools.partial(_begins_with, begin))
    runs, left_out = readable_runs(folders)
    comparison = compare_runs(runs, left_out, failed={job.label: job.sentence for job in failed})
    found = json.loads(json.dumps(asdict(comparison), allow_nan=False))  # the page is given what the file holds
    write_whole(out.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    tables = [comparison.table, *([comparison.differences] if comparison.differences else []), comparison.labels]
    write_whole(out.with_suffix(".csv"), as_csv(comparison.table).encode(errors="backslashreplace"))
    write_whole(out.with_suffix(".md"), as_markdown(TITLE, tables).encode(errors="backslashreplace"))
    write_whole(out.with_suffix(".tex"), as_tex(TITLE, tables).encode(errors="backslashreplace"))
    beside = [out.with_suffix(suffix).name for suffix in BEGINNINGS]
    write_page(out, render_page("compare.html.j2", page=found, beside=beside, **interactive(found)))
    if figures:
        write_figures(out.with_name(f"{out.stem}_figures"), comparison.plots)
    return out


def _begins_with(begin: bytes, earlier: bytes) -> bool:
    return earlier.startswith(begin)


def _is_comparison(earlier: bytes) -> bool:
    try:
        found = json.loads(earlier)
    except ValueError:
        return False
    return isinstance(found, dict) and {"runs", "headline", "differences", "plots"} <= found.keys()


def read_left_out(page: Path) -> list[tuple[str, str]]:
    """Read which runs a comparison names but does not show, and why."""
    found = json.loads(page.with_suffix(".json").read_text())
    return [(one["run"], one["why"]) for one in found["left_out"]]


def readable_runs(folders: Sequence[Path]) -> tuple[dict[str, RunRecord], dict[str, str]]:
    """Read the runs that can be read, and say why the others cannot, both by name; raises ValueError when none can be read."""
    runs, broken, above = dict[str, RunRecord](), dict[str, str](), common_folder(folders)
    for folder in folders:
        name = name_of(folder, above)
        try:
            runs[name] = read_run(folder)
        except DAMAGE as error:
            broken[name] = damage(folder, error)
    if not runs:
        raise ValueError(next(iter(broken.values())))
    return runs, broken


def damage(folder: Path, error: Exception) -> str:
    """Describe why a run cannot be read, in one sentence that names it."""
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    said = " ".join(said.split())
    return said if str(folder) in said else f"{folder} cannot be read: {said}"


def compare_runs(
    runs: Runs,
    left_out: Mapping[str, str] = MappingProxyType({}),
    *,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    """Compare the runs that are undamaged and learned what the first one did; the others are left out, each with a reason.

    `left_out` are runs that were left out before, and why; `failed` are jobs of the runs' sweep, and why each failed. Raises
    ValueError when no run is left.
    """
    sound, found, left_out = dict[str, RunRecord](), dict[str, Scored](), dict(left_out)
    for name, run in runs.items():
        try:
            one = read_predictions(run)
            alone = _compare({name: run}, {name: one} if one else {}, {}, {})
            json.dumps(asdict(alone), allow_nan=False)  # raises where a damaged file holds what JSON does not know
        except DAMAGE as error:
            left_out[name] = damage(run.folder, error)
            continue
        first = next(iter(sound.values()), run)
        if (run.task.name, run.labels, run.headline) != (first.task.name, first.labels, first.headline):
            left_out[name] = (
                f"expected runs that learned the same labels, got others in {run.folder} (task {run.task.name}); "
                "compare it with its like"
            )
            continue
        sound[name] = run
        found |= {name: one} if one else {}
    if not sound:
        raise ValueError(next(iter(left_out.values())))
    return _compare(sound, found, left_out, failed)


def _compare(
    runs: Runs, found: Mapping[str, Scored], left_out: Mapping[str, str], failed: Mapping[str, str]
) -> Comparison:
    first, scored = next(iter(runs.values())), list(found.items())
    label, (settings, drawn) = first.primary_label, _settings(runs)
    shown = [
        scores_plot(found, label),
        rounds_plot(runs, label),
        *curves_over(settings, _scores(runs, found), list(runs), drawn),
    ]
    by_label = [differences_table(found, other) for other in first.labels if other != label]
    return Comparison(
        title=f"{first.task.title}: {format_count(len(runs), 'run')} side by side",
        synthetic=any(run.is_synthetic for run in runs.values()),
        runs=list(runs),
        left_out=[LeftOut(run=name, why=why) for name, why in left_out.items()],
        failed=dict(failed),
        headline=label,
        words=task_words(first.task),
        unfinished=[name for name, run in runs.items() if not run.is_finished],
        crops_from_truth=[name for name, run in runs.items() if run.crops_from_truth],
        table=runs_table(runs, found, settings),
        differences=differences_table(found, label),
        unpaired=[name for name, one in scored[1:] if not same_slices(one, scored[0][1])],
        by_label=[table for table in by_label if table is not None],
        labels=labels_table(found, first.labels),
        plots=[plot for plot in shown if plot is not None],
    )


def _settings(runs: Runs) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Find the settings that differ, with their values in every run, and which of them to draw over.

    In runs of one sweep they are the settings that it varied and the settings that do not follow from them. In other runs they
    are all settings that differ, and None.
    """
    configs = [run.config for run in runs.values()]
    jobs = [job_of(run.folder) for run in runs.values()]
    of_jobs = [values_of(job.words) for job in jobs if job is not None]
    parts = [
        run.folder.name if job and job.name != run.folder.name else ""
        for run, job in zip(runs.values(), jobs, strict=True)
    ]
    if len(of_jobs) < len(jobs) or len({frozenset(of_job) for of_job in of_jobs}) > 1:
        return diff_configs(configs), None
    settings = of_sweep(of_jobs, parts, configs)
    return settings, select_drawn_settings(settings, of_jobs[0])


def runs_table(runs: Runs, found: Mapping[str, Scored], settings: Mapping[str, list[Any]]) -> Table:
    """Make a table with a row for each run: its state, its scores, what it took, and the settings that differ."""
    scores, names = _scores(runs, found), list(settings)
    heads = [
        Column(name="run", kind=Kind.text),
        Column(name="state", kind=Kind.text),
        *(Column(name=score) for score in scores),
    ]
    heads += [*columns(seconds="seconds", traffic="megabytes"), *(Column(name=name, kind=Kind.text) for name in names)]
    rows = []
    for i, (name, run) in enumerate(runs.items()):
        summary = run.summary or {}
        moved = summary["bytes_down"] + summary["bytes_up"] if "bytes_up" in summary else None
        values = ["null" if settings[setting][i] is None else str(settings[setting][i]) for setting in names]
        state = summary.get("status", "unfinished")
        rows.append([name, state, *(of[i] for of in scores.values()), summary.get("wall_s"), moved, *values])
    return without_empty(Table(title="Runs", columns=heads, rows=rows))


def differences_table(found: Mapping[str, Scored], label: str) -> Table | None:
    """Make a table of every run's AUROC of a label, and of it minus that of other runs: the first, the pooled, the sites alone.

    Columns without any difference are left out. None for fewer than two runs.
    """
    if len(found) < 2:
        return None
    first, everyone = next(iter(found)), list(found.values())
    rows = []
    for name, one in found.items():
        against = [None if name == first or found[first].baseline != "none" else found[first]]
        against += [
            baseline_of(one, everyone, kind) if one.baseline == "none" else None for kind in ("central", "local")
        ]
        rows.append([name, one.auroc(label), *(difference(one, other, label) if other else None for other in against)])
    heads = columns(run="text", AUROC="score")
    heads += [
        Column(name=f"minus {first}", kind=Kind.signed),
        *columns(gap_to_pooled="signed", gain_over_alone="signed"),
    ]
    return without_empty(Table(title=area_title(label), columns=heads, rows=rows))


def labels_table(found: Mapping[str, Scored], labels: Sequence[str]) -> Table:
    rows = [[name, *(one.auroc(label) for label in labels)] for name, one in found.items()]
    heads = [Column(name="run", kind=Kind.text), *(Column(name=label) for label in labels)]
    return Table(title="AUROC of every label", columns=heads, rows=rows)


def scores_plot(found: Mapping[str, Scored], label: str) -> Plot | None:
    if not found:
        return None
    areas = [one.auroc(label) for one in found.values()]
    data = [points(found, areas, "test site", 0, showlegend=False)]
    return Plot(
        name="scores",
        title=title_area(next(iter(found.values())).run.task, label),
        data=data,
        layout=axes("run", "AUROC", xaxis=category_axis(list(found)), yaxis=area_axis(data)),
        table=Table(
            title="AUROC",
            columns=columns(run="text", AUROC="score"),
            rows=[[*row] for row in zip(found, areas, strict=True)],
        ),
    )


def rounds_plot(runs: Runs, label: str) -> Plot | None:
    """Plot every run's AUROC on the test site by round; None where no run has any."""
    by_run: dict[str, dict[int, float]] = {}
    for name, run in runs.items():
        told = run.rounds.dropna(subset=[f"test_auroc_{label}"])
        if len(told):
            by_run[name] = dict(zip(told["round"].astype(int), told[f"test_auroc_{label}"].astype(float), strict=True))
    if not by_run:
        return None
    rounds = sorted({round_ for areas in by_run.values() for round_ in areas})
    data = lines(by_run, rounds, "run")
    heads = [Column(name="round", kind=Kind.number), *(Column(name=name) for name in by_run)]
    crowd = any("meta" in trace for trace in data)
    return Plot(
        name="rounds",
        title=f"{title_area(next(iter(runs.values())).task, label)} by round",
        data=data,
        layout=axes("round", "AUROC", xaxis=by_rounds(rounds), yaxis=area_axis(data)),
        table=Table(
            title="By round", columns=heads, rows=[[n, *(areas.get(n) for areas in by_run.values())] for n in rounds]
        ),
        choices=["", *by_run] if crowd else (),
        choice_name="Follow a run" if crowd else "",
    )


def _scores(runs: Runs, found: Mapping[str, Scored]) -> dict[str, list[Score]]:
    """Collect the scores by which runs are judged: by name a number or an estimate of every run."""
    first = next(iter(runs.values()))
    label = first.primary_label
    worst = {name: measure_spread(run) for name, run in runs.items() if name in found}
    loss = {name: one.run.test_site["log_loss"] for name, one in found.items() if one.run.test_site is not None}
    scores: dict[str, list[Score]] = {
        area_name(label): [found[name].auroc(label) if name in found else None for name in runs],
        "log loss": [loss.get(name) for name in runs],
        f"{area_name(label)}, worst site": [areas.least if (areas := worst.get(name)) else None for name in runs],
    }
    return {name: values for name, values in scores.items() if any(value is not None for value in values)}
