"""What a model sees of a slice, in whole runs: it is the same in the run, in its model file, on a site and on fresh slices."""

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from run_always import run_always
from safetensors.torch import load_file, save_file
from tiny import LITE0, SIZE, tiny_config, tiny_prepared
from torchvision_operators import make_importable

from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort
from fl_rsna.cohort.steps import partition_settings
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.load_model import read_named_model
from fl_rsna.evaluation.settings import EvaluateConfig
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.federation.site.memory import recall
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.learning.inference.predict import score_images
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Crop, ModelName, Norm, Window
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.task import ICH

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "neighbours": {"model__neighbours": 1},
    "learned": {"model__window": Window.learned},
    "personal": {"model__window": Window.personal},
    "crop": {"model__crop": Crop.head},
    "tta": {"model__tta": 3},
    "layer_decay": {**LITE0, "train__layer_decay": 0.7},  # of a network whose stages are known without timm
    "dropout": {"model__dropout": 0.6},
}
ALL = {key: value for words in SETTINGS.values() for key, value in words.items()}  # with the window personal
DEFAULTS = {
    "model__neighbours": 0,
    "model__window": Window.fixed,
    "model__crop": Crop.none,
    "model__tta": 1,
    "model__backbone": None,
    "model__weights": None,
    "train__layer_decay": 1.0,
}


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three sites whose index says where the head is: another corner of 32 pixels in every series."""
    folder = tmp_path_factory.mktemp("boxed")
    prepared, config = tiny_prepared(folder / "prepared", patients=14, slices=3), Config()
    corner = prepared.index["patient_id"].str[-1].astype(int) % 5
    box = {"crop_top": corner, "crop_left": 2 * corner, "crop_bottom": corner + 20, "crop_right": 2 * corner + 20}
    index = prepared.index.assign(**box, rows=SIZE, columns=SIZE, brain_share=0.3)
    config.data.name, config.partition.num_sites = "boxed", 3
    sites = split_patients(index, ICH, PartitionConfig(num_sites=3, alpha=1.0, test=0.2, validation=0.2, seed=0))
    return write_cohort(folder / "sites", replace(prepared, index=index), sites, ICH, partition_settings(config))


def run(cohort: Cohort, folder: Path, config: Config, workers: int = 0, until: int = 0) -> dict[str, Any]:
    """One run, killed after that many events if any are named; its summary."""
    heard = list[str]()

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        heard.append(kind)
        if len(heard) == until:
            raise Killed

    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,))))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=workers)
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture(scope="module")
def plain(boxed: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    run(boxed, folder, tiny_config(rounds=1))
    return folder


@pytest.fixture(scope="module")
def packaged(boxed: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain run of the default network, from ImageNet's packaged weights."""
    folder = tmp_path_factory.mktemp("runs") / "packaged"
    run(boxed, folder, tiny_config(rounds=1, **LITE0))
    return folder


@pytest.fixture(scope="module")
def whole(boxed: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds with everything at once."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(boxed, folder, tiny_config(**ALL))["site_failures"] == 0
    return folder


def probabilities(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path).set_index("image_id")
    return table[[f"probability_{label}" for label in ICH.labels]]


def sha256(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["model_sha256"])


def test_every_setting_at_its_default_is_the_plain_run(boxed: Cohort, tmp_path: Path, plain: Path) -> None:
    run(boxed, tmp_path / "said", tiny_config(rounds=1, **DEFAULTS))
    assert sha256(tmp_path / "said") == sha256(plain)
    pd.testing.assert_frame_equal(
        probabilities(tmp_path / "said" / "predictions.parquet"), probabilities(plain / "predictions.parquet")
    )


@pytest.mark.parametrize("name", list(SETTINGS))
def test_what_a_setting_changes_the_model_file_knows(
    boxed: Cohort, tmp_path: Path, plain: Path, packaged: Path, name: str
) -> None:
    """Its probabilities are those of the run: read from a site's folder, and from PNGs and their index."""
    folder, without = tmp_path / "run", packaged if name == "layer_decay" else plain
    assert run(boxed, folder, tiny_config(rounds=1, **SETTINGS[name]))["site_failures"] == 0
    expected = probabilities(folder / "predictions.parquet")
    assert not expected.equals(probabilities(without / "predictions.parquet"))
    assert (sha256(folder) == sha256(without)) == (name == "tta")  # which only looks more often
    scored_as_in_the_run(boxed, folder, tmp_path)


def scored_as_in_the_run(cohort: Cohort, folder: Path, tmp_path: Path) -> None:
    expected, test_site = probabilities(folder / "predictions.parquet"), cohort.site_folder("test-site")
    asked = EvaluateConfig(model=str(folder), site=str(test_site), out=str(tmp_path / "site"))
    evaluate(asked, lambda what, done, total: None)
    pd.testing.assert_frame_equal(probabilities(tmp_path / "site" / "predictions.parquet"), expected)
    index = pd.read_csv(test_site / "index.csv", dtype={"image_id": str}).drop(columns="split")
    shuffled = index.sample(frac=1, random_state=0).sort_values(["series_id", "rank"], ascending=[False, True])
    saved = read_named_model(str(folder / "model.safetensors")).saved
    found = score_images(saved, test_site / "images", shuffled, CPU, lambda done, total: None)
    np.testing.assert_allclose(found, expected.loc[shuffled["image_id"]], atol=1e-6)


def test_all_of_it_at_once_in_the_model_file(boxed: Cohort, tmp_path: Path, whole: Path) -> None:
    scored_as_in_the_run(boxed, whole, tmp_path)
    said = read_named_model(str(whole))
    assert (said.saved.config.neighbours, said.saved.config.tta, said.saved.config.crop) == (1, 3, Crop.head)
    assert said.fallback == "each site kept its own window; scored is the global model with the mean of theirs"


def test_one_process_more_changes_nothing(boxed: Cohort, tmp_path: Path, whole: Path) -> None:
    run(boxed, tmp_path / "again", tiny_config(**ALL), workers=1)
    assert sha256(tmp_path / "again") == sha256(whole)


def test_a_run_that_was_shown_ground_truth_says_so_everywhere(tmp_path: Path, plain: Path) -> None:
    """In its events, summary, report, paper and evaluations; another run does not, and unmarked images cannot be scored."""
    prepared, config = tiny_prepared(tmp_path / "prepared", patients=14, slices=3), tiny_config(rounds=1)
    cells = np.where(prepared.index["any"] == 1, "[[8, 8, 12, 12]]", "[]")
    marked = replace(prepared, index=prepared.index.assign(rows=SIZE, columns=SIZE, boxes=cells))
    sites = split_patients(marked.index, ICH, PartitionConfig(num_sites=2, alpha=1.0, test=0.2, validation=0.2, seed=0))
    cohort = write_cohort(tmp_path / "sites", marked, sites, ICH, partition_settings(config))
    config.model.crop = Crop.boxes_leaky
    summary = run(cohort, tmp_path / "leaky", config)
    assert (summary["crops_from_truth"], summary["site_failures"]) == (True, 0)
    found = {name: reported(folder) for name, folder in {"leaky": tmp_path / "leaky", "plain": plain}.items()}
    assert {name: stamped["state"] for name, stamped in found.items()} == {"leaky": True, "plain": False}
    for part, words in {
        "events.jsonl": '"crops_from_truth": true', "warnings": TRUTH_SHOWN, "report.html": "This model was shown the answer.",
        "about": "cropped to ground-truth boxes", "paper.md": f"Slices. NOT A RESULT: {TRUTH_SHOWN}", "paper.tex": "NOT A RESULT",
    }.items():  # fmt: skip
        assert words in found["leaky"][part], part
        assert words not in found["plain"][part], part
    assert "crops_from_truth" not in json.loads((plain / "summary.json").read_text())
    asked = EvaluateConfig(
        model=str(tmp_path / "leaky"), site=str(cohort.site_folder("test-site")), out=str(tmp_path / "out")
    )
    evaluate(asked, lambda what, done, total: None)
    assert TRUTH_SHOWN in json.loads((tmp_path / "out" / "evaluation.json").read_text())["warnings"]
    saved = read_named_model(str(tmp_path / "leaky")).saved
    with pytest.raises(ValueError, match=r"^model\.crop: expected the ground-truth column boxes"):
        score_images(saved, prepared.folder / "images", prepared.index, CPU, lambda done, total: None)


def reported(folder: Path) -> dict[str, Any]:
    """What a run says of itself in its report and events."""
    write_report(folder)
    content = json.loads((folder / "report.json").read_text())
    texts = {name: (folder / name).read_text() for name in ("report.html", "paper.md", "paper.tex", "events.jsonl")}
    events = [json.loads(line) for line in texts["events.jsonl"].splitlines()]
    warnings = " ".join(event["text"] for event in events if event["event"] == "warning")
    return {
        **texts,
        "warnings": warnings,
        "state": content["state"]["crops_from_truth"],
        "about": content["provenance"]["about"],
    }


def test_killed_and_resumed_is_as_if_nothing_happened(boxed: Cohort, tmp_path: Path, whole: Path) -> None:
    """Killed in the second round, when two sites have trained."""
    with pytest.raises(Killed):
        run(boxed, tmp_path / "run", tiny_config(**ALL), until=1 + 8 + 3)
    run(boxed, tmp_path / "run", tiny_config(**ALL, resume=True))
    assert sha256(tmp_path / "run") == sha256(whole)


def test_a_personal_window_stays_at_its_site_and_the_mean_is_sent(boxed: Cohort, whole: Path) -> None:
    """Every site remembers six numbers of its own; the model has their mean, and all of them left their start."""
    [run_id] = {path.name for path in (whole / "site_memory" / "site-1").iterdir() if path.is_dir()}
    kept = np.stack([recall(whole / "site_memory" / site / run_id, 2, site)["norm"] for site in boxed.sites])
    assert kept.shape == (3, 6)
    assert len(np.unique(kept, axis=0)) == 3
    tensors = load_file(whole / "checkpoints" / "last.safetensors")
    sent = np.concatenate([tensors[f"input_stage.{part}"].numpy().ravel() for part in ("weight", "bias")])
    weights = [boxed.facts["sites"][site]["train"]["slices"] for site in boxed.sites]
    np.testing.assert_allclose(sent, np.average(kept, axis=0, weights=weights), rtol=1e-5)


@pytest.mark.parametrize("name", run_always(["scaffold"], ["scaffold", "moon", "ditto"]))
def test_strategies_of_every_kind_go_with_all_of_it(boxed: Cohort, tmp_path: Path, name: str) -> None:
    words = {**ALL, "strategy__name": name, "model__tta": 1, "model__norm": Norm.local}
    wire = {"network__precision_up": Precision.int8, "network__precision_down": Precision.bf16}
    summary = run(boxed, tmp_path / "run", tiny_config(rounds=2, **words, **wire))
    assert summary["site_failures"] == 0


def test_a_run_starts_from_a_file_and_tells_nobody_where_it_lies(boxed: Cohort, tmp_path: Path, packaged: Path) -> None:
    """ImageNet's weights from a file give the run that the packaged ones give; the manifest has the file's hash."""
    imagenet = build_model(tiny_config(**LITE0).model, ICH, ImageKind.hu, seed=0).backbone.state_dict()
    save_file({name: value.contiguous() for name, value in imagenet.items()}, tmp_path / "w.safetensors")
    start = {**LITE0, "model__pretrained": False, "model__weights": str(tmp_path / "w.safetensors")}
    start |= {"allow_unknown_patients": True}
    folder = tmp_path / "run"
    run(boxed, folder, tiny_config(rounds=1, **start))
    assert sha256(folder) == sha256(packaged)
    assert len(json.loads((folder / "manifest.json").read_text())["weights_sha256"]) == 64
    sent = (folder / "checkpoints" / "round-00001.json").read_text()
    assert str(tmp_path) not in sent + (folder / "model.safetensors").read_bytes().decode("latin1")
    assert read_named_model(str(folder)).saved.config.weights is None


@pytest.mark.slow
def test_a_network_of_timm_in_a_federation(boxed: Cohort, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="timm is not installed")
    make_importable()
    of_timm = {"model__name": ModelName.timm, "model__backbone": "densenet121", "model__pretrained": False}
    config = tiny_config(rounds=1, **{**ALL, **of_timm, "model__image_size": 64, "strategy__name": "moon"})
    assert run(boxed, tmp_path / "run", config)["site_failures"] == 0
    scored_as_in_the_run(boxed, tmp_path / "run", tmp_path)
