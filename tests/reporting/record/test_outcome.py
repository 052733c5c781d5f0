"""A finished run says which model it ended with, as its record has it, and what its counts cannot show."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
from edited import edit_json
from made_runs import estimate, made_run

from fl_rsna.reporting.record.outcome import FEW_POSITIVE, describe_final_model, list_cautions, title_area
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.run_folder.run_folder import SCORECARDS
from fl_rsna.run_folder.summary import Summary
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Stage
from fl_rsna.settings.strategy import Averaging
from fl_rsna.settings.training import Select
from fl_rsna.task import COVID_CXR, ICH, MACRO

ALL_ANSWERED = {"sites": 3, "of": 3, "carried": {}, "unknown": []}
BEST = {
    "rounds": 4,
    "selected_round": 1,
    "selected_by": "validation loss",
    "selected_on": ALL_ANSWERED,
    "recalibrated": True,
}
LAST = {**BEST, "selected_round": 4, "selected_by": "last round", "selected_on": None, "recalibrated": False}
STACK = {"stacker": "xgboost", "folds": [{}, {}, {}]}


@pytest.mark.parametrize(
    ("summary", "changes", "text"),
    [
        (BEST, {}, "round 1 of 4 (lowest validation loss), BatchNorm statistics re-estimated"),
        ({**BEST, "recalibrated": False}, {}, "round 1 of 4 (lowest validation loss)"),
        (LAST, {"train__select": Select.last}, "round 4 of 4 (last round)"),
        (LAST, {}, "round 4 of 4 (last round: no site could validate)"),
        ({**BEST, "recalibrated": False}, {"rounds": 9}, "round 1 of 4, stopped early of 9 (lowest validation loss)"),
        (
            {**BEST, "selected_on": {**ALL_ANSWERED, "sites": 2, "unknown": ["site-3"]}, "recalibrated": False},
            {},
            "round 1 of 4 (lowest validation loss on 2 of 3 sites; site-3 never answered by then)",
        ),
        (
            LAST,
            {"train__select": Select.last, "strategy__averaging": Averaging.window},
            "round 4 of 4 (last round), mean of the last 3 rounds",
        ),
        (
            {**BEST, "recalibrated": False},
            {"stage": Stage.sequence},
            "head over series, round 1 of 4 (lowest validation loss), blended with the slice model",
        ),
        (
            {**BEST, "recalibrated": False, "stacking": STACK},
            {"stage": Stage.stacking, "rounds": 9},
            "boosted trees, for each label up to round 1 of 4 (lowest validation loss of each label), on 3 slice models",
        ),
        (
            {**BEST, "recalibrated": False, "stacking": {**STACK, "stacker": "cnn"}},
            {"stage": Stage.stacking},
            "round 1 of 4 (lowest validation loss), on 3 slice models",
        ),
    ],
)
def test_the_final_model_is_that_of_the_record(summary: dict[str, Any], changes: dict[str, Any], text: str) -> None:
    config = asdict(Config(rounds=4))
    for path, value in changes.items():
        group, _, key = path.rpartition("__")
        (config[group] if group else config)[key] = value
    assert describe_final_model(cast(Summary, summary), config) == text


def test_areas_are_named_by_label_site_and_level() -> None:
    assert title_area(ICH, "any") == "AUROC, any hemorrhage (test site, slices)"
    assert title_area(ICH, "subdural") == "AUROC, subdural (test site, slices)"
    assert title_area(COVID_CXR, MACRO) == "macro AUROC (test site, images)"


def with_scores(folder: Path, *, low: float | None, positive_patients: int | None) -> list[str]:
    """The cautions of a run whose model minus slice position has this lower end, and whose three sites validate on so many positive patients."""
    run = made_run(folder)
    cards = read_run(run).cards
    difference = {**estimate(0.2), "low": low, "high": None if low is None else 0.3}
    for card in cards.values():
        card["slice"]["any"]["auroc"]["positive_patients"] = positive_patients
    test = {**cast(dict[str, Any], read_run(run).test_site), "minus_controls": {"position": difference}}
    edit_json(run / SCORECARDS, {"test_site": test, "sites": cards})
    return list_cautions(read_run(run))


def test_enough_positives_and_a_clear_difference_need_no_words(tmp_path: Path) -> None:
    assert with_scores(tmp_path / "run", low=0.1, positive_patients=FEW_POSITIVE) == []
    assert with_scores(tmp_path / "withheld", low=0.1, positive_patients=None) == []


def test_few_positives_in_validation_are_counted(tmp_path: Path) -> None:
    assert with_scores(tmp_path / "run", low=0.1, positive_patients=2) == [
        "validation holds 6 patients with any hemorrhage at 3 of 3 sites, fewer than 20: "
        "the choice of the round and the thresholds would differ with other patients"
    ]


@pytest.mark.parametrize(
    ("low", "text"),
    [
        (0.0, "the model does not clearly beat slice position alone"),
        (-0.1, "the model does not clearly beat"),
        (None, "cannot be known"),
    ],
)
def test_a_control_that_is_not_clearly_beaten_is_named(low: float | None, text: str, tmp_path: Path) -> None:
    (caution,) = with_scores(tmp_path / "run", low=low, positive_patients=FEW_POSITIVE)
    assert text in caution
    assert "slice position" in caution
