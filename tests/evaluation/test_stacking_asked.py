"""A stacking is asked as one model: the slice models of its folds, then the second model, as its own run asked them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_cohort
from tiny_stacking import run, settings, with_folds

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.export import of_single_slices
from fl_rsna.evaluation.load_model import read_named_model, read_stack
from fl_rsna.evaluation.settings import EvaluateConfig, Part
from fl_rsna.learning.inference.predict import score_images
from fl_rsna.learning.inference.stacking import trees_sha256
from fl_rsna.run_folder.run_folder import MODEL, STACK_NETWORK, STACKER
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.stages import Stacker

FILES = {Stacker.xgboost: STACKER, Stacker.cnn: STACK_NETWORK}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("two"), num_sites=2, patients=24)


@pytest.fixture(scope="module")
def stackings(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[Stacker, Path]:
    """Finished runs, of trees and of a network, with models of one backbone but other input than the default's."""
    folder = tmp_path_factory.mktemp("runs")
    config = settings(model__neighbours=1, model__tta=2)
    run(cohort, folder / "xgboost", config)
    with_folds(folder / "xgboost", folder / "cnn")
    small = {"sequence__width": 8, "sequence__rounds": 1, "stacking__stacker": Stacker.cnn, "resume": True}
    run(cohort, folder / "cnn", settings(model__neighbours=1, model__tta=2, **small))
    return {stacker: folder / stacker.value for stacker in Stacker}


def table_of(folder: Path) -> pd.DataFrame:
    columns = [f"probability_{label}" for label in ("any", "epidural")]
    return pd.read_parquet(folder / "predictions.parquet").set_index("image_id").sort_index()[columns]


@pytest.mark.parametrize("stacker", Stacker)
def test_evaluate_says_of_the_test_site_what_the_run_said(
    cohort: Cohort, stackings: dict[Stacker, Path], tmp_path: Path, stacker: Stacker
) -> None:
    asked = EvaluateConfig(
        model=str(stackings[stacker]),
        site=str(cohort.site_folder(TEST_SITE)),
        part=Part.test,
        out=str(tmp_path / "out"),
    )
    evaluate(asked, lambda what, done, total: None)
    pd.testing.assert_frame_equal(table_of(tmp_path / "out"), table_of(stackings[stacker]), rtol=1e-5, atol=1e-6)
    summary = json.loads((stackings[stacker] / "summary.json").read_text())
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text())
    assert card["slice"]["any"]["auroc"]["value"] == pytest.approx(
        summary["test_site"]["slice"]["any"]["auroc"]["value"]
    )
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["model"]["sha256"] == summary["model_sha256"]
    assert len(record["model"]["stacks"]) == 2
    assert record["operating_points"] == {
        **record["operating_points"],
        **{"slice": summary["operating_points"]["slice"]},
    }


@pytest.mark.parametrize("stacker", Stacker)
def test_pngs_of_no_site_are_scored_the_same(cohort: Cohort, stackings: dict[Stacker, Path], stacker: Stacker) -> None:
    known = pd.read_parquet(stackings[stacker] / "predictions.parquet")
    folder = cohort.site_folder(TEST_SITE)
    index = pd.read_csv(folder / "index.csv", dtype={"image_id": str, "patient_id": str, "series_id": str})
    order = index.sample(frac=1, random_state=0).reset_index(drop=True)
    seen: list[tuple[int, int]] = []
    stack = read_stack(stackings[stacker] / FILES[stacker])
    found = score_images(stack, folder / "images", order, torch.device("cpu"), lambda *step: seen.append(step))
    same = known.set_index("image_id").loc[order["image_id"], "probability_any"]
    assert found[:, 0 if stack.task.labels[0] == "any" else stack.task.labels.index("any")] == pytest.approx(
        same.to_numpy(), rel=1e-5, abs=1e-6
    )
    assert seen[0] == (0, 2 * len(order))
    assert seen[-1] == (2 * len(order), 2 * len(order))


@pytest.mark.parametrize("stacker", Stacker)
def test_the_file_of_the_second_model_names_the_stacking(stackings: dict[Stacker, Path], stacker: Stacker) -> None:
    of_file, of_folder = (
        read_named_model(str(path)) for path in (stackings[stacker] / FILES[stacker], stackings[stacker])
    )
    assert of_file.saved.sha256 == of_folder.saved.sha256
    assert of_file.run == of_folder.run == stackings[stacker]
    assert of_folder.summary["status"] == "finished"
    assert set(of_folder.saved.facts["platt"]) == set(of_folder.saved.task.labels)


def test_no_onnx_file_holds_one(stackings: dict[Stacker, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"which no ONNX file holds; export one of its slice models, as model=.*fold-1"
    ):
        of_single_slices(read_named_model(str(stackings[Stacker.xgboost])).saved)


@pytest.mark.parametrize(
    ("stacker", "lost", "sentence"),
    [
        (Stacker.xgboost, f"fold-2/{MODEL}", "model: no model at .*fold-2"),
        (Stacker.xgboost, STACKER, r"model: expected a JSON object in .*stacker\.json, got .*JSONDecodeError"),
        (Stacker.cnn, STACK_NETWORK, r"model: expected a \.safetensors file in .*; copy it again"),
    ],
)
def test_one_that_is_not_whole_is_refused(
    stackings: dict[Stacker, Path], tmp_path: Path, stacker: Stacker, lost: str, sentence: str
) -> None:
    copy = shutil.copytree(stackings[stacker], tmp_path / "copy")
    if lost in FILES.values():
        (copy / lost).write_text("{")
    else:
        (copy / lost).unlink()
    with pytest.raises(ValueError, match=sentence):
        read_named_model(str(copy))


@pytest.mark.parametrize("stacker", Stacker)
def test_it_needs_nothing_of_its_run_but_the_models(
    stackings: dict[Stacker, Path], tmp_path: Path, stacker: Stacker
) -> None:
    """Moved without config, manifest and summary it is the same, with the same operating points; another fold's model is seen."""
    whole = read_named_model(str(stackings[stacker]))
    for name in (FILES[stacker], *(f"fold-{number + 1}/{MODEL}" for number in range(len(whole.saved.folds)))):  # type: ignore[union-attr]
        (tmp_path / "moved" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stackings[stacker] / name, tmp_path / "moved" / name)
    moved = read_named_model(str(tmp_path / "moved"))
    assert (moved.saved.sha256, moved.png_size) == (whole.saved.sha256, whole.png_size)
    assert moved.run_points == whole.run_points == whole.summary["operating_points"]
    shutil.copy(tmp_path / "moved" / "fold-1" / MODEL, tmp_path / "moved" / "fold-2" / MODEL)
    with pytest.raises(ValueError, match=r"^model: expected the slice model .* was trained on, got"):
        read_named_model(str(tmp_path / "moved"))


def test_features_of_another_version_are_refused(stackings: dict[Stacker, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(stackings[Stacker.xgboost], tmp_path / "copy")
    said = json.loads((copy / STACKER).read_text())
    said |= {"features": said["features"][1:]}
    (copy / STACKER).write_bytes(dump_hashed_json(said))
    with pytest.raises(ValueError, match="trees that are not those it was written with"):
        read_named_model(str(copy))
    (copy / STACKER).write_bytes(dump_hashed_json(said | {"model_sha256": trees_sha256(said)}))
    with pytest.raises(ValueError, match="features that are not this version's"):
        read_named_model(str(copy))


def test_a_slice_model_in_its_place_is_no_second_model(stackings: dict[Stacker, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(stackings[Stacker.cnn], tmp_path / "copy")
    shutil.copy(copy / "fold-1" / MODEL, copy / STACK_NETWORK)
    with pytest.raises(ValueError, match="model: expected a network along the series with its shape in its metadata"):
        read_named_model(str(copy))
