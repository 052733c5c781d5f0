"""An exported model says what the model says, with nothing of ours around it."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from composed import read_own
from dicom_files import write_tiny
from saved_runs import write_tiny_model, write_tiny_run

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.command_end import RunFailed
from fl_rsna.evaluate import main as evaluate
from fl_rsna.evaluation.export import check_onnx
from fl_rsna.evaluation.load_model import read_named_model
from fl_rsna.evaluation.settings import EvaluateConfig, ExportConfig
from fl_rsna.export import main
from fl_rsna.imaging.png_store import read_png, write_png
from fl_rsna.learning.inference.onnx_export import (
    PACKAGES,
    greatest_difference,
    random_images,
    synthetic_images,
    write_onnx,
)
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.saved import read_saved, write_saved
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, Window
from fl_rsna.task import COVID_CXR, ICH

SIZE = 32


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def export(*arguments: str) -> None:
    main(read_own(ExportConfig, arguments))


def typed_from_card(folder: Path, *paths: Path) -> dict[str, list[float]]:
    """What the example in the card prints, run as it is in the exported folder."""
    [example] = re.findall(r"```python\n(.*?)```", (folder / "model_card.md").read_text(), re.DOTALL)
    (folder / "score.py").write_text(example)
    done = subprocess.run([sys.executable, "score.py", *map(str, paths)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    found = {Path(path).stem: json.loads(row) for path, row in lines}
    assert all(list(row) == list(ICH.labels) for row in found.values())
    return {image: list(row.values()) for image, row in found.items()}


@pytest.mark.slow
def test_dicom_through_the_cards_example_gives_what_evaluate_gives(cohort: Cohort, tmp_path: Path) -> None:
    run = write_tiny_run(
        tmp_path / "runs" / "first", cohort, size=48, name=ModelName.efficientnet_lite0, pretrained=True
    )
    export(f"model={run}")
    for number in range(5):
        hu = np.random.default_rng(number).normal(30 + 20 * number, 30, (64, 64)).round().astype(np.int16)
        write_tiny(tmp_path / "dicom" / f"ID_{number}.dcm", f"ID_{number}", f"p{number}", hu=hu)
    evaluate(read_own(EvaluateConfig, [f"model={run}", "data.dicom=dicom", "out=out"]))
    table = pd.read_csv("out/predictions.csv").set_index("image_id").filter(like="probability_")
    found = typed_from_card(run / "export", *sorted((tmp_path / "dicom").iterdir()))
    assert len(found) == 5
    for image, row in found.items():
        np.testing.assert_allclose(row, table.loc[image], atol=1e-4)
    assert table.to_numpy().std(axis=0).max() > 0.01
    check = json.loads((run / "export" / "check.json").read_text())
    assert {"random", "synthetic", "of test-site"} == set(check["slices"])
    assert max(check["greatest_difference"].values()) <= 1e-4
    with pytest.raises(ValueError, match=r"^out: expected a new folder, got the existing"):
        export(f"model={run}")


@pytest.mark.slow
def test_windowed_images_and_another_normalisation(cohort: Cohort, tmp_path: Path) -> None:
    """RGB slices go in as they are stored; a model file alone is exported beside itself, and its card knows no run."""
    write_tiny_model(tmp_path / "w.safetensors", image=ImageKind.windows, norm=Norm.group, image_size=SIZE)
    export("model=w.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    write_png(tmp_path / "slice.png", image)
    assert (read_png(tmp_path / "slice.png") == image).all()
    [row] = typed_from_card(tmp_path / "w_export", tmp_path / "slice.png").values()
    assert all(0 <= value <= 1 for value in row)
    card = (tmp_path / "w_export" / "model_card.md").read_text()
    assert card.count("this model came without its run") == 2
    with pytest.raises(ValueError, match="expected images of kind windows"):
        export("model=w.safetensors", f"site={cohort.site_folder('site-1')}", "out=other")
    assert not Path("other").exists()
    write_tiny_model(tmp_path / "v.safetensors", image=ImageKind.windows, norm=Norm.group, image_size=SIZE, seed=1)
    other = read_named_model("v.safetensors")
    with pytest.raises(RunFailed, match="differs from torch by"):
        check_onnx(other.saved, tmp_path / "w_export" / "model.onnx", {"random": random_images(other.saved, 3, seed=0)})


@pytest.mark.slow
def test_stacks_learned_windows_and_views(cohort: Cohort, tmp_path: Path) -> None:
    """The file takes stacks of a series and computes one view, and says so."""
    import onnx

    arguments = {"neighbours": 1, "window": Window.personal, "tta": 2}
    write_tiny_model(tmp_path / "s.safetensors", image_size=SIZE, **arguments)
    export("model=s.safetensors", f"site={cohort.site_folder('site-1')}")
    check = json.loads(Path("s_export/check.json").read_text())
    assert max(check["greatest_difference"].values()) <= 1e-4
    assert "of site-1" in check["slices"]
    said = {prop.key: prop.value for prop in onnx.load("s_export/model.onnx").metadata_props}
    assert (said["slices"], said["views"], said["crop"]) == ("3", "1", "none")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"export needs {package}, .* pip install 'fl-rsna\[export\]'$"):
        export("model=nowhere")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model=nowhere"], "^model: .*does not exist"),
        (["model=run", "out=run"], "^out: expected a new folder"),
        (["model=run", "site=run"], "site.json"),
        (["model=run", "batch=1"], "^batch: no such setting; "),
    ],
)
def test_a_request_that_cannot_be_met_leaves_nothing(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    write_tiny_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=sentence):
        export(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_where_its_model_is_however_its_folder_is_typed(cohort: Cohort, tmp_path: Path) -> None:
    """So that it is exported into itself, and not beside its checkpoints."""
    run = write_tiny_run(tmp_path / "runs" / "first", cohort)
    for typed in (run, Path("runs/first"), Path("runs/first/model.safetensors")):
        trained = read_named_model(str(typed))
        assert trained.run == trained.saved.path.parent


def test_a_run_folder_is_not_its_checkpoint(tmp_path: Path) -> None:
    """The card of another model of the run quotes no score of the final one."""
    run = write_tiny_run(tmp_path / "run")
    shutil.copy(run / "model.safetensors", tmp_path / "same.safetensors")
    write_tiny_model(run / "checkpoints" / "best.safetensors", seed=1)
    assert read_named_model(str(run)).summary["status"] == "finished"
    assert read_named_model(str(run / "checkpoints" / "best.safetensors")).summary == {}
    assert read_named_model("same.safetensors").run is None


@pytest.mark.slow
def test_a_model_of_an_under_sampled_run_is_exported_with_its_correction(tmp_path: Path) -> None:
    """The file says what the model says, which is not what it learned."""
    saved = read_saved(write_tiny_model(tmp_path / "model.safetensors"))
    images = torch.from_numpy(random_images(saved, 3, seed=0))
    found = {}
    for kept in (1.0, 0.1):
        config = replace(saved.config, kept_negatives=kept)
        path = tmp_path / f"{kept}.safetensors"
        write_saved(path, saved.network, task="ich", image=ImageKind.hu, png_size=32, config=config, facts={})
        again = read_saved(path)
        write_onnx(again, tmp_path / f"{kept}.onnx")
        assert greatest_difference(again, tmp_path / f"{kept}.onnx", random_images(saved, 8, seed=1)) <= 1e-5
        with torch.inference_mode():
            found[kept] = again.network(images)
    torch.testing.assert_close(found[0.1][:, 0], found[1.0][:, 0] + np.log(0.1))


@pytest.mark.slow
def test_a_model_of_films_is_exported_and_tried_on_films(tmp_path: Path) -> None:
    config = ModelConfig(image_size=SIZE, name="tiny", pretrained=False)
    network = build_model(config, COVID_CXR, ImageKind.grey, seed=0).eval()
    path = tmp_path / "model.safetensors"
    write_saved(path, network, task=COVID_CXR.name, image=ImageKind.grey, png_size=32, config=config, facts={})
    saved, onnx = read_saved(path), tmp_path / "model.onnx"
    write_onnx(saved, onnx)
    films = synthetic_images(saved, seed=0)
    assert films.shape == (4, 1, SIZE, SIZE)
    assert films.max() > 40000  # sixteen bits are used
    for images in (films, random_images(saved, 3, seed=0)):
        assert greatest_difference(saved, onnx, images) <= 1e-4
