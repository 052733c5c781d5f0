"""A card says what the run wrote down, and that the rest is unknown."""

import json
from pathlib import Path

from saved_runs import SETTINGS, write_tiny_run

from fl_rsna.evaluation.export import model_card
from fl_rsna.evaluation.load_model import read_named_model
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.settings.model import Crop, Window
from fl_rsna.task import ICH

AREA = {"value": 0.9, "low": 0.8, "high": 0.95, "positives": 3, "negatives": 7}
NONE = {"value": None, "low": None, "high": None, "positives": 0, "negatives": 10}
CHECK = {
    "onnx_sha256": "abc",
    "slices": {"random": 40},
    "greatest_difference": {"random": 2e-7, "one at a time": 1e-7},
    "tolerance": 1e-4,
}
COUNTS = {"patients": 5, "slices": 10, "positives": dict.fromkeys(ICH.labels, 3)}


def finished(folder: Path, precision: object) -> Path:
    """A run with a roll call and scores."""
    run = write_tiny_run(folder, settings=SETTINGS)
    event = {
        "time": "2020",
        "event": "roll_call",
        "sites": {"site-1": {"train": COUNTS}, "test-site": {"test": COUNTS}},
    }
    (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    summary = json.loads((run / "summary.json").read_text())
    by_label = {
        label: {"auroc": AREA if label == "any" else NONE, "average_precision": precision} for label in ICH.labels
    }
    test = {"slices": 10, "patients": 5, "log_loss": 0.25, "slice": by_label, "controls": {"position": by_label}}
    (run / "summary.json").write_text(json.dumps(summary | {"test_site": test, "leaky": False}))
    return run


def test_what_a_run_wrote_down_is_in_its_card(tmp_path: Path) -> None:
    card = model_card(read_named_model(str(finished(tmp_path / "new", AREA))), CHECK)
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert "| site-1 | train | 5 | 10 | 3 | 3 | 3 | 3 | 3 | 3 |" in rows
    assert "| any | 3 of 10 | 0.900 [0.800, 0.950] | 0.900 [0.800, 0.950] |" in rows
    assert "position alone 0.900 [0.800, 0.950]" in card
    assert "| any | 0.2 | 0.8 | none reached | 2.00 |" in rows
    assert "| subdural | 0.2 | 0.8 | none reached | – |" in rows
    assert "undefined: no positives" in card
    assert "not for diagnosis" in card
    assert "unknown" not in card.lower().replace("patients are unknown", "").replace(
        "| commit | unknown |", ""
    ).replace("cohort `unknown`", "")


def test_a_run_of_before_average_precision_had_an_interval_has_a_card(tmp_path: Path) -> None:
    card = model_card(read_named_model(str(finished(tmp_path / "old", 0.5))), CHECK)
    assert "| any | 3 of 10 | 0.900 [0.800, 0.950] | 0.500 |" in card


def test_tables_are_tables(tmp_path: Path) -> None:
    """Every row of a table has as many cells as its head, and no blank line splits it."""
    card = model_card(read_named_model(str(finished(tmp_path / "run", None))), CHECK)
    block: list[int] = []
    for line in [*card.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line.count("|"))
        elif block:
            assert len(block) > 2, line
            assert len(set(block)) == 1, (line, block)
            block = []


def test_what_it_sees_is_in_its_card(tmp_path: Path) -> None:
    """Of a model that needs whole series there is no example to copy, and one view is said to be one."""
    words = {"neighbours": 1, "crop": Crop.head, "tta": 2, "window": Window.learned}
    run = write_tiny_run(tmp_path / "run", **words)
    card = model_card(read_named_model(str(run)), CHECK)
    assert "float32 [B, 3, 32, 32]" in card
    assert "windows 40/80, 80/200, 40/380 are inside" in card
    for said in (
        "| neighbours | 3 slices of one series",
        "| crop | a square around",
        "the mean over 2 |",
        "3 slices at a time",
    ):
        assert said in card
    assert "```python" not in card
    plain = model_card(read_named_model(str(write_tiny_run(tmp_path / "plain"))), CHECK)
    assert "```python" in plain
    assert not any(f"| {word} |" in plain for word in ("neighbours", "crop", "views"))
    assert TRUTH_SHOWN not in card + plain


def test_a_model_that_was_shown_ground_truth_has_it_in_its_card(tmp_path: Path) -> None:
    card = model_card(read_named_model(str(write_tiny_run(tmp_path / "run", crop=Crop.boxes_leaky))), CHECK)
    assert f"**Not for any film:** {TRUTH_SHOWN}." in card
    assert "| crop | a square around ground-truth boxes" in card
    assert "```python" not in card
    lungs = model_card(read_named_model(str(write_tiny_run(tmp_path / "lungs", crop=Crop.lungs))), CHECK)
    assert "| crop | a square around the lung field" in lungs
    assert TRUTH_SHOWN not in lungs
