"""Several models together: weights from what simulated sites remember, or as stated, and everything evaluate writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from composed import read_own
from saved_runs import write_tiny_model, write_tiny_run
from scipy.special import expit, logit
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.hashes import read_table, write_table
from fl_rsna.ensemble import main
from fl_rsna.evaluation.ensemble import read_members, read_validation
from fl_rsna.evaluation.settings import EnsembleConfig
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import Trainable
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH


@pytest.fixture(scope="module")
def runs(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one round on one cohort, of different seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = tiny_config(rounds=1, seed=seed, train__trainable=Trainable.head, train__learning_rate=0.02)
        run_federation(config, cohort, folder / f"run-{seed}", ())
    return [folder / "run-0", folder / "run-1"]


def made(out: Path, models: list[Path], *arguments: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    typed = [f"models=[{','.join(map(str, models))}]", f"out={out}", *arguments]
    main(read_own(EnsembleConfig, typed))
    record: dict[str, Any] = json.loads((out / "ensemble.json").read_text())
    return pd.read_parquet(out / "predictions.parquet"), record


def alone(run: Path) -> np.ndarray:
    """Logits of a run's model on the test site, in the order of its predictions, at its temperatures."""
    table = pd.read_parquet(run / "predictions.parquet")
    chosen = json.loads((run / "summary.json").read_text())["operating_points"]["temperatures"]
    temperatures = np.array([chosen[label] or 1.0 for label in ICH.labels])
    found: np.ndarray = logit(probabilities_in(table, ICH.labels).astype(np.float64)) / temperatures
    return found


def test_weights_are_fitted_on_what_the_sites_remember(
    runs: list[Path], cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    table, record = made(out, runs, f"site={cohort.site_folder('test-site')}")
    shares = np.array([record["weights"][label] for label in ICH.labels])
    assert shares.sum(1) == pytest.approx(1)
    together = expit(shares[:, 0] * alone(runs[0]) + shares[:, 1] * alone(runs[1]))
    assert probabilities_in(table, ICH.labels) == pytest.approx(together, rel=1e-3)
    fitted = record["fitted_on_validation"]
    assert fitted["log_loss"] <= min(fitted["log_loss_of_each"]) + 1e-9
    assert fitted["log_loss"] <= fitted["log_loss_cross_validated"] + 1e-9
    assert "cross-validated over patients" in capsys.readouterr().out
    names = {"evaluation.json", "exams.csv", "predictions.csv", "submission.csv", "scorecard.json", "ensemble.json"}
    assert names <= {path.name for path in out.iterdir()}
    assert len(json.loads((out / "evaluation.json").read_text())["model"]["ensemble"]) == 2


def test_what_the_sites_remember_is_every_validation_slice_once(runs: list[Path], cohort: Cohort) -> None:
    known = read_validation(read_members([str(run) for run in runs]))
    index = pd.concat([pd.read_csv(cohort.site_folder(site) / "index.csv") for site in cohort.sites])
    index = index[index["split"] == "validation"]
    assert known.logits.shape == (2, len(index), 6)
    assert known.labels.sum(0) == pytest.approx(index[list(ICH.labels)].sum(0).to_numpy())
    one = pd.concat(
        [pd.read_parquet(path) for path in sorted(runs[0].glob("site_memory/*/*/final.parquet"))], ignore_index=True
    )
    assert sorted(labels_in(one, ["any"])[:, 0]) == sorted(known.labels[:, 0])


@pytest.mark.parametrize(("said", "shares"), [("equal", [0.5, 0.5]), ("[0.75,0.25]", [0.75, 0.25])])
def test_weights_may_be_stated(
    said: str, shares: list[float], runs: list[Path], cohort: Cohort, tmp_path: Path
) -> None:
    files = [run / "model.safetensors" for run in runs]
    table, record = made(
        tmp_path / "out", files, f"site={cohort.site_folder('test-site')}", f"weights={said}"
    )  # fmt: skip
    assert record["fitted_on_validation"] is None
    assert record["weights"]["any"] == shares
    together = expit(shares[0] * alone(runs[0]) + shares[1] * alone(runs[1]))
    assert probabilities_in(table, ICH.labels) == pytest.approx(together, rel=1e-3)
    assert "any_at_youden" not in table  # nobody chose a threshold


def test_what_cannot_be_combined_is_said_in_a_sentence(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    other = write_tiny_run(tmp_path / "other")
    windows = write_tiny_model(tmp_path / "windows.safetensors", image=ImageKind.windows)
    site = f"site={cohort.site_folder('test-site')}"
    for models, arguments, sentence in (
        (runs[:1], [site], "^models: expected two or more different models, got "),
        ([runs[0], runs[0] / "model.safetensors"], [site], "^models: expected different models, got the same weights"),
        (
            [runs[0], other],
            [site],
            "^models: weights cannot be fitted, since the runs are not of one cohort; say weights=",
        ),
        ([runs[0], windows], [site, "weights=equal"], "^models: expected models of one images, got hu in "),
        (runs, [site, "weights=[0.5,0.6]"], "^weights: expected equal, or 2 shares of 0 or more that sum to 1, got "),
        (runs, [site, "weights=best"], "^weights: expected equal, or 2 shares"),
        (runs, [site, "weights=equal", "shift=true"], "^shift: expected weights that are fitted"),
        (runs, [site, "shift=true"], "^shift: expected enough positive and negative exams"),
        (runs, [], "^data.dicom: expected one of "),
    ):
        with pytest.raises(ValueError, match=sentence):
            made(tmp_path / "out", models, *arguments)
        assert not (tmp_path / "out").exists()


def test_validation_on_other_slices_fits_nothing(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    path = next(runs[1].glob("site_memory/*/*/final.parquet"))
    whole = path.read_bytes()
    facts = {"run_id": path.parent.name, "site": path.parents[1].name}
    write_table(path, read_table(path, "again", facts).iloc[1:], facts)
    try:
        with pytest.raises(ValueError, match="was validated on other images than"):
            made(tmp_path / "out", runs, f"site={cohort.site_folder('test-site')}")
    finally:
        path.write_bytes(whole)
