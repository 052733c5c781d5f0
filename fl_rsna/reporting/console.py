"""What a user sees while a command works: a live display in a terminal, plain lines elsewhere."""

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fl_rsna.cohort.index import Prepared
from fl_rsna.cohort.noise import said
from fl_rsna.cohort.s0 import IMAGES, TEST_METADATA, TRAIN, TRAIN_METADATA, Layout
from fl_rsna.cohort.sites import Cohort
from fl_rsna.imaging.rejections import MEANING, Reason
from fl_rsna.reporting.sheets import counted

LINE_S = 10.0

console = Console(highlight=False)
DONE = {"train": "trained", "validation": "evaluated", "recalibration": "recalibrated"}
if not console.is_terminal:
    console = Console(highlight=False, width=140)  # a log file has no width to fit


@dataclass(slots=True)
class _Pace:
    """When a piece of work began, with how much already done, and when a line last said how far it is."""

    began: float
    first: int
    said: float


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Display:
    """A progress display; `step` follows counted steps, `event` the events of a run."""

    def __enter__(self) -> "Display":
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._progress.start()
        self._tasks: dict[str, TaskID] = {}
        self._pace: dict[str, _Pace] = {}
        self._rounds = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of a named piece of work; a log that is no terminal gets a line every LINE_S seconds."""
        now = time.monotonic()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, completed=done)
            self._pace[what] = _Pace(began=now, first=done, said=now)
            if 0 < done < total:
                self._say(f"{what}: going on after {done} of {total}")
        pace = self._pace[what]
        rate = (done - pace.first) / max(now - pace.began, 1e-9)
        self._progress.update(self._tasks[what], completed=done, total=total)
        if done == total:
            self._say(f"{what}: {total} done" + (f", {rate:,.0f} a second" if done > pace.first else ""))
        elif not console.is_terminal and now - pace.said >= LINE_S and rate:
            pace.said = now
            left = datetime.timedelta(seconds=round((total - done) / rate))
            self._say(f"{what}: {done} of {total} ({done / total:.0%}), {rate:,.0f} a second, {left} left")

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show one event of a run."""
        match kind:
            case "roll_call":
                self._rounds = fields["rounds"]
                here = [parts["train"]["slices"] for parts in fields["sites"].values() if "train" in parts]
                self._say(f"roll call: {len(here)} sites, {sum(here)} training slices")
                self._sites = len(here)
                self._whole = self._progress.add_task("rounds", total=self._rounds)
            case "round_start":
                self._phase("train", fields["round"], len(fields["sites"]))
            case "site_done" | "site_failed":
                if kind == "site_failed":
                    place = f"round {fields['round']}: {fields['site']} failed in {fields['phase']}"
                    console.print(f"[red]{place}: {escape(fields['error'])}[/red]", soft_wrap=True)
                self._progress.advance(self._phase(fields["phase"], fields["round"], self._sites))
            case "worker_died":
                self._say(f"round {fields['round']}: a worker died under {fields['site']} ({fields['how']})")
            case "round_end":
                self._say(_round_line(fields, self._rounds))
                self._progress.update(self._whole, completed=fields["round"], visible=True)

    def _phase(self, phase: str, round_: int, total: int) -> TaskID:
        name = f"round {round_}: sites {DONE.get(phase, phase)}"
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        return self._tasks[name]

    def _say(self, line: str) -> None:
        for task in self._tasks.values():
            self._progress.update(task, visible=False)
        console.print(line, soft_wrap=True)


def say_prepared(prepared: Prepared, facts: Mapping[str, Any]) -> None:
    """What prepare made, and what it rejected and why."""
    console.print(
        f"prepared {counted(facts['slices'], 'slice')} of {counted(facts['patients'], 'patient')} in {prepared.folder}",
        soft_wrap=True,
    )
    positives = ", ".join(f"{label} {count}" for label, count in facts["positives"].items())
    console.print(f"positive slices: {positives}" if positives else "without labels: to be scored only", soft_wrap=True)
    for reason, count in facts["rejected"].items():
        console.print(f"rejected: {count} {reason}: {MEANING[Reason(reason)]}", soft_wrap=True)
    if facts["rejected"]:
        console.print(f"every rejected file: {prepared.folder / 'rejected.csv'}", soft_wrap=True)
    if facts["labels_without_image"]:
        console.print(f"labels without an image: {facts['labels_without_image']}")


def say_cohort(cohort: Cohort) -> None:
    """The sites of a cohort and what they hold."""
    table = Table(title=f"{cohort.name} in {cohort.folder}")
    for name in ("site", "part", "patients", "slices", *cohort.labels):
        table.add_column(name, justify="left" if name in ("site", "part") else "right")
    for site, parts in cohort.facts["sites"].items():
        for part, held in parts.items():
            positives = [str(held["positives"][label]) for label in cohort.labels]
            table.add_row(site, part, str(held["patients"]), str(held["slices"]), *positives)
    console.print(table)
    for site, noise in cohort.facts.get("noise", {}).items():
        console.print(f"noise at {site}: {said(noise)}; its files stay true", soft_wrap=True)
    if cohort.facts["settings"].get("layout") == Layout.s0:
        console.print(_s0_line(cohort), soft_wrap=True)
    if cohort.facts.get("leaky"):
        proof = cohort.facts["disjoint"]
        console.print(
            f"[red]warning: split by {cohort.facts['group']}: {proof['patients_in_two_places']} of {proof['patients']} patients are in "
            "two places or more, so scores will be too high; partition.group=patient does not leak[/red]",
            soft_wrap=True,
        )


def _s0_line(cohort: Cohort) -> str:
    there, data = (cohort.folder / TEST_METADATA).exists(), cohort.facts["prepared"]["folder"]
    held = [TRAIN, TRAIN_METADATA, *[TEST_METADATA] * there, "a table a site", f"{IMAGES}/"]
    without = "" if there else f"; no {TEST_METADATA}, for {data}-test was not prepared as a set without labels"
    return f"layout s0: {', '.join(held)}{without}"


def _round_line(row: Mapping[str, Any], rounds: int) -> str:
    headline = row["headline"]
    test = row[f"test_auroc_{headline}"]
    parts = [f"round {row['round']}/{rounds}"]
    if row["train_loss"] is not None:
        parts.append(f"train loss {row['train_loss']:.3f}")
        parts.append(
            f"validation loss {row['validation_loss']:.3f}"
            if row["validation_loss"] is not None
            else "validation failed"
        )
    parts.append(f"test AUROC {headline} {test:.3f}" if test is not None else f"test AUROC {headline} undefined")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])
