"""A run that begins with given weights, and one that trains for a stated prevalence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from saved_runs import write_tiny_model
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.targets import (
    SiteTargets,
    compute_prevalence_odds,
    label_weights,
    reweight_to_prevalence,
)
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import Trainable
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.validation import check
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH


def ran(config: Config, cohort: Cohort, folder: Path) -> Path:
    run_federation(config, cohort, folder, ())
    return folder


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


def quick(**changes: object) -> Config:
    """Only the head trains."""
    return tiny_config(**{"train__trainable": Trainable.head, **changes})


@pytest.fixture(scope="module")
def first(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(quick(rounds=1), cohort, tmp_path_factory.mktemp("runs") / "first")


def test_a_run_goes_on_from_another_runs_final_model(first: Path, cohort: Cohort, tmp_path: Path) -> None:
    """Round 0 is the given model: with a learning rate of next to nothing the final one is, too."""
    second = ran(
        quick(rounds=1, start=str(first), train__learning_rate=1e-12),
        cohort,
        tmp_path / "second",
    )  # fmt: skip
    given = read_saved(first / "model.safetensors")
    named = {"file": str(first / "model.safetensors"), "model_sha256": given.sha256}
    assert read(second / "manifest.json")["start"] == named
    assert read(second / "summary.json")["started_from"] == named
    assert read(first / "summary.json")["started_from"] is None
    rows = [pd.read_csv(folder / "rounds.csv")["test_loss"] for folder in (first, second)]
    assert rows[1][0] == pytest.approx(rows[0][1], rel=1e-5)
    weights = [read_saved(folder / "model.safetensors").network.head.weight for folder in (first, second)]
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-6)


def test_a_run_that_was_killed_goes_on_without_the_model_it_began_with(
    first: Path, cohort: Cohort, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / "given")
    config = quick(rounds=1, start=str(tmp_path / "given"))
    whole = ran(config, cohort, tmp_path / "whole")
    (whole / "summary.json").unlink()
    shutil.rmtree(tmp_path / "given")
    before = read_saved(whole / "model.safetensors").sha256
    again = quick(rounds=1, start=str(tmp_path / "given"), resume=True)
    assert read(ran(again, cohort, whole) / "summary.json")["model_sha256"] == before


def test_a_finished_run_stays_as_it_is_and_is_not_taken_for_another(cohort: Cohort, tmp_path: Path) -> None:
    """The same settings, in whatever engine, leave it alone; others are refused as those of a run that goes on are."""
    folder = ran(quick(rounds=1), cohort, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    ran(quick(rounds=1, resume=True, engine__workers=1), cohort, folder)
    with pytest.raises(ValueError, match=r"^resume: .* was begun with other settings \(rounds, seed differ\)"):
        ran(quick(rounds=3, seed=2, resume=True), cohort, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_every_site_alone_begins_with_the_same_weights(first: Path, cohort: Cohort, tmp_path: Path) -> None:
    folder = ran(quick(rounds=1, start=str(first), baseline=Baseline.local), cohort, tmp_path / "local")
    rows = [pd.read_csv(path)["test_loss"][0] for path in sorted(folder.glob("alone/*/rounds.csv"))]
    assert rows == pytest.approx([pd.read_csv(first / "rounds.csv")["test_loss"][1]] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"image": ImageKind.windows}, "^start: expected a model for images hu, got one for windows in "),
        ({"layout": "other"}, "^start: expected a tiny as model.* describes it, got the weights of a "),
        ({"nowhere": True}, "^start: no model at "),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_a_sentence(
    made: dict[str, object], sentence: str, cohort: Cohort, tmp_path: Path
) -> None:
    config = quick(rounds=1, start=str(tmp_path / "model.safetensors"))
    if "nowhere" not in made:
        write_tiny_model(tmp_path / "model.safetensors", **{k: v for k, v in made.items() if k == "image"})  # type: ignore[arg-type]
    if "layout" in made:
        config.model.norm = type(config.model.norm).group
    with pytest.raises(ValueError, match=sentence):
        run_federation(config, cohort, tmp_path / "run", ())
    assert not (tmp_path / "run").exists()


def test_weights_count_slices_as_often_as_they_occur_at_the_target() -> None:
    prior, target = (0.2, 0.1), (0.5, 0.1)
    labels = np.array([[1, 1], [0, 0], [0, 0], [0, 0], [0, 0]], np.float32)
    weights = label_weights(labels, compute_prevalence_odds(prior, target))
    assert weights[:, 0].mean() == pytest.approx(1)  # 1 of 5 is the prior's share
    assert (weights * labels)[:, 0].sum() / weights[:, 0].sum() == pytest.approx(0.5)
    assert weights[:, 1] == pytest.approx(1)
    known = SiteTargets(labels=labels)
    assert reweight_to_prevalence(known, prior, target).weights == pytest.approx(weights, rel=1e-6)
    assert reweight_to_prevalence(
        SiteTargets(labels=labels, weights=np.zeros_like(labels)), prior, target
    ).weights == pytest.approx(0)
    assert reweight_to_prevalence(known, prior, ()) is known
    assert reweight_to_prevalence(known, prior, prior) is known


def test_the_weighted_loss_is_least_at_the_targets_prevalence() -> None:
    labels = torch.zeros(100, 6)
    labels[:20] = 1
    weights = reweight_to_prevalence(SiteTargets(labels=labels.numpy()), (0.2,) * 6, (0.5,) * 6).weights
    assert weights is not None
    odds = torch.from_numpy(weights)
    shares = torch.linspace(0.01, 0.99, 99)
    losses = [float(task_loss(torch.logit(s).expand(100, 6), labels, ICH, counts=odds)) for s in shares]
    assert float(shares[int(np.argmin(losses))]) == pytest.approx(0.5, abs=0.01)
    plain = task_loss(torch.zeros(100, 6), labels, ICH)
    assert float(task_loss(torch.zeros(100, 6), labels, ICH, counts=torch.ones(100, 6))) == pytest.approx(float(plain))


def test_a_stated_prevalence_is_trained_for_and_said(cohort: Cohort, tmp_path: Path) -> None:
    """Where all slices are given 5%, a slice with blood loses log(0.95 / 0.05) more: the loss rises with the share of them."""
    arguments = {"rounds": 1, "train__learning_rate": 1e-12, "train__batch_size": 64, "model__dropout": 0.0}
    plain, config = ran(quick(**arguments), cohort, tmp_path / "plain"), quick(**arguments)
    config.match.prevalence = {"any": 0.9}
    matched = ran(config, cohort, tmp_path / "matched")
    for folder, any_ in ((plain, None), (matched, 0.9)):
        said = read(folder / "summary.json")["prevalence"]
        assert isinstance(said, dict)
        assert said["meant"]["any"] == (any_ or said["training"]["any"])
        assert said["meant"]["subdural"] == said["training"]["subdural"]
        assert read_saved(folder / "model.safetensors").facts["prevalence"] == said
    losses = [pd.read_csv(folder / "rounds.csv")["train_loss"][1] for folder in (plain, matched)]
    rise = (0.9 - said["training"]["any"]) * np.log(0.95 / 0.05) * 2 / 7  # `any` has 2 of the label weights' 7
    assert losses[1] - losses[0] == pytest.approx(rise, rel=0.15)


def test_the_prior_itself_changes_nothing(first: Path, cohort: Cohort, tmp_path: Path) -> None:
    config = quick(rounds=1)
    config.match.prevalence = dict(read(first / "summary.json")["prevalence"]["training"])  # type: ignore[index, call-overload]
    matched = ran(config, cohort, tmp_path / "matched")
    hashes = [read(folder / "summary.json")["model_sha256"] for folder in (first, matched)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({"blood": 0.1}, "^match.prevalence: expected any, epidural, .* got blood"),
        ({"any": 0}, "^match.prevalence.any: expected a share between 0 and 1, got 0"),
        ({"any": 0.1, "subdural": 0.2}, "^match.prevalence.any: expected at least that of subdural, 0.2, got 0.1"),
    ],
)
def test_a_prevalence_that_cannot_be_is_refused(stated: dict[str, float], sentence: str) -> None:
    config = Config()
    config.match.prevalence = stated
    with pytest.raises(ValueError, match=sentence):
        check(config)
