"""The section of explained slices, where somebody asked for them: numbers for report.json, pictures for the page alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rsna.common.reading import read_json
from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.reporting.record.run_record import RunRecord
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.run_folder import EXPLANATIONS

IMAGES = ("picture", "heat", "lesion")  # of an entry, as data URIs
MEASURES = {
    "share": "share of heat within {finding}",
    "uniform": "share of uniform heat over the {body}",
    "times_uniform": "ratio to uniform heat",
    "others": "share of other patients' heat, mean",
    "outside": "share of heat outside the {body}",
}
KEYS = {"method": str, "threshold_from": str, "thresholds": dict, "finding": str, "body": str}
AGAIN = "delete it and make the report again"

Entry = Mapping[str, Any]  # an explained slice as explanations.json has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """How the slices were explained, the explained slices and exams without their pictures, and how much heat lies in the known finding.

    `outlined` says whether the finding of any slice is known and outlined.
    """

    method: str
    threshold_from: str
    thresholds: Mapping[str, float | None]
    entries: Sequence[Entry]
    exams: Sequence[Entry]
    outlined: bool
    measured: Table | None


def build_pictures(run: RunRecord) -> Section | None:
    """Build the section; None where no slice was explained. Raises ValueError for a damaged explanations.json."""
    entries = read_explained_slices(run.folder)
    if not entries:
        return None
    found = read_json(run.folder / EXPLANATIONS, AGAIN, keys=KEYS)
    heat = found["heat_in_lesion"]
    body = Pictures(
        method=found["method"],
        threshold_from=found["threshold_from"],
        thresholds=found["thresholds"],
        entries=[_without_images(entry) for entry in entries],
        exams=[
            {**exam, "slices": [_without_images(one) for one in exam["slices"]]} for exam in found.get("strips", [])
        ],
        outlined=any(entry.get("lesion") for entry in entries),
        measured=_heat_table(heat, found["finding"], found["body"]) if heat else None,
    )
    return Section(title="Pictures", body=body)


def _without_images(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key not in IMAGES}


def read_explained_slices(folder: Path) -> Sequence[Entry]:
    """The explained slices of a run with their pictures; none where it was not explained. Raises ValueError for a damaged file."""
    path = folder / EXPLANATIONS
    return read_json(path, AGAIN, keys={"entries": list})["entries"] if path.exists() else []


def read_strips(folder: Path) -> Sequence[Entry]:
    """The exams of a run that are drawn whole, with their pictures, as templates/strips.html.j2 takes them."""
    path = folder / EXPLANATIONS
    return read_json(path, AGAIN).get("strips", []) if path.exists() else []


def _heat_table(found: Mapping[str, Any], finding: str, body: str) -> Table:
    title = f"Grad-CAM overlap with annotated {finding}: {found['label']}, {found['slices']} true positives of {found['patients']} patients"
    rows = [[said.format(finding=finding, body=body), found[name]] for name, said in MEASURES.items() if name in found]
    return Table(title=title, columns=columns(what="text", mean="score"), rows=rows)
