"""A stacking says what it gained, on its page, in its tables and at its end; other runs say nothing of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import LABELS, estimate, made_run

from fl_rsna.reporting.pages.run_page import build_report, paper_tables, report_json, write_report
from fl_rsna.reporting.record.cells import Kind, format_cell
from fl_rsna.reporting.record.run_record import RunRecord, read_run
from fl_rsna.reporting.sections.stacking import stack_lines


def report_of(run: RunRecord) -> dict[str, Any]:
    return dict(json.loads(report_json(build_report(run))))


def stacked(folder: Path, stacker: str = "xgboost") -> Path:
    """A made run of three folds whose stacker is 0.02 better than their mean in log loss, 0.05 in AUROC."""
    run = made_run(folder, stage="stacking")
    summary = json.loads((run / "summary.json").read_text())
    by_label = {label: {"auroc": estimate(0.8)} for label in LABELS}
    mean = {"log_loss": 0.25, "log_loss_interval": estimate(0.25), "slice": by_label}
    apart = {"log_loss": signed(-0.02), "auroc": dict.fromkeys(LABELS, signed(0.05))}
    folds = [
        {"folder": f"fold-{n}", "log_loss": 0.26 + n / 100, "auroc": dict.fromkeys(LABELS, estimate(0.75))}
        for n in (1, 2, 3)
    ]
    told = {"stacker": stacker, "folds": folds, "mean_of_folds": mean, "against_mean_of_folds": apart}
    told |= {"selected_rounds": {label: n for n, label in enumerate(LABELS)}} if stacker == "xgboost" else {}
    (run / "summary.json").write_text(json.dumps({**summary, "stacking": told}))
    return run


def signed(value: float) -> dict[str, float | int]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "positives": 40, "negatives": 160}


def test_the_page_sets_the_stacker_beside_the_mean_and_every_slice_model(tmp_path: Path) -> None:
    run = stacked(tmp_path / "run")
    found = report_of(read_run(run))
    assert found["kind"] == "Federated run, a stacking of slice models"
    rows = found["stacking"]["compared"]["rows"]
    assert [row[0] for row in rows] == [
        "slice model fold-1",
        "slice model fold-2",
        "slice model fold-3",
        "mean of the slice models",
        "stacker, boosted trees: the run's model",
    ]
    assert [row[1] for row in rows[:3]] == pytest.approx([0.27, 0.28, 0.29])
    assert rows[3][1]["value"] == 0.25
    assert all(row[2] is None and row[4] is None for row in rows[:4])
    assert (rows[4][2]["value"], rows[4][4]["value"]) == (-0.02, 0.05)
    labels = found["stacking"]["labels"]["rows"]
    assert [row[0] for row in labels] == list(LABELS)
    assert [row[4] for row in labels] == list(range(len(LABELS)))
    page = write_report(run).read_text()
    for words in (
        "Stacking on the test site",
        "boosted trees",
        "−0.020",
        "fold-3",
        "chosen round",
        "Round 0 is the mean of the slice models",
    ):
        assert words in page
    assert any(table.title.startswith("Stacking") for table in paper_tables(build_report(read_run(run))))


def test_a_network_has_no_round_of_its_own_a_label(tmp_path: Path) -> None:
    found = report_of(read_run(stacked(tmp_path / "run", "cnn")))["stacking"]
    assert found["stacker"] == "a network along the series"
    assert all(len(row) == 4 for row in found["labels"]["rows"])


def test_another_run_has_no_such_section(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert report_of(read_run(run))["stacking"] is None
    assert "Stacking" not in write_report(run).read_text()
    assert stack_lines({}, "any") == []


def test_lines_at_the_end(tmp_path: Path) -> None:
    summary = json.loads((stacked(tmp_path / "run") / "summary.json").read_text())
    assert stack_lines(summary, "any") == [
        "mean of 3 slice models: AUROC any 0.800 [0.750, 0.850], log loss 0.2500",
        "stacker (xgboost) against it, paired over patients: AUROC any 0.050 [-0.050, 0.150], log loss -0.020 [-0.120, 0.080]",
    ]


@pytest.mark.parametrize(("value", "words"), [(-0.25, "−0.250 [no interval"), (0.25, "+0.250 [no interval")])
def test_a_difference_without_interval_has_its_sign(value: float, words: str) -> None:
    assert format_cell({**estimate(None), "value": value}, Kind.signed).startswith(words)
