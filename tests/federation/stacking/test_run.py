"""A stacking: one model a fold, a second one on what they say of strangers, and no way for a label to leak into its own features."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from replaying import replayed
from tiny import rewrite_site, tiny_cohort, tiny_config
from tiny_stacking import FOLDS, Stopped, run, settings, with_folds

from fl_rsna.cohort.sites.site_folders import Cohort, counts, read_cohort
from fl_rsna.federation.protocol.messages import instruct
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.federation.server.context import first_instructions
from fl_rsna.federation.site.handlers import counts_by_fold
from fl_rsna.federation.site.stacking import _read
from fl_rsna.federation.site.stage_data import OUT_OF_FOLD
from fl_rsna.imaging.png_store import read_png, write_png
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.data.folds import fold_of
from fl_rsna.learning.metrics.metrics import average_precision
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Boosting, Stacker, Stage
from fl_rsna.settings.training import Select
from fl_rsna.settings.validation import check
from fl_rsna.task import ICH

SITE = "site-1"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("two"), num_sites=2, patients=24)


@pytest.fixture(scope="module")
def whole(two: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(two, folder, settings())
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def kept(folder: Path, site: str = SITE) -> list[pd.DataFrame]:
    """What a site keeps of every fold's model."""
    runs = [summary_of(folder / f"fold-{number}")["run_id"] for number in range(1, FOLDS + 1)]
    return [pd.read_parquet(folder / "site_memory" / site / name / OUT_OF_FOLD) for name in runs]


def features_of(folder: Path, site: str = SITE) -> pd.DataFrame:
    """The stacker's features of a site's training slices, by patient."""
    runs = [summary_of(folder / f"fold-{number}")["run_id"] for number in range(1, FOLDS + 1)]
    held = _read(tuple(folder / "site_memory" / site / name / OUT_OF_FOLD for name in runs), (id(folder),), "ich")
    own = pd.concat([table[table["stranger"]] for table in kept(folder, site)])
    return pd.DataFrame(held.train, index=pd.Index(own["patient_id"]))


def test_a_run_folder_holds_what_every_run_has_and_a_run_a_fold(two: Cohort, whole: Path) -> None:
    names = {path.name for path in whole.iterdir() if path.is_file()}
    files = {"config.yaml", "manifest.json", "events.jsonl", "rounds.csv", "sites.csv", "predictions.parquet"}
    assert names == files | {"summary.json", "scorecards.json", "stacker.json", "ancestry.json", "owner.json"}
    assert {path.name for path in whole.glob("fold-*")} == {"fold-1", "fold-2"}
    summary, rounds, sites = summary_of(whole), pd.read_csv(whole / "rounds.csv"), pd.read_csv(whole / "sites.csv")
    assert rounds["round"].tolist() == [0, 1, 2, 3]
    folds = [summary_of(whole / f"fold-{number}") for number in (1, 2)]
    for way in ("bytes_down", "bytes_up"):
        assert summary[way] == sites[way].sum() + sum(fold[way] for fold in folds)
    predictions = pd.read_parquet(whole / "predictions.parquet")
    assert summary["test_site"]["slice"]["any"]["auroc"]["positives"] == predictions["label_any"].sum()
    assert set(summary["sites"]) == set(two.sites)
    assert summary["operating_points"]["chosen_on"] == "validation parts of 2 of 2 sites"
    assert "position" in summary["test_site"]["controls"]
    assert summary["stacking"]["mean_of_folds"]["log_loss"] == pytest.approx(rounds["test_loss"][0])
    assert set(summary["stacking"]["against_mean_of_folds"]["auroc"]) == set(ICH.labels)


def test_the_difference_to_the_mean_is_that_of_the_two_losses(whole: Path) -> None:
    summary = summary_of(whole)
    apart = summary["test_site"]["log_loss"] - summary["stacking"]["mean_of_folds"]["log_loss"]
    assert summary["stacking"]["against_mean_of_folds"]["log_loss"]["value"] == pytest.approx(apart)


def test_the_mean_of_the_folds_is_that_of_their_own_predictions(whole: Path) -> None:
    tables = [pd.read_parquet(whole / f"fold-{number}" / "predictions.parquet") for number in (1, 2)]
    mean = np.mean([table["probability_any"] for table in tables], axis=0)
    found = summary_of(whole)["stacking"]["mean_of_folds"]["slice"]["any"]["average_precision"]["value"]
    assert found == pytest.approx(average_precision(tables[0]["label_any"].to_numpy(np.float32), mean))


def test_rounds_are_chosen_by_the_sites_validation(whole: Path) -> None:
    state = json.loads((whole / "checkpoints" / "stacker.json").read_text())
    for label, best in summary_of(whole)["stacking"]["selected_rounds"].items():
        losses = [loss[label] for loss in state["progress"]["losses"]]
        assert best == 1 + losses.index(min(losses))


@pytest.mark.parametrize("stop_at", ["fold_end 1", "round_end 2"])
def test_a_run_that_was_ended_goes_on_to_the_same_model(two: Cohort, whole: Path, tmp_path: Path, stop_at: str) -> None:
    """And in another process: none of this one is left in it."""
    first = settings() if stop_at == "fold_end 1" else settings(resume=True)
    folder = tmp_path / "run" if stop_at == "fold_end 1" else with_folds(whole, tmp_path / "run")
    with pytest.raises(Stopped):
        run(two, folder, first, stop_at=stop_at)
    again = run(two, folder, settings(resume=True), workers=int(stop_at == "round_end 2"))
    assert again["model_sha256"] == summary_of(whole)["model_sha256"]
    assert pd.read_csv(folder / "rounds.csv")["round"].tolist() == [0, 1, 2, 3]


def test_sites_take_turns_and_a_lost_turn_adds_no_tree(two: Cohort, whole: Path, tmp_path: Path) -> None:
    config = settings(stacking__method=Boosting.cyclic, faults__sites={"site-2": "crash@2"}, resume=True)
    assert run(two, with_folds(whole, tmp_path / "run"), config)["site_failures"] == 1
    state = json.loads((tmp_path / "run" / "checkpoints" / "stacker.json").read_text())
    assert (state["progress"]["sizes"], state["progress"]["lost"]) == ([1, 1, 2], [False, True, False])


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_network_stacks_as_any_network_is_trained(two: Cohort, whole: Path, tmp_path: Path, strategy: str) -> None:
    """It starts as the mean of the folds' models, in whose place it is; an ended run goes on to the same model."""
    small = {"sequence__width": 8, "sequence__rounds": 2, "strategy__name": strategy, "resume": True}
    config = settings(stacking__stacker=Stacker.cnn, **small)
    found = run(two, with_folds(whole, tmp_path / "run"), config)
    rounds = pd.read_csv(tmp_path / "run" / "rounds.csv")
    assert rounds["test_loss"][0] == pytest.approx(found["stacking"]["mean_of_folds"]["log_loss"], rel=1e-4)
    assert rounds["train_loss"][1:].notna().all()
    assert found["rounds"] == 2
    assert (tmp_path / "run" / "stacker.safetensors").exists()
    assert replayed(tmp_path / "run") is None
    with pytest.raises(Stopped):
        run(two, with_folds(whole, tmp_path / "ended"), config, stop_at="round_end 1")
    assert run(two, tmp_path / "ended", config)["model_sha256"] == found["model_sha256"]


def test_a_network_is_trained_for_a_stated_prevalence_and_trees_are_not_asked(
    two: Cohort, whole: Path, tmp_path: Path
) -> None:
    """On the same folds, stacked for 95% instead of the sites' own share: what is lost and what is said goes with it."""
    losses, means = [], []
    for name, stated in (("plain", dict[str, float]()), ("matched", {"any": 0.95})):
        config = settings(stacking__stacker=Stacker.cnn, sequence__width=8, sequence__rounds=2, resume=True)
        config.sequence.learning_rate, config.train.select, config.match.prevalence = 0.02, Select.last, stated
        found = run(two, with_folds(whole, tmp_path / name), config)
        losses.append(pd.read_csv(tmp_path / name / "rounds.csv")["train_loss"][1])
        means.append(pd.read_parquet(tmp_path / name / "predictions.parquet")["probability_any"].mean())
    assert found["prevalence"]["meant"]["any"] == 0.95
    assert losses[1] > losses[0] + 0.05  # slices with blood, which it misses, count more
    assert means[1] > means[0]
    with pytest.raises(ValueError, match=r"^match.prevalence: expected nothing with stacking.stacker=xgboost"):
        check(settings(match__prevalence={"any": 0.95}))


def test_under_min_count_no_fold_of_few_is_told(two: Cohort, whole: Path, tmp_path: Path) -> None:
    """With 3, what a fold has 1 or 2 of is withheld in every fold; a site whose folds have fewer than 40 slices stays out."""
    site = open_site(two.site_folder(SITE), image_size=24)
    stacking = settings().stacking
    fold = fold_of(site, ICH, FOLDS, seed=0)
    for left_out in range(FOLDS):
        part = replace(stacking, left_out=left_out)
        whole_counts = counts(site.index, ICH)
        told = counts_by_fold(site, ICH, part, 0, 3, whole_counts)["train"]["positives"]
        for i, label in enumerate(ICH.labels):
            by_fold = [int(site.labels[fold == number, i].sum()) for number in range(FOLDS)]
            few = any(0 < count < 3 for count in by_fold)
            assert told[label] == (None if few else sum(by_fold) - by_fold[left_out])
    with pytest.raises(ValueError, match=r"privacy.min_count: expected at least 40 slices in each of 2 folds"):
        counts_by_fold(site, ICH, stacking, 0, 40, counts(site.index, ICH))


def test_below_the_quorum_the_run_fails_by_name(two: Cohort, whole: Path, tmp_path: Path) -> None:
    config = settings(strategy__quorum=1.0, faults__sites={"site-2": "crash@2"}, resume=True)
    with pytest.raises(BelowQuorum, match=r"round 2: 1 of 2 sites replied, 2 needed by strategy.quorum \(site-2: "):
        run(two, with_folds(whole, tmp_path / "run"), config)
    assert summary_of(tmp_path / "run")["status"] == "failed"


def test_folds_are_disjoint_by_patient_and_hold_all_training_slices(two: Cohort, whole: Path) -> None:
    for site in two.sites:
        tables, data = kept(whole, site), open_site(two.site_folder(site), image_size=24)
        strangers = [set(table.loc[table["stranger"], "patient_id"]) for table in tables]
        assert not strangers[0] & strangers[1]
        own = pd.concat([table[table["stranger"]] for table in tables])
        assert sorted(own["image_id"]) == sorted(data.index["image_id"].iloc[data.rows("train")])
        others = [set(table.loc[~table["stranger"], "image_id"]) for table in tables]
        assert others == [set(data.index["image_id"].iloc[data.rows("validation")])] * FOLDS


def changed(two: Cohort, folder: Path, *, pixels: bool) -> tuple[Cohort, str, int]:
    """A copy in which one training patient of site-1 has its positive slices negative and the others positive; its id and fold.

    It keeps its labels as a whole, so every patient is in the fold it was in. With `pixels` its images are others, too.
    """
    cohort = read_cohort(shutil.copytree(two.folder, folder))
    path = cohort.site_folder(SITE)
    data, index = open_site(path, image_size=24), pd.read_csv(path / "index.csv", dtype={"image_id": str})
    fold = fold_of(data, ICH, FOLDS, seed=0)
    rows = np.flatnonzero((fold >= 0) & (data.labels.max(1) > 0))
    patient = index["patient_id"].iloc[rows[0]]
    own = index["patient_id"] == patient
    label = next(name for name in ICH.specific_labels if index.loc[own, name].any())
    index.loc[own, [label, "any"]] = 1 - index.loc[own, [label, "any"]]
    rewrite_site(path, index)
    for image in index.loc[own, "image_id"] if pixels else ():
        write_png(path / "images" / f"{image}.png", read_png(path / "images" / f"{image}.png")[::-1] // 2)
    again = fold_of(open_site(path, image_size=24), ICH, FOLDS, seed=0)
    assert np.array_equal(fold, again)
    return cohort, patient, int(fold[rows[0]])


def test_a_patients_labels_do_not_reach_its_own_features(two: Cohort, whole: Path, tmp_path: Path) -> None:
    """With wrong labels on one patient, the model that predicts it and all that a stacker sees of it stay bit for bit."""
    cohort, patient, fold = changed(two, tmp_path / "wrong", pixels=False)
    run(cohort, tmp_path / "run", settings())
    models = [
        [summary_of(of / f"fold-{number}")["model_sha256"] for number in (1, 2)] for of in (whole, tmp_path / "run")
    ]
    assert models[0][fold] == models[1][fold]
    assert models[0][1 - fold] != models[1][1 - fold]  # which did learn from it
    before, after = features_of(whole), features_of(tmp_path / "run")
    assert before.loc[patient].equals(after.loc[patient])
    assert not before.drop(patient).equals(after.drop(patient))
    own = [pd.concat(kept(of)) for of in (whole, tmp_path / "run")]
    labels = [table.loc[table["stranger"] & (table["patient_id"] == patient), "label_any"] for table in own]
    assert list(labels[0]) == list(1 - labels[1])  # the wrong ones are there, and gain nothing


def test_no_pixel_of_a_fold_reaches_its_model(two: Cohort, whole: Path, tmp_path: Path) -> None:
    """Not by training, nor by the counts or the BatchNorm statistics of the end, which look at images alone."""
    cohort, _, fold = changed(two, tmp_path / "other", pixels=True)
    config = settings(stage=Stage.slice, stacking__left_out=fold)
    found = run(cohort, tmp_path / "run", config)
    assert found["recalibrated"]
    assert found["model_sha256"] == summary_of(whole / f"fold-{fold + 1}")["model_sha256"]
    seen = run(cohort, tmp_path / "seen", settings(stage=Stage.slice, stacking__left_out=1 - fold))
    assert seen["model_sha256"] != summary_of(whole / f"fold-{2 - fold}")["model_sha256"]


def test_sites_of_other_runs_are_told_nothing_of_folds(two: Cohort) -> None:
    def told(config: Config) -> str:
        return str(instruct(first_instructions(config, two, None))["instructions"])

    assert "stacking" not in told(tiny_config())
    assert "stacking" not in told(settings(stage=Stage.slice))
    assert "stacking" in told(settings())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stacking__left_out": 1}, "stacking.left_out: expected null with stage=stacking"),
        (
            {"stage": Stage.both, "stacking__left_out": 1},
            "stacking.left_out: expected null with stage=both: only a slice",
        ),
        ({"stage": Stage.slice, "stacking__left_out": 2}, "stacking.left_out: expected 0 to 1 of 2 folds, got 2"),
        ({"stacking__folds": 1}, "stacking.folds: expected 2 to 10, got 1"),
        ({"stacking__rows": 0.0}, "stacking.rows: expected more than 0, up to 1, got 0"),
    ],
)
def test_settings_no_stacking_can_work_with_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(settings(**changes))


def test_more_folds_than_patients_are_refused_before_anything_is_trained(two: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stacking.folds: expected at least 10 training patients at site-"):
        run(two, tmp_path / "run", settings(stacking__folds=10))
    assert not (tmp_path / "run" / "fold-1").exists()


def test_folds_are_replayed_and_trees_say_that_they_are_not(whole: Path) -> None:
    assert replayed(whole / "fold-2") is None
    assert str(whole / "fold-1") in str(replayed(whole))
