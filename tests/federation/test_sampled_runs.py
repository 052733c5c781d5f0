"""Whole runs that draw, weigh and soften: repeatable, resumable, and with probabilities that every reader of the model gets."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import SIZE, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server.context import first_instructions
from fl_rsna.federation.server.roll_call import Site, approximate, by_own_counts, compute_draw_share, with_label_priors
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.inference.predict import probabilities_in
from fl_rsna.learning.models.classifier import PriorCorrection
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.learning.training.train import predict
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import to_run_model
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.training import Correction, LabelWeights, Loss, Sampling, Select, TrainConfig
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH

EVERYTHING: dict[str, Any] = {
    "train__sampling": Sampling.under,
    "train__negatives": 0.5,
    "train__mixup": 0.3,
    "train__cutout": 0.2,
    "train__hu_noise": 0.05,
    "train__smooth_z": 3,
    "train__soft_between": 0.3,
    "train__loss": Loss.focal,
    "train__label_weights": LabelWeights.prevalence,
}


def run(
    cohort: Cohort, folder: Path, config: Config, workers: int = 0, listen: Callable[..., None] = lambda *said: None
) -> dict[str, Any]:
    """One run; its summary."""
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,))))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=workers)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def share_kept(cohort: Cohort, sites: tuple[str, ...], wanted: float) -> float:
    """From the counts that partition wrote down."""
    parts = [cohort.facts["sites"][site]["train"] for site in sites]
    positives = sum(part["positives"]["any"] for part in parts)
    return float(wanted * positives / (sum(part["slices"] for part in parts) - positives))


class Killed(KeyboardInterrupt):
    """Instead of a signal."""


@pytest.fixture(scope="module")
def sampled(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled") / "run"
    run(cohort, folder, tiny_config(**EVERYTHING))
    return folder


def test_a_run_with_everything_on_goes_on_after_a_kill_in_another_process_with_the_same_model(
    cohort: Cohort, tmp_path: Path, sampled: Path
) -> None:
    def kill(kind: str, fields: Any) -> None:
        if kind == "round_start" and fields["round"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(cohort, tmp_path / "run", tiny_config(**EVERYTHING), listen=kill)
    found = run(cohort, tmp_path / "run", tiny_config(**EVERYTHING, resume=True), workers=1)
    assert found["model_sha256"] == json.loads((sampled / "summary.json").read_text())["model_sha256"]


def test_soft_labels_beside_the_correction_are_warned_of(sampled: Path) -> None:
    """By the keys that make them soft; neither weights in the loss, which are exact, nor hard labels are."""
    events = [json.loads(line) for line in (sampled / "events.jsonl").read_text().splitlines()]
    warned = [event["text"] for event in events if event["event"] == "warning"]
    (said,) = [text for text in warned if "its correction" in text]
    assert said.startswith(
        "train.sampling=under: beside train.mixup and train.smooth_z and train.soft_between its correction"
    )
    assert said.endswith("say train.sampling=weighted, whose weights are exact")
    under, soft = {"sampling": Sampling.under}, {"smooth_z": 3}
    assert approximate(TrainConfig(**under, **soft)) is not None
    assert approximate(TrainConfig(**under, label_smoothing=0.1)) is not None
    for hard in (under, {"sampling": Sampling.weighted, **soft}, {**under, **soft, "correction": Correction.none}):
        assert approximate(TrainConfig(**hard)) is None


def test_sites_count_by_what_they_draw(cohort: Cohort, sampled: Path) -> None:
    sites, kept = pd.read_csv(sampled / "sites.csv"), share_kept(cohort, cohort.sites, 0.5)
    for site, rows in sites[sites["phase"] == "train"].groupby("site"):
        part = cohort.facts["sites"][site]["train"]
        positives = part["positives"]["any"]
        assert set(rows["num-examples"]) == {positives + round(kept * (part["slices"] - positives))}


def test_a_model_file_alone_predicts_as_the_run_did(cohort: Cohort, sampled: Path) -> None:
    saved = read_saved(sampled / "model.safetensors")
    assert saved.config.kept_negatives == share_kept(cohort, cohort.sites, 0.5)
    data = open_site(cohort.site_folder("test-site"), image_size=SIZE)
    found = predict(saved.network, data, data.rows("test"), task=ICH, batch_size=64, device=torch.device("cpu"))
    written = probabilities_in(pd.read_parquet(sampled / "predictions.parquet"), ICH.labels)
    np.testing.assert_array_equal(found, written)


def test_the_correction_changes_what_is_said_and_nothing_that_is_learned(cohort: Cohort, tmp_path: Path) -> None:
    said = {}
    for correction in Correction:
        config = tiny_config(rounds=1, train__sampling=Sampling.under, train__negatives=0.5, train__select=Select.last)
        config.train.correction, config.model.recalibrate = correction, True
        said[correction] = run(cohort, tmp_path / correction, config)
    assert said[Correction.prior]["model_sha256"] == said[Correction.none]["model_sha256"]
    prior, none = (
        probabilities_in(pd.read_parquet(tmp_path / name / "predictions.parquet"), ICH.labels) for name in Correction
    )
    correct = PriorCorrection(0, share_kept(cohort, cohort.sites, 0.5))
    corrected = correct(torch.logit(torch.tensor(none))).sigmoid()
    np.testing.assert_allclose(prior, corrected.numpy(), rtol=1e-4)
    assert (prior < none).all()


def test_a_weighted_draw_is_repeatable_under_personal_models(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=1, train__sampling=Sampling.weighted, strategy__name="ditto")
    one, two = (run(cohort, tmp_path / f"{workers}", config, workers) for workers in (0, 1))
    assert one["model_sha256"] == two["model_sha256"]


def test_baselines_draw_by_the_counts_of_their_own_data(cohort: Cohort, tmp_path: Path) -> None:
    for baseline in (Baseline.central, Baseline.local):
        config = tiny_config(rounds=1, baseline=baseline, train__sampling=Sampling.under, train__negatives=0.5)
        run_federation(config, cohort, tmp_path / baseline, ())
    central = read_saved(tmp_path / "central" / "model.safetensors").config
    assert central.kept_negatives == share_kept(cohort, cohort.sites, 0.5)
    for site in cohort.sites:
        folder = tmp_path / "local" / "alone" / site
        saved, data = (
            read_saved(folder / "model.safetensors"),
            open_site(cohort.site_folder("test-site"), image_size=SIZE),
        )
        assert saved.config.kept_negatives == share_kept(cohort, (site,), 0.5)
        found = predict(saved.network, data, data.rows("test"), task=ICH, batch_size=64, device=torch.device("cpu"))
        written = probabilities_in(pd.read_parquet(folder / "predictions.parquet"), ICH.labels)
        np.testing.assert_array_equal(found, written)


def test_logit_adjustment_runs_on_what_is_drawn(cohort: Cohort, tmp_path: Path) -> None:
    name = "fedavg_logit_adjusted"
    found = run(cohort, tmp_path / "run", tiny_config(rounds=1, train__sampling=Sampling.under, strategy__name=name))
    assert np.isfinite(found["test_site"]["log_loss"])


def test_the_size_of_a_pass_does_not_tell_what_a_site_withholds(own_cohort: Cohort, tmp_path: Path) -> None:
    path = own_cohort.site_folder("site-1") / "index.csv"
    index = pd.read_csv(path)
    index.loc[np.flatnonzero((index["split"] == "train") & (index["any"] == 1))[2:], list(ICH.labels)] = 0
    index.to_csv(path, index=False)
    config = tiny_config(rounds=1, train__sampling=Sampling.under, train__negatives=0.5)
    config.privacy.min_count = 3
    run(own_cohort, tmp_path / "run", config)
    roll = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[0])["sites"]
    counts = {site: roll[site]["train"] for site in own_cohort.sites}
    assert counts["site-1"]["positives"]["any"] is None
    telling = [counts[site] for site in ("site-2", "site-3")]
    positives, slices = (
        sum(column) for column in zip(*((part["positives"]["any"], part["slices"]) for part in telling), strict=True)
    )
    kept, union = 0.5 * positives / (slices - positives), (positives + 0.5) / (slices + 1)
    assert read_saved(tmp_path / "run" / "model.safetensors").config.kept_negatives == kept
    found = pd.read_csv(tmp_path / "run" / "sites.csv").query("phase == 'train'").set_index("site").loc["site-1"]
    slices = counts["site-1"]["slices"]
    assert found["num-examples"] == round(slices * (union + kept * (1 - union)))
    assert found["steps"] == round(slices / config.train.batch_size)


def of_counts(any_: int | None, slices: int = 100) -> Site:
    positives = {label: None if label == "any" else 1 for label in ICH.labels} | {"any": any_}
    return Site(
        name="site-1", node_id=1, version="", cohort_sha256="", task="ich",
        counts={"train": {"patients": 9, "slices": slices, "positives": positives}}, controls={}, patients=frozenset(),
    )  # fmt: skip


def test_withheld_counts_are_left_out_and_nobody_to_ask_is_refused(cohort: Cohort) -> None:
    assert compute_draw_share([of_counts(10), of_counts(None)], ICH, 3.0, 5) == 30 / 90
    with pytest.raises(ValueError, match=r"^train\.sampling: under needs .* privacy\.min_count=5 keeps"):
        compute_draw_share([of_counts(None)], ICH, 1.0, 5)
    with pytest.raises(ValueError, match=r"^train\.sampling: under needs training slices with any, got none"):
        compute_draw_share([of_counts(0)], ICH, 1.0, 0)
    config = tiny_config(train__sampling=Sampling.under)
    everyone = with_label_priors(first_instructions(config, cohort, None), [of_counts(10), of_counts(20)], ICH)
    assert everyone.kept == everyone.model.kept_negatives == 30 / 170
    assert by_own_counts(everyone, of_counts(10), ICH).kept == 10 / 90
    silent = by_own_counts(everyone, of_counts(None), ICH)
    assert (silent.kept, silent.prior[0]) == (everyone.kept, everyone.prior[0])
    bare = replace(
        everyone, train=replace(everyone.train, correction=Correction.none), model=to_run_model(config.model)
    )
    assert with_label_priors(bare, [of_counts(10)], ICH).model.kept_negatives == 1
