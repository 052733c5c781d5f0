"""Explained slices of a run, where somebody asked for them: numbers for report.json, pictures for the page alone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fl_rsna.common.reading import read_json, refuse_unreadable
from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.run_folder.run_folder import EXPLANATIONS

IMAGES = ("picture", "heat", "lesion")  # of an entry, as data URIs
MEASURES = {
    "share": "share of the heat inside the {finding}",
    "uniform": "share of heat spread evenly over the {body}",
    "times_uniform": "times the even share",
    "others": "share of other patients' heat, on average",
    "outside": "share of the heat outside the {body}",
}
OLDER = {"finding": "blood", "body": "head"}  # where nobody said it


def read_explanations(folder: Path) -> list[dict[str, Any]]:
    """The entries with their pictures; none where the run was not explained."""
    return list(_read(folder)["entries"])


def pictures_section(folder: Path) -> dict[str, Any] | None:
    """What is told of the pictures beside them; None where there are none."""
    found = _read(folder)
    if not found["entries"]:
        return None
    measured = found.get("heat_in_lesion")
    words = {name: found.get(name, word) for name, word in OLDER.items()}
    return {
        "method": found.get("method", ""),
        "threshold_from": found.get("threshold_from"),
        "thresholds": found.get("thresholds"),
        "entries": [{key: value for key, value in entry.items() if key not in IMAGES} for entry in found["entries"]],
        "outlined": any(entry.get("lesion") for entry in found["entries"]),
        "measured": asdict(_heat_table(measured, words)) if measured else None,
    }


def _heat_table(found: dict[str, Any], words: dict[str, str]) -> Table:
    title = f"Heat inside the known {words['finding']}: {found['label']}, {found['slices']} true positives of {found['patients']} patients"
    rows = [[said.format(**words), found[name]] for name, said in MEASURES.items() if name in found]
    return Table(title=title, columns=columns(what="text", mean="score"), rows=rows)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / EXPLANATIONS
    if not path.exists():
        return {"entries": []}
    with refuse_unreadable(path, "explanations", "delete it and make the report again"):
        found = json.loads(path.read_bytes().decode())
        found = (
            {"entries": found} if isinstance(found, list) else read_json(path, "delete it and make the report again")
        )
        return {**found, "entries": list(found["entries"])}
