"""Curves of the test site agree with its predictions and its scorecard: the same exams, the same draws of patients, one label at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, made_run

from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.reporting.record.plotly import Plot
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.discrimination import build_discrimination
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import ICH


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty exams of four slices; ten have every label, and are scored higher."""
    return made_run(tmp_path_factory.mktemp("curves") / "run")


@pytest.fixture(scope="module")
def plots(run: Path) -> dict[str, Plot]:
    section = build_discrimination(read_run(run))
    assert section is not None
    return {plot.name: plot for plot in section.body.plots}  # type: ignore[attr-defined]


def traces(plot: Plot, choice: str) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in plot.data if trace.get("meta") == {"choice": choice}}


def test_one_label_and_level_is_drawn_at_a_time_and_exams_come_first(plots: dict[str, Plot]) -> None:
    names = [f"{label}, {level}" for level in ("exams", "slices") for label in LABELS]
    for name in ("roc", "pr", "scores", "benefit"):
        assert list(plots[name].choices) == names
        assert plots[name].chosen == "any, exams"
        assert all(traces(plots[name], choice) for choice in names)


def test_the_roc_curve_has_its_band_and_its_operating_points(plots: dict[str, Plot]) -> None:
    drawn = traces(plots["roc"], "any, exams")
    assert list(drawn) == ["95% band", "model", "sensitivity ≥ 0.95", "specificity ≥ 0.90", "Youden"]
    assert (drawn["model"]["x"][0], drawn["model"]["y"][0]) == (0, 0)
    assert (drawn["model"]["x"][-1], drawn["model"]["y"][-1]) == (1, 1)
    assert (drawn["Youden"]["x"], drawn["Youden"]["y"]) == (
        [pytest.approx(0.1)],
        [0.9],
    )  # as the made scorecard has them
    for choice, rate, value, low, high in plots["roc"].table.rows:
        assert low <= value + 0.05
        assert value <= high + 0.05, (choice, rate)


def test_prevalence_and_counts_are_those_of_the_predictions(run: Path, plots: dict[str, Plot]) -> None:
    table = pd.read_parquet(run / "predictions.parquet")
    assert "prevalence 0.200" in traces(plots["pr"], "any, exams")  # 10 of 50
    rows = [row for row in plots["scores"].table.rows if row[0] == "any, slices"]
    assert sum(row[2] for row in rows) == table["label_any"].sum()
    assert sum(row[3] for row in rows) == (table["label_any"] == 0).sum()


def test_subgroups_agree_with_the_scorecard_of_the_same_draws(run: Path, plots: dict[str, Plot]) -> None:
    table = pd.read_parquet(run / "predictions.parquet")
    truth, found = (
        table[[f"{of}_{label}" for label in LABELS]].to_numpy(np.float32) for of in ("label", "probability")
    )
    seed = derive_seed(0, "bootstrap", TEST_SITE)
    card = scorecard(
        truth, found, table["patient_id"].to_numpy(), table["series_id"].to_numpy(), task=ICH, settings=None, seed=seed
    )
    areas = {row[0]: row[-1] for row in plots["subgroups"].table.rows}
    for name, expected in (
        ("all exams", card["exam"]["max"]["any"]["auroc"]),
        ("all slices", card["slice"]["any"]["auroc"]),
    ):
        assert areas[name]["value"] == pytest.approx(expected["value"], abs=1e-6)
        assert areas[name]["low"] == pytest.approx(expected["low"], abs=1e-4)
    assert areas["exams with subdural"] == areas["all exams"]  # who has any label has them all
    assert [name for name in areas if "third" in name] == [
        f"slices of the {of} third" for of in ("lowest", "middle", "highest")
    ]


def test_a_run_without_predictions_has_no_curves(tmp_path: Path) -> None:
    (made_run(tmp_path / "run") / "predictions.parquet").unlink()
    assert build_discrimination(read_run(tmp_path / "run")) is None
