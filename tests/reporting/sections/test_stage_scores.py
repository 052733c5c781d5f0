"""A run of two stages says what each is worth, on its page, in its tables and at the end of a simulation."""

import json
from pathlib import Path
from typing import Any

from made_runs import LABELS, estimate, made_run

from fl_rsna.reporting.pages.run_page import build_report, paper_tables, report_json, write_report
from fl_rsna.reporting.record.run_record import RunRecord, read_run
from fl_rsna.reporting.sections.stages import stage_lines


def report_of(run: RunRecord) -> dict[str, Any]:
    return dict(json.loads(report_json(build_report(run))))


def staged(folder: Path, *, moved: float | None = 3.8e6) -> Path:
    """A made run whose head is better than its slice model by 0.02, and smoothing worse."""
    run = made_run(folder, stage="sequence")
    summary = json.loads((run / "summary.json").read_text())
    told = {}
    for name, loss in (("slice", 0.2), ("smoothed", 0.21), ("head", 0.18), ("blend", 0.185)):
        told[name] = {"log_loss": estimate(loss), "auroc": {label: estimate(0.9) for label in LABELS}}
        if name != "slice":
            apart = {**estimate(None), "value": loss - 0.2, "low": loss - 0.21, "high": loss - 0.19}
            told[name]["minus_slice"] = {"log_loss": apart, "auroc": dict.fromkeys(LABELS, apart)}
    summary["sequence"] = {
        "encoder": {"id": "e" * 32, "model_sha256": "b" * 64, "file": "runs/slice"},
        "head": {"kind": "gru", "parameters": 317958, "bytes_a_round": moved},
        "chosen_on": "validation parts of 3 of 3 sites",
        "weights": dict.fromkeys(LABELS, 0.75),
        "sigmas": dict.fromkeys(LABELS, 0.8),
        "test_site": told,
    }
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_the_page_compares_four_predictions_and_says_what_the_run_is(tmp_path: Path) -> None:
    run = staged(tmp_path / "run")
    found = report_of(read_run(run))
    assert found["kind"] == "Federated run, second stage: a head over series"
    rows = found["stages"]["compared"]["rows"]
    assert [row[0].split()[0] for row in rows] == ["slice", "slice", "head", "blend"]
    assert [row[1]["value"] for row in rows] == [0.2, 0.21, 0.18, 0.185]
    assert rows[0][2] is None
    assert [round(row[2]["value"], 3) for row in rows[1:]] == [0.01, -0.02, -0.015]
    assert [row[1:] for row in found["stages"]["chosen"]["rows"]] == [[0.75, 0.8]] * len(LABELS)
    page = write_report(run).read_text()
    for words in (
        "Two stages",
        "head over the series alone",
        "−0.020",
        "3.8 MB a round and site",
        "317,958 parameters",
    ):
        assert words in page
    assert any("stages" in table.title for table in paper_tables(build_report(read_run(run))))


def test_a_run_of_one_stage_has_no_such_section(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert report_of(read_run(run))["stages"] is None
    assert "Two stages" not in write_report(run).read_text()
    assert stage_lines(json.loads((run / "summary.json").read_text()), "any") == []


def test_the_lines_at_the_end_hold_the_differences(tmp_path: Path) -> None:
    summary = json.loads((staged(tmp_path / "run", moved=None) / "summary.json").read_text())
    lines = stage_lines(summary, "any")
    assert len(lines) == 4
    assert lines[2].startswith("head over the series alone: weighted log loss 0.180 [")
    assert "minus slice -0.020 [-0.030, -0.010]" in lines[2]
    assert "minus slice" not in lines[0]
    assert "– a round" in report_of(read_run(tmp_path / "run"))["stages"]["head"]
