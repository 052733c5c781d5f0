"""The console of every command, and what is printed there of prepared data and cohorts."""

import io
from collections.abc import Collection, Mapping
from typing import IO, Any

from rich.console import Console
from rich.control import Control
from rich.markup import escape
from rich.table import Table

from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.prepared.label_ids import describe_fits
from fl_rsna.cohort.sites.absent_labels import describe_absent_labels
from fl_rsna.cohort.sites.noise import describe_noise
from fl_rsna.cohort.sites.s0_layout import IMAGES, TEST_METADATA, TRAIN, TRAIN_METADATA
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.console_log import is_recording, note
from fl_rsna.imaging.dicom.rejections import MEANING, Reason
from fl_rsna.reporting.record.wording import format_count, plural
from fl_rsna.settings.effects import without_effect
from fl_rsna.settings.fields import Asked
from fl_rsna.settings.partition import Layout
from fl_rsna.task import find_task

WIDTH = 140  # of output that is no terminal: a log file has no width of its own


class PathConsole(Console):
    """A console that writes what the output cannot hold, such as a path that is not UTF-8, with escapes.

    What it prints for a run is kept as plain text in the run's console.log, without what a live display redraws.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*objects, **how)
        if is_recording() and not any(isinstance(each, Control) for each in objects):
            plain = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None, force_terminal=False)
            plain.print(*objects, **how)
            assert isinstance(plain.file, io.StringIO)
            note(plain.file.getvalue())

    @property
    def file(self) -> IO[str]:
        stream = super().file
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
        return stream

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new


console = PathConsole(highlight=False)
if not console.is_terminal:
    console = PathConsole(highlight=False, width=WIDTH)


def say_prepared(prepared: Prepared, facts: Mapping[str, Any]) -> None:
    """Print what prepare made, and what it rejected and why; `facts` are those of prepare.json."""
    picture = find_task(facts["task"]).picture
    console.print(
        f"prepared {format_count(facts['slices'], picture)} of {format_count(facts['patients'], 'patient')} in {prepared.folder}",
        soft_wrap=True,
    )
    if (changes := prepared.changes) is not None:
        kept = format_count(changes.kept, "file")
        if changes.kept and not (changes.again or changes.new or changes.gone):
            console.print(f"kept all {kept}: none has changed")
        elif changes.kept or changes.again or changes.gone:
            console.print(f"kept {kept}, converted {changes.again} again, {changes.new} new, {changes.gone} removed")
    positives = ", ".join(f"{label} {count}" for label, count in facts["positives"].items())
    console.print(
        f"positive {plural(picture)}: {positives}" if positives else "without labels: to be scored only", soft_wrap=True
    )
    if orders := facts["series_by_order"]:
        said = ", ".join(f"{order.replace('_', ' ')} {count}" for order, count in orders.items())
        console.print(f"series by the tag that orders their slices: {said}", soft_wrap=True)
    for reason, count in facts["rejected"].items():
        console.print(f"rejected: {count} {reason}: {MEANING[Reason(reason)]}", soft_wrap=True)
    if facts["rejected"]:
        console.print(f"every rejected file: {prepared.folder / 'rejected.csv'}", soft_wrap=True)
    for sentence in describe_fits(facts["label_ids"]):
        console.print(sentence, soft_wrap=True)
    for name, held in facts["placeholders"].items():
        console.print(
            f"placeholder: {format_count(held['images'], picture)} of {format_count(held['studies'], 'study')} under PatientID {name}, which stands "
            f"for nobody: {format_count(held['patients'], 'patient')} here, compared with no other site",
            soft_wrap=True,
            markup=False,
        )
    if shared := facts["patient_ids_of_several_issuers"]:
        console.print(
            f"{format_count(shared, 'PatientID')} from more than one issuer or site, or with and without an issuer: different patients",
            soft_wrap=True,
        )
    if facts["labels_without_image"]:
        console.print(f"labels without an image: {facts['labels_without_image']}")


def say_cohort(cohort: Cohort) -> None:
    """Print the sites of a cohort and what they hold."""
    table = Table(title=f"{cohort.name} in {cohort.folder}")
    pictures = plural(find_task(cohort.facts["task"]).picture)
    for name in ("site", "part", "patients", pictures, *cohort.labels):
        table.add_column(name, justify="left" if name in ("site", "part") else "right")
    for site, parts in cohort.facts["sites"].items():
        for part, held in parts.items():
            positives = [str(held["positives"][label]) for label in cohort.labels]
            table.add_row(site, part, str(held["patients"]), str(held["slices"]), *positives)
    console.print(table)
    for sentence in describe_absent_labels(cohort.facts["sites"], find_task(cohort.facts["task"])):
        console.print(f"[yellow]warning: {escape(sentence)}[/yellow]", soft_wrap=True)
    for site, noise in cohort.facts.get("noise", {}).items():
        console.print(f"noise at {site}: {describe_noise(noise)}; its files stay true", soft_wrap=True)
    if cohort.facts["settings"]["layout"] == Layout.s0:
        there, data = (cohort.folder / TEST_METADATA).exists(), cohort.facts["prepared"]["folder"]
        held = [TRAIN, TRAIN_METADATA, *[TEST_METADATA] * there, "a table a site", f"{IMAGES}/"]
        without = "" if there else f"; no {TEST_METADATA}, for {data}-test was not prepared as a set without labels"
        console.print(f"layout s0: {', '.join(held)}{without}", soft_wrap=True)
    if cohort.facts["leaky"]:
        proof = cohort.facts["disjoint"]
        console.print(
            f"[red]warning: split by {cohort.facts['group']}: {proof['patients_in_two_places']} of {proof['patients']} patients are in "
            "two places or more, so scores will be too high; partition.group=patient does not leak[/red]",
            soft_wrap=True,
        )


def say_without_effect(asked: Asked, typed: Collection[str]) -> None:
    """Print a line for each setting that somebody typed for a step before a run, and that only another command reads."""
    for key, need in without_effect(asked, typed).items():
        if key in typed:
            console.print(f"{key}: has no effect here, which would need {need}", soft_wrap=True, markup=False)
