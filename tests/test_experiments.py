"""Every seed's pipeline runs by the name of its experiment, on a demo cohort that is small enough."""

import json
from pathlib import Path

import pandas as pd
import pytest
from torchvision_operators import make_importable

from fl_rsna.compose import compose_config
from fl_rsna.runner import run_federation
from fl_rsna.simulation import report_run
from fl_rsna.steps import cohort_for_run
from fl_rsna.task import ICH

SMALL = [
    "demo.patients=30", "demo.slices_per_series=5", "demo.size=64", "data.size=64", "partition.num_sites=2",
    "partition.allow_missing_labels=true", "rounds=1", "train.batch_size=16", "tracking=none", "engine.workers=0",
]  # fmt: skip
EXPERIMENTS = {  # what makes each as small, and what its summary must tell of
    "s0_benchmark": (["model=efficientnet_lite0", "model.image_size=32"], set()),
    "s1_stacking": (["model.image_size=32", "model.tta=2", "stacking.folds=2", "stacking.rounds=2"], {"stacking"}),
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
    words, told = EXPERIMENTS[name]
    config = compose_config([f"experiment={name}", *SMALL, *words, *places, f"run.name={name}"])
    cohort, run = cohort_for_run(config, lambda what, done, total: None), Path(config.paths.runs) / name
    run_federation(config, cohort, run, ())
    report_run(run, cohort)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert told <= set(summary)
    assert summary["test_site"]["controls"]["position"][ICH.headline]["auroc"]["positives"] > 0
    found = pd.read_parquet(run / "predictions.parquet")
    assert found[[f"probability_{label}" for label in ICH.labels]].notna().all().all()
    assert (run / "report.html").stat().st_size > 10_000
