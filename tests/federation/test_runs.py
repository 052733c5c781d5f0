"""Whole runs on a tiny cohort: the same model in every engine, a complete run folder, and loud failures."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from edited import edit_json
from safetensors import safe_open
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.engines.ray import run_ray
from fl_rsna.federation.protocol.failures import ELSEWHERE
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.train import train_locally
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.training import Select
from fl_rsna.task import ICH


def run(cohort: Cohort, folder: Path, config: Config, *, workers: int = 0, ray: bool = False) -> dict:  # type: ignore[type-arg]
    """One run of `config` over `cohort`; its summary."""
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    if ray:
        run_ray(server, client, num_sites=len(cohort.sites), workers=2, gpus_per_worker=0)
    else:
        run_local(server, client, num_sites=len(cohort.sites), workers=workers)
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "inline"
    run(cohort, folder, tiny_config())
    return folder


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_same_seed_same_model_for_any_number_of_workers(
    cohort: Cohort, tmp_path: Path, undisturbed: Path, workers: int
) -> None:
    summary = run(cohort, tmp_path / "again", tiny_config(), workers=workers)
    assert summary["model_sha256"] == json.loads((undisturbed / "summary.json").read_text())["model_sha256"]


@pytest.mark.extra
@pytest.mark.slow
def test_same_seed_same_model_on_ray(cohort: Cohort, tmp_path: Path, undisturbed: Path) -> None:
    summary = run(cohort, tmp_path / "ray", tiny_config(), ray=True)
    assert summary["model_sha256"] == json.loads((undisturbed / "summary.json").read_text())["model_sha256"]


def test_another_seed_gives_another_model(cohort: Cohort, tmp_path: Path, undisturbed: Path) -> None:
    summary = run(cohort, tmp_path / "other", tiny_config(seed=1))
    assert summary["model_sha256"] != json.loads((undisturbed / "summary.json").read_text())["model_sha256"]


def test_run_folder_is_complete_and_consistent(cohort: Cohort, undisturbed: Path) -> None:
    found = {path.relative_to(undisturbed) for path in undisturbed.rglob("*") if path.is_file()}
    remembered = {
        path for path in found if path.parts[0] == "site_memory"
    }  # of site-1, -2 and -3: in runs' own folders
    assert sorted((path.parts[1], path.name) for path in remembered) == [
        (name, "final.parquet") for name in cohort.sites
    ]
    names = {path.as_posix() for path in found - remembered}
    expected = {"config.yaml", "manifest.json", "events.jsonl", "rounds.csv", "sites.csv", "predictions.parquet"}
    assert names == expected | {
        "ancestry.json",
        "owner.json",
        "model.safetensors",
        "summary.json",
        "scorecards.json",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
        "checkpoints/state.safetensors",
        "checkpoints/round-00001.safetensors",
        "checkpoints/round-00002.safetensors",
        "checkpoints/round-00001.json",
        "checkpoints/round-00002.json",
    }
    summary = json.loads((undisturbed / "summary.json").read_text())
    rounds, sites = pd.read_csv(undisturbed / "rounds.csv"), pd.read_csv(undisturbed / "sites.csv")
    assert rounds["round"].tolist() == [0, 1, 2]
    assert len(sites) == 2 * 2 * 3 + 2 * 3  # rounds, phases, sites; operating points and scorecards
    for way in ("bytes_down", "bytes_up"):
        assert rounds[way].sum() == sites.loc[sites["round"] <= 2, way].sum()
        assert sites[way].sum() == summary[way]
    predictions = pd.read_parquet(undisturbed / "predictions.parquet")
    area = summary["test_site"]["slice"]["any"]["auroc"]
    assert area["positives"] == predictions["label_any"].sum()
    assert len(predictions) == cohort.facts["sites"]["test-site"]["test"]["slices"]
    selected = rounds.set_index("round").loc[summary["selected_round"]]
    assert selected["test_auroc_any"] == pytest.approx(area["value"])
    assert summary["selected_round"] == rounds["validation_loss"].idxmin()
    events = [json.loads(line)["event"] for line in (undisturbed / "events.jsonl").read_text().splitlines()]
    assert events[0] == "roll_call"
    assert events[-1] == "run_end"
    assert events.count("site_done") == 18


def test_every_file_has_the_permissions_of_its_neighbours(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "any").write_text("")
    usual = (tmp_path / "any").stat().st_mode
    files = [path for path in undisturbed.rglob("*") if path.is_file()]
    assert {"state.safetensors", "model.safetensors"} <= {path.name for path in files}
    assert [path for path in files if path.stat().st_mode != usual] == []


def test_saved_model_carries_its_config_and_loads(undisturbed: Path) -> None:
    config = tiny_config()
    with safe_open(undisturbed / "model.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(metadata["model"])["image_size"] == config.model.image_size
    build_model(config.model, ICH, ImageKind(metadata["image"]), seed=0).load_state_dict(tensors)


def test_one_site_one_round_is_plain_training(tmp_path: Path) -> None:
    cohort, config = tiny_cohort(tmp_path / "one", num_sites=1), tiny_config(rounds=1, train__select=Select.last)
    run(cohort, tmp_path / "run", config)
    data = open_site(cohort.site_folder("site-1"), image_size=config.model.image_size)
    model = build_model(config.model, ICH, data.image, seed=derive_seed(config.seed, "initial model"))
    train_locally(
        model,
        build_slice_objective(data, ICH, config.train, torch.device("cpu")),
        norm=config.model.norm,
        config=config.train,
        learning_rate=config.train.learning_rate,  # of round 1, whatever the schedule
        seed=derive_seed(config.seed, "train", "site-1", 1),
        device=torch.device("cpu"),
    )
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        saved = torch.cat(
            [
                file.get_tensor(name).reshape(-1)
                for name, value in model.state_dict().items()
                if value.is_floating_point()
            ]
        )
    np.testing.assert_array_equal(saved.numpy(), flatten(model).floats)


def test_windowed_images_run_the_same_way(tmp_path: Path) -> None:
    summary = run(tiny_cohort(tmp_path / "rgb", image=ImageKind.windows), tmp_path / "run", tiny_config(rounds=1))
    assert summary["status"] == "finished"


def test_b0_runs_in_the_federation(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=1, model__name=ModelName.efficientnet_b0, model__pretrained=False)
    assert run(cohort, tmp_path / "run", config)["status"] == "finished"


def test_a_fraction_of_the_sites_takes_part(cohort: Cohort, tmp_path: Path) -> None:
    run(cohort, tmp_path / "run", tiny_config(strategy__fraction=0.34))
    sites = pd.read_csv(tmp_path / "run" / "sites.csv")
    assert sites[sites["phase"] == "train"].groupby("round")["site"].count().tolist() == [1, 1]
    assert sites[sites["phase"] == "validation"].groupby("round")["site"].count().tolist() == [3, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_all_sites_failing_is_loud_and_leaves_no_model(cohort: Cohort, tmp_path: Path, workers: int) -> None:
    with pytest.raises(BelowQuorum, match="0 of 3 sites replied"):
        run(cohort, tmp_path / "run", tiny_config(train__learning_rate=1e30), workers=workers)
    kept = {path.name for path in (tmp_path / "run").rglob("*.safetensors")}
    assert kept == {"state.safetensors", "round-00001.safetensors"}  # to go on from, and what the sites were sent
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["site"] for event in events if event["event"] == "site_failed"] == ["site-1", "site-2", "site-3"]


def test_one_site_breaking_after_the_roll_call_is_named_and_the_rest_go_on(own_cohort: Cohort, tmp_path: Path) -> None:
    broken = own_cohort.site_folder("site-2")
    config = tiny_config()

    def break_site(kind: str, fields: object) -> None:
        if kind == "roll_call":
            (broken / "index.csv").unlink()

    server = make_server_app(
        lambda context: (
            config,
            own_cohort,
            start_run(tmp_path / "run", config, own_cohort, "cpu", (break_site,)),
        )
    )
    run_local(server, functools.partial(app_for_cohort, own_cohort.folder, tmp_path / "memory"), num_sites=3, workers=0)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    failed = [event for event in events if event["event"] == "site_failed"]
    assert {event["site"] for event in failed} == {"site-2"}
    assert {event["error"] for event in failed} == {f"ValueError: {ELSEWHERE}"}  # no index says what may not leave
    log = (tmp_path / "memory" / "site-2" / "failures.log").read_text()
    assert log.count("Traceback") == 5
    assert "index.csv is missing" in log
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["site_failures"] == len(failed) == 5
    )  # two rounds of two phases, and the counts at the end


@pytest.mark.parametrize("workers", [0, 1])
def test_a_site_of_another_cohort_is_refused_before_training(own_cohort: Cohort, tmp_path: Path, workers: int) -> None:
    facts = own_cohort.site_folder("site-3") / "site.json"
    edit_json(facts, {"cohort_sha256": "f" * 64})
    with pytest.raises(ValueError, match=r"roll call: expected cohort .* at site-3"):
        run(own_cohort, tmp_path / "run", tiny_config(), workers=workers)
    assert not (tmp_path / "run" / "rounds.csv").exists()
