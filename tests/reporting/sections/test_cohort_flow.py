"""The flow of patients adds up: whole cohort, sites, parts; many sites are one column; a withheld count is never guessed."""

import json
from pathlib import Path

import pytest
from made_runs import made_run

from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.cohort import build_flow


@pytest.mark.parametrize(("sites", "columns"), [(3, 4), (9, 2)])
def test_boxes_add_up(tmp_path: Path, sites: int, columns: int) -> None:
    flow = build_flow(
        read_run(made_run(tmp_path / "run", sites=sites)), {"rejected": [{"reason": "not_dicom", "files": 2}]}
    )
    assert flow is not None
    assert flow.rejected == {"not_dicom": 2}
    assert len(flow.columns) == columns
    assert sum(column[0].slices for column in flow.columns) == flow.whole.slices
    for site, *parts in flow.columns:
        assert sum(part.slices for part in parts) == site.slices
        assert sum(int(part.patients) for part in parts) == site.patients


def test_a_withheld_count_makes_its_sums_unknown(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", privacy__min_count=5)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    events[0]["sites"]["site-1"]["validation"]["patients"] = None
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    flow = build_flow(read_run(run), None)
    assert flow is not None
    assert [box.patients for box in flow.columns[0]] == ["?", 15, "<5"]
    assert flow.whole.patients == "?"
