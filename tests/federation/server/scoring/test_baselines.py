"""Baselines by the same code: a site alone is a federation of one, the pool holds every slice once."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from replaying import replayed
from tiny import SIZE, tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import Joined, open_pooled, open_site
from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS
from fl_rsna.replay import replay
from fl_rsna.settings.model import ModelConfig
from fl_rsna.settings.stages import Baseline
from fl_rsna.simulation.simulation import run_federation, run_gap


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("small"), patients=18, slices=3)


@pytest.fixture(scope="module")
def gap(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "gap"
    run_gap(tiny_config(baseline=Baseline.gap, rounds=2), cohort, folder, ())
    return folder


def read(path: Path) -> dict:  # type: ignore[type-arg]
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_pooled_data_are_the_sites_slices_one_after_the_other(cohort: Cohort) -> None:
    folders = [cohort.site_folder(name) for name in cohort.sites]
    sites, pool = (
        [open_site(folder, image_size=SIZE) for folder in folders],
        open_pooled(ModelConfig(image_size=SIZE), folders),
    )
    assert pool.name == "pooled"
    np.testing.assert_array_equal(pool.labels, np.concatenate([site.labels for site in sites]))
    everything = np.concatenate([site.images for site in sites])
    rows = np.random.default_rng(0).permutation(len(everything))
    assert isinstance(pool.images, Joined)
    np.testing.assert_array_equal(pool.images.take(rows), everything[rows])
    assert len(pool.rows("train")) == sum(len(site.rows("train")) for site in sites)


def test_central_trains_on_every_training_slice_from_the_same_model(gap: Path) -> None:
    federated, central = (pd.read_csv(gap / name / "sites.csv") for name in ("federated", "central"))
    first = [table[(table["round"] == 1) & (table["phase"] == "train")] for table in (federated, central)]
    assert first[0]["num-examples"].sum() == first[1]["num-examples"].sum()
    start = [pd.read_csv(gap / name / "rounds.csv").iloc[0] for name in ("federated", "central")]
    assert start[0]["test_loss"] == start[1]["test_loss"]
    assert read(gap / "central" / "summary.json")["baseline"] == "central"


def test_each_site_alone_is_scored_at_every_site(gap: Path, cohort: Cohort) -> None:
    summary = read(gap / "local" / "summary.json")
    assert list(summary["matrix"]) == list(cohort.sites)
    assert all(set(row) == set(cohort.sites) for row in summary["matrix"].values())
    for site in cohort.sites:
        rounds = pd.read_csv(gap / "local" / "alone" / site / "rounds.csv").set_index("round")
        selected = read(gap / "local" / "alone" / site / "summary.json")["selected_round"]
        assert summary["matrix"][site][site]["loss"] == pytest.approx(rounds.loc[selected, "validation_loss"])
    assert len({alone["model_sha256"] for alone in summary["alone"].values()}) == len(cohort.sites)


def test_gaps_are_those_of_the_predictions(gap: Path) -> None:
    found, parts = read(gap / "summary.json"), {}
    for name in ("federated", "central"):
        parts[name] = read(gap / name / "summary.json")["test_site"]["slice"]["any"]["auroc"]["value"]
    area = found["gap"]["central"]["any"]
    assert area["difference"]["value"] == pytest.approx(parts["federated"] - parts["central"])
    assert area["ratio"]["value"] == pytest.approx(parts["federated"] / parts["central"])
    assert area["difference"]["positive_patients"] < MIN_PATIENTS
    assert area["difference"]["low"] is None
    alone = read(gap / "local" / "summary.json")["alone"].values()
    mean = np.mean([site["test_site"]["slice"]["any"]["auroc"]["value"] for site in alone])
    assert found["gap"]["local"]["any"]["difference"]["value"] == pytest.approx(parts["federated"] - mean)


def test_the_matrix_has_the_global_model_and_intervals(gap: Path, cohort: Cohort) -> None:
    summary = read(gap / "summary.json")
    assert list(summary["matrix"]) == [*cohort.sites, "federated"]
    for site in cohort.sites:
        card = read(gap / "federated" / "summary.json")["sites"][site]
        assert summary["matrix"]["federated"][site]["auroc"]["any"] == card["slice"]["any"]["auroc"]


def test_what_a_site_gains_by_joining_is_paired_over_its_own_patients(gap: Path, cohort: Cohort) -> None:
    summary = read(gap / "summary.json")
    assert list(summary["joining"]) == list(cohort.sites)
    for site, by_label in summary["joining"].items():
        joined, alone = (summary["matrix"][model][site]["auroc"]["any"] for model in ("federated", site))
        difference = by_label["any"]["difference"]
        assert difference["positives"] == joined["positives"] == alone["positives"]
        if joined["value"] is None:
            assert difference["value"] is None
        else:
            assert difference["value"] == pytest.approx(joined["value"] - alone["value"])


def test_a_gap_that_was_cut_short_goes_on(gap: Path, cohort: Cohort) -> None:
    before = {path: path.stat().st_mtime_ns for path in gap.rglob("*.safetensors")}
    summary, gone = read(gap / "summary.json"), gap / "local" / "alone" / "site-2"
    for path in (
        gap / "summary.json",
        gap / "local" / "summary.json",
        gone / "summary.json",
        gone / "model.safetensors",
    ):
        path.unlink()
    again = run_gap(tiny_config(baseline=Baseline.gap, rounds=2, resume=True), cohort, gap, ())
    assert again["gap"] == summary["gap"]
    kept = [path for path in before if path.parent.name != "site-2" and "site-2" not in path.parts]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_baselines_are_the_same_with_workers(cohort: Cohort, tmp_path: Path, gap: Path) -> None:
    run = functools.partial(run_federation, cohort=cohort, listeners=())
    run(tiny_config(baseline=Baseline.central, rounds=2, engine__workers=1), folder=tmp_path / "central")
    one, other = (read(path / "central" / "summary.json") for path in (gap, tmp_path))
    assert one["model_sha256"] == other["model_sha256"]


def test_every_part_of_a_gap_is_replayed_and_what_is_none_says_which(gap: Path) -> None:
    alone = sorted((gap / "local" / "alone").iterdir())
    assert len(alone) == 3
    for run in (gap / "federated", gap / "central", alone[-1]):
        assert replayed(run) is None
    assert str(gap / "federated") in str(replayed(gap))
    assert str(gap / "local" / "alone") in str(replayed(gap / "local"))
    with pytest.raises(ValueError, match="finished by: pooled"):
        replay([f"run={gap / 'central'}", "site=site-1", "round=1"])
