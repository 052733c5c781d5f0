"""The final model gets BatchNorm statistics of its own: those of every site's slices under it, and nothing else changes."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.training.train import EVALUATION_BATCH, estimate_norm
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Norm, Trainable
from fl_rsna.settings.training import Select
from fl_rsna.task import ICH


def run(cohort: Cohort, folder: Path, workers: int = 0, **changes: object) -> dict[str, object]:
    config: Config = tiny_config(rounds=1, train__select=Select.last, model__recalibrate=True, **changes)
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=workers)
    return dict(json.loads((folder / "summary.json").read_text()))


@pytest.fixture(scope="module")
def whole(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(cohort, folder)
    return folder


def test_statistics_are_the_sites_weighted_mean_under_the_last_model(cohort: Cohort, whole: Path) -> None:
    last, final = (load_file(whole / name) for name in ("checkpoints/last.safetensors", "model.safetensors"))
    means, weights = [], []
    for name in cohort.sites:
        data = open_site(cohort.site_folder(name), image_size=32)
        model = build_model(tiny_config().model, ICH, data.image, seed=0)
        model.load_state_dict(last)
        means.append(model)
        result = estimate_norm(model, data, batch_size=EVALUATION_BATCH, device=torch.device("cpu"))
        weights.append(result.examples)
    for name, value in final.items():
        if name.endswith(("running_mean", "running_var")):
            found = np.average([model.state_dict()[name].numpy() for model in means], axis=0, weights=weights)
            np.testing.assert_allclose(value.numpy(), found, rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, last[name])
        else:
            assert torch.equal(value, last[name])


def test_it_is_counted_and_written_down(whole: Path) -> None:
    summary, sites = json.loads((whole / "summary.json").read_text()), pd.read_csv(whole / "sites.csv")
    assert summary["recalibrated"]
    assert (
        sites["phase"].tolist()
        == ["train"] * 3 + ["validation"] * 3 + ["recalibration"] * 3 + ["operating points"] * 3 + ["scorecard"] * 3
    )
    assert summary["bytes_up"] == sites["bytes_up"].sum()


def test_killed_at_it_and_resumed_it_is_written_down_once(cohort: Cohort, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()  # what the run leaves when it is killed before its last word
    run(cohort, folder, resume=True)
    tables = [pd.read_csv(path / "sites.csv")[["round", "phase", "site"]] for path in (whole, folder)]
    pd.testing.assert_frame_equal(*tables)
    hashes = [json.loads((path / "summary.json").read_text())["model_sha256"] for path in (whole, folder)]
    assert hashes[0] == hashes[1]


def test_workers_and_a_narrow_wire_change_nothing(cohort: Cohort, whole: Path, tmp_path: Path) -> None:
    expected = json.loads((whole / "summary.json").read_text())["model_sha256"]
    assert run(cohort, tmp_path / "workers", workers=2)["model_sha256"] == expected
    assert run(cohort, tmp_path / "again", network__precision_up=Precision.int8)["recalibrated"]


@pytest.mark.parametrize("changes", [{"model__norm": Norm.frozen}, {"train__trainable": Trainable.head}])
def test_statistics_nobody_trained_with_stay(cohort: Cohort, tmp_path: Path, changes: dict[str, object]) -> None:
    assert not run(cohort, tmp_path / "run", **changes)["recalibrated"]


@pytest.mark.slow
def test_a_robust_strategy_is_robust_here_too(cohort: Cohort, tmp_path: Path) -> None:
    """One of three sites sends its change the other way round: the median hardly moves, the mean does."""
    moved = {}
    for name in ("fedmedian", "fedavg"):
        models = []
        for kind, faults in {"honest": {}, "flipped": {"site-2": "flip@2"}}.items():
            run(cohort, tmp_path / name / kind, strategy__name=name, faults__sites=faults)
            models.append(load_file(tmp_path / name / kind / "model.safetensors"))
        names = [name for name in models[0] if name.endswith("running_mean")]
        moved[name] = sum(float((models[0][n] - models[1][n]).abs().mean()) for n in names)
    assert moved["fedmedian"] < 0.5 * moved["fedavg"]
