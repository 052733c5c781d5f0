"""A head over series on a frozen slice model, federated: the same model in every engine, after any kill, and enough by itself."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from edited import edit_json
from replaying import replayed
from run_always import run_always
from tiny import SIZE, tiny_cohort, tiny_config, tiny_index

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.process import create_worker_context
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.export import export
from fl_rsna.evaluation.settings import EvaluateConfig, ExportConfig, Part
from fl_rsna.federation.protocol.messages import instruct
from fl_rsna.federation.server.context import first_instructions
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.inference.blending import SIGMAS, WEIGHTS
from fl_rsna.learning.inference.predict import labels_in, score_images
from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.saved import read_saved, write_saved
from fl_rsna.replay import replay
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, RunModel, Window
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Baseline, HeadName, Stage
from fl_rsna.settings.strategy import Averaging
from fl_rsna.simulation.simulation import report_run, run_federation
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH

SIDE = 24


def unheard(kind: str, fields: object) -> None: ...


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """With features kept beside it from the first test on."""
    return tiny_cohort(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("encoder") / "slice.safetensors")


def written(path: Path, seed: int = 7, **changes: Any) -> Path:
    """A slice model that nobody trained."""
    config = RunModel(image_size=SIDE, **{"name": "tiny", "pretrained": False, **changes})
    network = build_model(config, ICH, ImageKind.hu, seed=seed)
    write_saved(path, network, task="ich", image=ImageKind.hu, png_size=32, config=config, facts={})
    return path


def asked(encoder: Path | None, **changes: Any) -> Config:
    """Two rounds of a small head at a rate at which it moves."""
    own = (
        {"stage": Stage.sequence, "sequence__encoder": str(encoder), "allow_unknown_patients": True}
        if encoder
        else {"stage": Stage.both}
    )
    small = {
        "sequence__width": 16,
        "sequence__layers": 1,
        "sequence__learning_rate": 0.02,
        "tracking__tensorboard": False,
    }
    return tiny_config(**{"model__image_size": SIDE, **own, **small, **changes})


def run(cohort: Cohort, folder: Path, config: Config, listener: Any = unheard) -> dict[str, Any]:
    run_federation(config, cohort, folder, (listener,))
    return summary_of(folder)


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(cohort: Cohort, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    run(cohort, folder, asked(encoder))
    return folder


@pytest.fixture(scope="module")
def both(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As somebody asks who knows no other setting, and with BatchNorm's statistics re-estimated at the end, of the first stage."""
    folder = tmp_path_factory.mktemp("runs") / "both"
    run(cohort, folder, asked(None, rounds=1, model__recalibrate=True))
    return folder


def test_both_stages_are_two_whole_runs_one_inside_the_other(both: Path) -> None:
    first, second = summary_of(both / "slice"), summary_of(both)
    assert (first["status"], second["status"]) == ("finished", "finished")
    assert "sequence" not in first
    assert second["sequence"]["encoder"]["model_sha256"] == first["model_sha256"] != second["model_sha256"]
    config = yaml.safe_load((both / "config.yaml").read_text())
    assert (config["stage"], config["train"]["batch_size"]) == ("sequence", 4)
    assert {path.name for path in both.glob("*.*")} >= {
        "predictions.parquet",
        "scorecards.json",
        "rounds.csv",
        "sites.csv",
    }


def test_each_stage_has_a_report(both: Path, cohort: Cohort) -> None:
    page = report_run(both, cohort)
    assert "Two stages" in page.read_text()
    assert "Two stages" not in (both / "slice" / "report.html").read_text()


def test_no_run_starts_from_a_head(plain: Path, cohort: Cohort, tmp_path: Path) -> None:
    """Nor, in silence, from the slice model under it alone; said by its own name it is as good as any."""
    for given in (plain, plain / "model.safetensors"):
        with pytest.raises(
            ValueError, match=r"^start: expected a model of single slices, got .*, encoder\.safetensors in "
        ):
            run(cohort, tmp_path / "run", tiny_config(model__image_size=SIDE, start=str(given)))
    config = tiny_config(
        rounds=1, model__image_size=SIDE, start=str(plain / "encoder.safetensors"), allow_unknown_patients=True
    )
    assert run(cohort, tmp_path / "run", config)["started_from"]["file"].endswith("encoder.safetensors")


def test_no_onnx_file_holds_a_head(plain: Path) -> None:
    with pytest.raises(
        ValueError, match=r"head over series no ONNX file holds; export its slice model with model=.*encoder"
    ):
        export(ExportConfig(model=str(plain)))


def test_the_head_begins_as_the_slice_model_and_says_what_each_stage_is_worth(both: Path) -> None:
    rounds, first = pd.read_csv(both / "rounds.csv"), summary_of(both / "slice")["test_site"]
    assert rounds["test_loss"][0] == pytest.approx(first["log_loss"])
    told = summary_of(both)["sequence"]["test_site"]
    assert told["slice"]["log_loss"] == first["log_loss_interval"]
    assert told["blend"]["log_loss"] == summary_of(both)["test_site"]["log_loss_interval"]
    assert told["blend"]["auroc"]["any"]["value"] == summary_of(both)["test_site"]["slice"]["any"]["auroc"]["value"]
    assert set(told) == {"slice", "smoothed", "head", "blend"}


def test_weights_are_of_the_grid_and_a_label_without_positives_keeps_the_slice_model(
    plain: Path, cohort: Cohort
) -> None:
    tables = [pd.read_csv(cohort.site_folder(site) / "index.csv") for site in cohort.sites]
    held = pd.concat([table[table["split"] == "validation"] for table in tables])[list(ICH.labels)].sum()
    found, chosen = summary_of(plain)["sequence"], dict[str, dict[str, float]]()
    for name, grid in (("weights", WEIGHTS), ("sigmas", SIGMAS)):
        chosen[name] = {label: value for label, value in found[name].items() if held[label] == 0}
        assert set(found[name].values()) <= set(grid.tolist())
        assert set(chosen[name].values()) == {0.0}


@pytest.mark.parametrize("part", [Part.test, None])
def test_the_file_alone_says_what_the_run_said(plain: Path, cohort: Cohort, tmp_path: Path, part: Part | None) -> None:
    """Bit by bit on the test site, wherever the file lies; and its hash is the run's."""
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((plain / "model.safetensors").read_bytes())
    arguments = EvaluateConfig(
        model=str(alone), site=str(cohort.site_folder("test-site")), part=part, out=str(tmp_path / "out")
    )
    arguments.train.device = arguments.train.device.cpu
    out = evaluate(arguments, lambda what, done, total: None)
    ours, theirs = (
        pd.read_parquet(path / "predictions.parquet").set_index("image_id").sort_index() for path in (plain, out)
    )
    names = [f"probability_{label}" for label in ICH.labels]
    np.testing.assert_array_equal(ours[names].to_numpy(), theirs[names].to_numpy())
    saved = read_saved(alone)
    assert saved.sha256 == summary_of(plain)["model_sha256"]
    assert saved.two_stage is not None
    np.testing.assert_allclose(
        saved.two_stage.weights, list(summary_of(plain)["sequence"]["weights"].values()), rtol=1e-6
    )
    assert len(pd.read_csv(out / "submission.csv")) == len(ICH.labels) * len(ours)


def test_a_prepared_set_gets_what_the_run_said_of_its_slices(plain: Path, cohort: Cohort, tmp_path: Path) -> None:
    """Whole series are found in the set's own index; but for what another batch rounds. A series of one slice is one, too."""
    prepared, index = cohort.folder.parent / "prepared", tiny_index()
    saved = read_saved(plain / "model.safetensors")
    order = np.random.default_rng(0).permutation(len(index))
    shuffled = index.iloc[order].reset_index(drop=True)
    found = score_images(saved, prepared / "images", shuffled, torch.device("cpu"), lambda done, total: None)
    theirs = pd.DataFrame(found, index=shuffled["image_id"])
    ours = pd.read_parquet(plain / "predictions.parquet").set_index("image_id")
    names = [f"probability_{label}" for label in ICH.labels]
    np.testing.assert_allclose(theirs.loc[ours.index], ours[names], atol=1e-5)
    (alone,) = score_images(
        saved, prepared / "images", shuffled.iloc[:1], torch.device("cpu"), lambda done, total: None
    )
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_same_seed_same_model_for_any_number_of_workers(
    cohort: Cohort, encoder: Path, plain: Path, tmp_path: Path, workers: int
) -> None:
    again = run(cohort, tmp_path / "again", asked(encoder, engine__workers=workers))
    assert again["model_sha256"] == summary_of(plain)["model_sha256"]
    assert again["test_site"] == summary_of(plain)["test_site"]


@pytest.mark.extra
@pytest.mark.slow
def test_same_seed_same_model_on_ray(cohort: Cohort, encoder: Path, plain: Path, tmp_path: Path) -> None:
    again = run(cohort, tmp_path / "ray", asked(encoder, engine__name=EngineName.ray, engine__workers=1))
    assert again["model_sha256"] == summary_of(plain)["model_sha256"]


def test_features_are_made_once_and_the_encoder_travels_once(own_cohort: Cohort, tmp_path: Path) -> None:
    """Of the default network, beside whose megabytes all else that travels is little."""
    encoder = written(tmp_path / "lite0.safetensors", name=ModelName.efficientnet_lite0, pretrained=True)
    first = run(own_cohort, tmp_path / "first", asked(encoder, rounds=1))
    other = asked(encoder, rounds=1, seed=5, sequence__head=HeadName.transformer, sequence__dropout=0.5)
    second = run(own_cohort, tmp_path / "second", other)
    made = [
        [event["computed"] for event in events_of(tmp_path / name) if event["event"] == "encoded"]
        for name in ("first", "second")
    ]
    assert made == [[3], [0]]
    assert first["bytes_down"] - second["bytes_down"] > 3 * encoder.stat().st_size - 1e6
    tables = [pd.read_csv(tmp_path / name / "sites.csv") for name in ("first", "second")]
    assert [(table["phase"] == "encoding").sum() for table in tables] == [3, 0]


RICH = {
    "strategy__name": "scaffold",
    "strategy__averaging": Averaging.ema,
    "strategy__fraction": 0.67,
    "network__precision_down": Precision.bf16,
    "network__precision_up": Precision.int8,
    "rounds": 3,
}


def dying(cohort: Cohort, folder: Path, config: Config, at: int) -> None:
    counted = [0]

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        counted[0] += 1
        if counted[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    run_federation(config, cohort, folder, (listen,))


def killed(cohort: Cohort, folder: Path, config: Config, at: int) -> None:
    process = create_worker_context().Process(target=dying, args=(cohort, folder, config, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_was_not(own_cohort: Cohort, encoder: Path, tmp_path: Path) -> None:
    """While sites encode, and while the blend is chosen; with everything that outlives a round."""
    whole = run(own_cohort, tmp_path / "whole", asked(encoder, **RICH))["model_sha256"]
    kinds = [(event["event"], event.get("phase")) for event in events_of(tmp_path / "whole")]
    moments = [kinds.index(("site_done", "encoding")) + 2, kinds.index(("site_done", "blend")) + 1]
    for number, at in enumerate(moments):
        for old in own_cohort.folder.glob("*/packed/features-*/*"):
            old.unlink()
        folder = tmp_path / f"run-{number}"
        killed(own_cohort, folder, asked(encoder, **RICH), at)
        gone = asked(encoder, **RICH, resume=True)
        assert run(own_cohort, folder, gone)["model_sha256"] == whole


@pytest.mark.slow
def test_both_are_resumed_in_either_stage(own_cohort: Cohort, tmp_path: Path) -> None:
    whole = run(own_cohort, tmp_path / "whole", asked(None, rounds=1))["model_sha256"]
    first, folder = len(events_of(tmp_path / "whole" / "slice")), tmp_path / "run"
    killed(own_cohort, folder, asked(None, rounds=1), first // 2)
    with pytest.raises(ValueError, match="expected a new run"):
        run(own_cohort, folder, asked(None, rounds=1))
    killed(own_cohort, folder, asked(None, rounds=1, resume=True), first // 2 + 10)
    assert summary_of(folder / "slice")["status"] == "finished"
    with pytest.raises(ValueError, match="other settings"):
        run(own_cohort, folder, asked(None, rounds=2, resume=True))
    for _ in range(2):  # the second time there is nothing left to do
        assert run(own_cohort, folder, asked(None, rounds=1, resume=True))["model_sha256"] == whole
    changes: list[dict[str, Any]] = [{"rounds": 2}, {"sequence__width": 8}]
    for changed in changes:
        with pytest.raises(ValueError, match="other settings"):
            run(own_cohort, folder, asked(None, **{"rounds": 1, "resume": True, **changed}))


def test_a_round_can_be_repeated_even_without_its_features(
    own_cohort: Cohort, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run(own_cohort, folder, asked(encoder, **RICH))
    for old in own_cohort.folder.glob("*/packed/features-*/*"):
        old.unlink()
    event = next(event for event in events_of(folder) if event.get("phase") == "train" and event["round"] == 2)
    replay([f"run={folder}", f"site={event['site']}", "round=2"])
    assert event["update_sha256"] in capsys.readouterr().out


EVERY = [name for name in STRATEGIES if name not in ("krum", "multikrum", "bulyan")]


@pytest.mark.parametrize("name", run_always(("fedavg", "scaffold", "moon", "fedadam", "fedmedian"), EVERY))
def test_every_strategy_trains_a_head(cohort: Cohort, encoder: Path, tmp_path: Path, name: str) -> None:
    config = asked(encoder, strategy__name=name, strategy__server_learning_rate=0.1 if name.startswith("feda") else 1.0)
    assert run(cohort, tmp_path / "run", config)["status"] == "finished"
    losses = pd.read_csv(tmp_path / "run" / "rounds.csv")["test_loss"]
    assert np.isfinite(losses).all()
    assert losses[1] != losses[0]
    assert replayed(tmp_path / "run") is None


def test_each_of_two_stages_is_replayed(both: Path) -> None:
    assert replayed(both / "slice") is replayed(both) is None


def test_pooled_sites_have_both_stages_too(cohort: Cohort, encoder: Path, tmp_path: Path) -> None:
    found = run(cohort, tmp_path / "run", asked(encoder, baseline=Baseline.central, rounds=1))
    assert (found["baseline"], found["cohort"]["sites"], found["status"]) == ("central", 1, "finished")
    assert replayed(tmp_path / "run") is None


def test_a_site_that_cannot_encode_is_named_and_the_others_go_on(
    own_cohort: Cohort, encoder: Path, tmp_path: Path
) -> None:
    def lose(kind: str, fields: object) -> None:
        if kind == "roll_call":
            (own_cohort.site_folder("site-2") / "index.csv").unlink()

    found = run(own_cohort, tmp_path / "run", asked(encoder), lose)
    failed = [
        (event["phase"], event["site"], event["round"])
        for event in events_of(tmp_path / "run")
        if event["event"] == "site_failed"
    ]
    assert failed == [("features", "site-2", 0)]
    assert found["site_failures"] == 1
    assert found["sequence"]["chosen_on"] == "validation parts of 2 of 2 sites"


def test_too_few_sites_with_features_end_the_run(own_cohort: Cohort, encoder: Path, tmp_path: Path) -> None:
    def lose(kind: str, fields: object) -> None:
        if kind == "roll_call":
            (own_cohort.site_folder("site-2") / "index.csv").unlink()

    with pytest.raises(RunFailed, match=r"encoding: 2 of 3 sites replied, 3 needed by strategy\.quorum \(site-2: "):
        run(own_cohort, tmp_path / "run", asked(encoder, strategy__quorum=1.0), lose)
    assert summary_of(tmp_path / "run")["status"] == "failed"


def test_few_positives_stay_with_the_slice_model_where_small_counts_stay(encoder: Path, tmp_path: Path) -> None:
    """No validation part has five positive slices of a type."""
    cohort = tiny_cohort(tmp_path / "more", num_sites=2, patients=24)
    found = run(cohort, tmp_path / "run", asked(encoder, privacy__min_count=5, rounds=1))
    specific = {label: weight for label, weight in found["sequence"]["weights"].items() if label != "any"}
    assert set(specific.values()) == {0.0}


def test_an_encoder_that_does_not_fit_is_refused_and_leaves_nothing(
    cohort: Cohort, encoder: Path, plain: Path, tmp_path: Path
) -> None:
    windows = tmp_path / "windows.safetensors"
    config = ModelConfig(image_size=SIDE, name="tiny", pretrained=False)
    network = build_model(config, ICH, ImageKind.windows, seed=7)
    write_saved(windows, network, task="ich", image=ImageKind.windows, png_size=32, config=config, facts={})
    for path, sentence in (
        (windows, "expected a model of task ich for images of kind hu, got one of ich for windows"),
        (plain, "expected a model of single slices, got .*, which has a head over series already"),
        (tmp_path / "none", "expected a finished run or a model file, got .*none"),
    ):
        with pytest.raises(ValueError, match=rf"sequence\.encoder: {sentence}"):
            run(cohort, tmp_path / "run", asked(path))
        assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_encoder_and_no_other(cohort: Cohort, tmp_path: Path) -> None:
    mine = written(tmp_path / "mine.safetensors")
    killed(cohort, tmp_path / "run", asked(mine), 12)
    written(mine, norm_momentum=0.2, dropout=0.3)  # the same weights under other settings are another encoder's file
    written(mine, seed=8)
    with pytest.raises(ValueError, match="was begun with another encoder than the one in"):
        run(cohort, tmp_path / "run", asked(mine, resume=True))
    mine.unlink()
    assert run(cohort, tmp_path / "run", asked(mine, resume=True))["status"] == "finished"


def warnings_of(folder: Path) -> list[str]:
    """What a run warned of, but for settings of this module's tiny slice models, which a head has no use for, and labels of its tiny sites."""
    warned = [event["text"] for event in events_of(folder) if event["event"] == "warning"]
    return [
        text
        for text in warned
        if "has no effect in this run" not in text and " slice has " not in text and " no slice with " not in text
    ]


def test_other_encoders_are_frozen_as_well(cohort: Cohort, tmp_path: Path) -> None:
    """Of a network of fl_rsna's own, and one whose sites kept BatchNorm of their own: said in a line."""
    b0 = written(tmp_path / "b0.safetensors", name=ModelName.efficientnet_b0, pretrained=False, norm=Norm.local)
    found = run(cohort, tmp_path / "run", asked(b0, rounds=1))
    assert found["status"] == "finished"
    warned = warnings_of(tmp_path / "run")
    assert warned[1:] == [
        "sequence.encoder: each site kept BatchNorm of its own; features are made with the mean of theirs"
    ]
    assert "unknown whether" in warned[0]  # a file by itself


def test_a_head_learns_in_its_first_round_whatever_norm_its_encoder_was_trained_with(
    cohort: Cohort, tmp_path: Path
) -> None:
    """Where BatchNorm is adapted the slice model's first round only estimates; a head has nothing to estimate."""
    adapted = written(tmp_path / "adapted.safetensors", norm=Norm.adapted)
    assert run(cohort, tmp_path / "run", asked(adapted, rounds=1))["site_failures"] == 0
    losses = pd.read_csv(tmp_path / "run" / "rounds.csv")["test_loss"]
    assert losses[1] != losses[0]


def test_all_that_a_slice_model_does_when_it_predicts_is_in_its_logits(cohort: Cohort, tmp_path: Path) -> None:
    """Neighbours, learned windows, several views and a corrected prior: the head begins where `evaluate` is."""
    rich = {"neighbours": 1, "window": Window.learned, "tta": 2, "kept_negatives": 0.5}
    encoder = written(tmp_path / "rich.safetensors", **rich)
    found = run(cohort, tmp_path / "run", asked(encoder, rounds=1))
    for number, model in enumerate((encoder, tmp_path / "run")):
        arguments = EvaluateConfig(
            model=str(model), site=str(cohort.site_folder("test-site")), out=str(tmp_path / f"out-{number}")
        )
        evaluate(arguments, lambda what, done, total: None)
    names = [f"probability_{label}" for label in ICH.labels]
    tables = [
        pd.read_parquet(path / "predictions.parquet")
        for path in (tmp_path / "out-0", tmp_path / "out-1", tmp_path / "run")
    ]
    slices, again, ours = (table.set_index("image_id").sort_index() for table in tables)
    np.testing.assert_array_equal(again[names], ours[names])
    labels = labels_in(slices, ICH.labels)
    assert found["sequence"]["test_site"]["slice"]["log_loss"]["value"] == pytest.approx(
        log_loss(labels, slices[names].to_numpy(), ICH), rel=1e-4
    )


def test_a_label_that_a_site_does_not_annotate_teaches_it_nothing(
    own_cohort: Cohort, encoder: Path, tmp_path: Path
) -> None:
    path = own_cohort.site_folder("site-1") / "site.json"
    edit_json(path, {"noise": {"unannotated": ["epidural"]}})
    assert open_site(path.parent, image_size=SIDE).unknown_labels == ("epidural",)
    assert run(own_cohort, tmp_path / "run", asked(encoder, rounds=1))["status"] == "finished"
    assert np.isfinite(pd.read_csv(tmp_path / "run" / "sites.csv")["loss"].dropna()).all()


def test_a_wide_head_says_what_it_costs(cohort: Cohort, encoder: Path, tmp_path: Path) -> None:
    run(cohort, tmp_path / "run", asked(encoder, rounds=1, sequence__width=512, sequence__layers=1))
    warned = warnings_of(tmp_path / "run")
    assert len(warned) == 2
    assert "MB a round and site, more than 6" in warned[1]
    moved = summary_of(tmp_path / "run")["sequence"]["head"]["bytes_a_round"]
    assert f"moves {moved / 1e6:.1f} MB" in warned[1]


def test_the_first_stage_is_told_nothing_of_the_second(cohort: Cohort) -> None:
    """So that its messages are those of runs that knew no stage."""
    told = json.loads(str(instruct(first_instructions(tiny_config(), cohort, None))["instructions"]))
    assert "sequence" not in told
    assert asdict(tiny_config())["stage"] == "slice"
    assert tiny_config().model.image_size == SIZE
