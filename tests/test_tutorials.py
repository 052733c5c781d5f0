"""The tutorials run as they are written, the first one at a tiny size."""

import sys
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pytest
from package import ROOT

TINY = """
PATIENTS, SLICES, SIDE, ROUNDS = 20, 4, 32, 1
MORE = ["engine.workers=0", "model.image_size=32", "tracking=none"]
"""


def run_cells(name: str) -> dict[str, object]:
    """Run the code cells of a tutorial in order; the cell with the tag `parameters` is replaced by TINY."""
    found: dict[str, object] = {"__name__": "tutorial"}
    for cell in jupytext.read(ROOT / "docs" / "tutorials" / f"{name}.py").cells:
        if cell.cell_type == "code":
            is_size = "parameters" in cell.metadata.get("tags", [])
            exec(compile(TINY if is_size else cell.source, name, "exec"), found)
    return found


@pytest.mark.slow
def test_from_dicom_to_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_cells("dicom-to-figure")
    plt.close("all")
    assert (tmp_path / "runs" / "compare.html").exists()
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert "AUROC, any hemorrhage" in (tmp_path / "figure.svg").read_text()


def test_a_strategy_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the tutorial adds to it
    assert run_cells("own-strategy")["memory"]["delta"].tolist() == [-2.0, 1.0]  # type: ignore[index]
