"""Every seed's pipeline runs by the name of its experiment, on a demo cohort that is small enough; so does the second task."""

import json
from pathlib import Path

import pandas as pd
import pytest
from composed import compose_config
from torchvision_operators import make_importable

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.learning.metrics.controls import controls_of
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.simulation.simulation import report_run, run_federation
from fl_rsna.task import COVID_CXR, find_task

pytestmark = pytest.mark.xdist_group("demo")  # which the tests of one worker share
SMALL = [
    "demo.patients=30", "demo.slices_per_series=5", "demo.size=64", "data.size=64", "partition.num_sites=2",
    "rounds=1", "train.batch_size=16", "tracking=none", "engine.workers=0",
]  # fmt: skip
EXPERIMENTS = {  # what makes each as small, and what its summary must tell of
    "s0_benchmark": (["model=efficientnet_lite0", "model.image_size=32"], set()),
    "s1_stacking": (["model.image_size=32", "model.tta=2", "stacking.folds=2", "stacking.rounds=2"], {"stacking"}),
    "s2_covid": (["model.image_size=32"], set()),
    "s3_undersampled_inception": (["model.image_size=75"], set()),
    "s4_sequence": (["model.image_size=32", "sequence.width=16", "sequence.copies=2"], {"sequence"}),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("demo")
    return [f"paths.{name}={folder / name}" for name in ("prepared", "sites", "runs")]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_seeds_pipeline_runs(name: str, places: list[str]) -> None:
    make_importable()
    arguments, told = EXPERIMENTS[name]
    config = compose_config([f"experiment={name}", *SMALL, *arguments, *places, f"run.name={name}"])
    cohort, run = cohort_for_run(config, lambda what, done, total: None), Path(config.paths.runs) / name
    run_federation(config, cohort, run, ())
    report_run(run, cohort)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert told <= set(summary)
    task = find_task(config.data.task)
    for control in controls_of(task.rendering):
        assert summary["test_site"]["controls"][control.value][task.headline]["auroc"]["positives"] > 0
    found = pd.read_parquet(run / "predictions.parquet")
    assert found[[f"probability_{label}" for label in task.labels]].notna().all().all()
    assert (run / "report.html").stat().st_size > 10_000


def test_the_second_task_from_films_to_its_report(tmp_path: Path) -> None:
    """Any number of workers gives the same model; its page speaks of images and studies, and the class weights are given back."""
    places = [f"paths.{name}={tmp_path / name}" for name in ("prepared", "sites", "runs")]
    arguments = ["task=covid_cxr", *SMALL, *places, "model.image_size=32", "train.label_weights=prevalence"]
    hashes = set()
    for workers in (0, 1):
        config = compose_config([*arguments, f"engine.workers={workers}"])
        cohort, run = cohort_for_run(config, lambda what, done, total: None), tmp_path / "runs" / str(workers)
        run_federation(config, cohort, run, ())
        summary = json.loads((run / "summary.json").read_text())
        hashes.add(summary["model_sha256"])
    assert len(hashes) == 1
    assert set(summary["test_site"]["classes"]["slice"]) >= {"macro_auroc", "balanced_accuracy", "accuracy"}
    weights = read_saved(run / "model.safetensors").config.class_weights
    assert len(weights) == len(COVID_CXR.labels)
    assert weights[COVID_CXR.labels.index("atypical")] == max(weights)  # the rarest
    page = report_run(run, cohort).read_text()
    assert "Confusion matrix" in page
    assert "NFP" in page
    told = json.loads((run / "explanations.json").read_text())
    assert (told["finding"], told["body"]) == (COVID_CXR.finding, COVID_CXR.body)
    assert {entry["window"] for entry in told["entries"]} == {"grey"}
