"""docs/preparation.md says what the code says, row by row."""

import re
from pathlib import Path

import pytest

from fl_rsna.cohort.columns import COLUMNS
from fl_rsna.cohort.prepared import REJECTED
from fl_rsna.imaging.rejections import LONGEST, MEANING

PAGE = (Path(__file__).parents[1] / "docs" / "preparation.md").read_text()
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


def test_every_column_is_in_the_page_with_its_type_unit_and_meaning() -> None:
    expected = {name: [TYPES[column.dtype], column.unit, column.meaning] for name, column in COLUMNS.items()}
    assert table("The columns of the index") == expected
    assert list(table("The columns of the index")) == list(COLUMNS)


@pytest.mark.parametrize(
    "word", [f"`{name}`" for name in REJECTED if name != "path"] + [f"at most {LONGEST} characters"]
)
def test_the_page_names_the_columns_of_rejected_files(word: str) -> None:
    assert word in PAGE
