"""docs/columns.md and docs/preparation.md say what the code says, row by row."""

import re

import pytest
from package import ROOT

from fl_rsna.cohort.prepared.index import columns_of
from fl_rsna.cohort.prepared.prepare import REJECTED
from fl_rsna.imaging.dicom.rejections import LONGEST, MEANING
from fl_rsna.task import Rendering

PAGE = (ROOT / "docs" / "columns.md").read_text()
HEADINGS = {
    Rendering.hounsfield: "The columns of the index",
    Rendering.radiograph: "The columns of a radiograph's index",
}
TYPES = {"str": "text", "float64": "number", "int32": "whole number", "bool": "true or false"}


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    found = {first.strip("`"): rest for first, *rest in cells}
    assert len(found) == len(rows), "a name stands twice"
    return found


def test_every_reason_is_in_the_page_with_its_meaning() -> None:
    assert table("Why a file is rejected") == {reason.value: [meaning] for reason, meaning in MEANING.items()}


@pytest.mark.parametrize("rendering", list(Rendering))
def test_every_column_is_in_the_page_with_its_type_unit_and_meaning(rendering: Rendering) -> None:
    columns = columns_of(rendering)
    expected = {name: [TYPES[column.dtype], column.unit, column.meaning] for name, column in columns.items()}
    assert table(HEADINGS[rendering]) == expected
    assert list(table(HEADINGS[rendering])) == list(columns)


@pytest.mark.parametrize(
    "word", [f"`{name}`" for name in REJECTED if name != "path"] + [f"at most {LONGEST} characters"]
)
def test_the_pages_name_the_columns_of_rejected_files(word: str) -> None:
    assert word in PAGE + (ROOT / "docs" / "preparation.md").read_text()
