"""explanations.json shows slices of the test site as the run predicted them, and knows a phantom's blood."""

import base64
import importlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from edited import edit_json, write_config, write_hashed
from package import ROOT
from tiny import tiny_config

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.reading import read_json
from fl_rsna.imaging.png_store import read_png
from fl_rsna.report import report
from fl_rsna.reporting.images.contact_sheets import View, as_uri, render_view
from fl_rsna.reporting.images.explanations import SIDE, Kind, explain, heat_uri, read_finished, write_explanations
from fl_rsna.run_folder.run_folder import EXPLANATIONS
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a demo of 14 patients, its cohort, and one round on it."""
    folder = tmp_path_factory.mktemp("explained")
    config = tiny_config(rounds=1, run__name="run", partition__num_sites=2, partition__test=0.4)
    config.demo.patients, config.demo.size, config.demo.slices_per_series, config.demo.seed = 14, 64, 8, 3
    config.data.size, config.prepare.workers = 64, 1
    for name in ("prepared", "sites", "runs"):
        setattr(config.paths, name, str(folder / name))
    cohort = cohort_for_run(config, lambda what, done, total: None)
    run_federation(config, cohort, folder / "runs" / "run", ())
    explain(folder / "runs" / "run")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that chose no operating points, without explanations."""
    shutil.copytree(made / "runs" / "run", tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    write_hashed(summary, {**read_json(summary), "operating_points": None})
    (tmp_path / "run" / EXPLANATIONS).unlink()
    return tmp_path / "run"


def change(path: Path, name: str, value: object) -> None:
    edit_json(path, {name: value})


def chosen(run: Path, threshold: float) -> Path:
    """The run as if its sites had chosen this threshold for every label."""
    at = {label: {"youden": threshold} for label in ICH.labels}
    points = {"chosen_on": "validation parts of the sites", "slice": at, "exam": {"max": at}}
    change(run / "summary.json", "operating_points", points)
    return run


def explained(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(write_explanations(run).read_text())
    return content


def pixels(uri: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_run_ends_with_explanations(made: Path) -> None:
    content = json.loads((made / "runs" / "run" / EXPLANATIONS).read_text())
    assert content["entries"]
    assert (made / "runs" / "run" / EXPLANATIONS).stat().st_size < 2_000_000


def test_entries_say_what_the_run_predicted(run: Path) -> None:
    table = pd.read_parquet(run / "predictions.parquet").set_index("image_id")
    threshold = float(table["probability_any"].median())
    content = explained(chosen(run, threshold))
    assert content["threshold_from"] == "Youden's index, chosen on validation parts of the sites"
    assert content["entries"][0]["label"] == "any"
    for entry in content["entries"]:
        facts = table.loc[entry["image_id"]]
        assert entry["labels"] == {label: facts[f"label_{label}"] for label in ICH.labels}
        for label in ICH.labels:
            assert entry["probabilities"][label] == pytest.approx(facts[f"probability_{label}"], abs=1e-4)
        right = (facts[f"probability_{entry['label']}"] >= threshold) == entry["labels"][entry["label"]]
        assert entry["kind"].startswith("true" if right else "false")
        assert entry["window"] == ("subdural" if entry["label"] in ("epidural", "subdural") else "brain")
    kinds = {entry["kind"] for entry in content["entries"] if entry["label"] == "any"}
    assert kinds <= {kind.value for kind in Kind}
    assert {kind.split()[1] for kind in kinds} == {"positive", "negative"}


def test_pictures_and_overlays_fit(run: Path) -> None:
    for entry in explained(chosen(run, 0.0))["entries"]:
        assert entry["picture"].startswith("data:image/jpeg;base64,")
        assert entry["heat"].startswith("data:image/png;base64,")
        assert pixels(entry["picture"]).shape == (SIDE, SIDE)
        assert pixels(entry["heat"]).shape == (SIDE, SIDE, 4)
        assert (entry["lesion"] is None) == (entry["labels"][entry["label"]] == 0)


def test_heat_is_of_the_slice_it_stands_beside(run: Path) -> None:
    """In whatever order the predictions are written, and alone as among others."""
    table = pd.read_parquet(run / "predictions.parquet")
    table.iloc[np.random.default_rng(0).permutation(len(table))].to_parquet(run / "predictions.parquet", index=False)
    content, finished = explained(chosen(run, 0.0)), read_finished(run)
    heats = []
    for entry in content["entries"]:
        row = finished.table["image_id"].tolist().index(entry["image_id"])
        alone = pixels(heat_uri(finished.heat([row], entry["label"], SIDE)[0]))[..., 3].astype(float)
        heats.append(pixels(entry["heat"])[..., 3].astype(float))
        assert np.abs(alone - heats[-1]).mean() < 1
        stored = read_png(finished.images / f"{entry['image_id']}.png")
        assert entry["picture"] == as_uri(render_view(stored, View(entry["window"]), SIDE))
    assert min(np.abs(one - other).mean() for one, other in itertools.pairwise(heats)) > 1


def test_without_operating_points_it_is_a_half_and_says_so(run: Path) -> None:
    content = explained(run)
    assert content["threshold_from"] == "0.5: the run chose no operating points"
    assert {*content["thresholds"].values()} == {0.5}


def test_heat_is_measured_in_the_blood_of_all_true_positives(run: Path) -> None:
    table = pd.read_parquet(run / "predictions.parquet")
    found = explained(chosen(run, 0.0))["heat_in_lesion"]
    positive = table[table["label_any"] == 1]
    assert (found["slices"], found["patients"]) == (len(positive), positive["patient_id"].nunique())
    assert 0 < found["uniform"]["value"] < 0.5
    assert 0 <= found["share"]["value"] <= 1


def test_the_script_measures_every_label_on_both_maps(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    importlib.import_module("heat_in_lesion").measure(chosen(run, 0.0))
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    table = pd.read_parquet(run / "predictions.parquet")
    counts = {label: int(table[f"label_{label}"].sum()) for label in ICH.labels}
    for name in ("at least 6 cells a side", "the last"):
        assert {row["label"]: row["slices"] for row in rows if row["map"] == name} == {
            k: n for k, n in counts.items() if n
        }


def test_no_true_positive_no_share(run: Path) -> None:
    assert explained(chosen(run, 1.1))["heat_in_lesion"] is None


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [("demo", "seed", 4), ("demo", "slices_per_series", 9), ("data", "name", "mine")],
)
def test_blood_is_not_guessed_on_slices_the_phantom_did_not_draw(
    run: Path, group: str, key: str, value: object
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[group][key] = value
    write_config(run, config)
    content = explained(chosen(run, 0.0))
    assert content["heat_in_lesion"] is None
    assert {entry["lesion"] for entry in content["entries"]} == {None}


def test_only_the_test_site_is_opened(run: Path, made: Path, tmp_path: Path) -> None:
    """The sites' own folders may be on other machines: the same explanations come without them."""
    before = write_explanations(run).read_bytes()
    manifest = json.loads((run / "manifest.json").read_text())
    (name,) = {path.name for path in (made / "sites").glob("*/") if (path / "cohort.json").exists()}
    shutil.copytree(made / "sites" / name, tmp_path / name, ignore=shutil.ignore_patterns("site-*"))
    change(run / "manifest.json", "cohort", str(tmp_path / name))
    assert manifest["cohort"] != str(tmp_path / name)
    assert write_explanations(run).read_bytes() == before


def test_report_makes_them_when_they_are_missing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([run])
    made = (run / EXPLANATIONS).read_text()
    (run / EXPLANATIONS).write_text('{"entries": []}')
    report([run])
    assert (run / EXPLANATIONS).read_text() == '{"entries": []}'
    assert json.loads(made)["entries"]
    assert "no explanations" not in capsys.readouterr().out


def test_report_does_without_a_cohort_or_a_finished_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run / "manifest.json", "cohort_sha256", "another")
    report([run])
    assert "no explanations: expected the cohort of" in capsys.readouterr().out
    change(run / "manifest.json", "cohort", str(run / "gone"))
    report([run])
    assert "no explanations: partition.name: no cohort at" in capsys.readouterr().out
    (run / "summary.json").write_text('{"status": "failed", "reason": "round 1: nobody came", "rounds": 1}')
    report([run])
    assert "found one that failed" in capsys.readouterr().out
    (run / "summary.json").unlink()
    report([run])
    assert "found no summary.json" in capsys.readouterr().out
    (run / "model.safetensors").unlink()
    report([run])
    assert "no explanations" not in capsys.readouterr().out
    assert not (run / EXPLANATIONS).exists()
    assert (run / "report.html").exists()


def test_whole_exams_are_drawn_from_the_lowest_slice_to_the_highest(made: Path) -> None:
    run = made / "runs" / "run"
    table = pd.read_parquet(run / "predictions.parquet").set_index("image_id")
    found = read_json(run / EXPLANATIONS)
    chosen = read_json(run / "summary.json")["operating_points"]["exam"]["max"]["any"]["youden"]
    threshold = found["thresholds"]["any"] if chosen is None else chosen
    assert found["strips"]
    for strip in found["strips"]:
        rows = table.loc[[one["image_id"] for one in strip["slices"]]]
        assert rows["series_id"].nunique() == 1
        assert len(rows) == (table["series_id"] == rows["series_id"].iloc[0]).sum()  # eight slices: all are shown
        assert rows["rank"].is_monotonic_increasing
        assert [one["probability"] for one in strip["slices"]] == pytest.approx(rows["probability_any"].tolist())
        called, truth = rows["probability_any"].max() >= threshold, rows["label_any"].max() == 1
        assert strip["title"] == f"{'True' if called == truth else 'False'} {'positive' if called else 'negative'} exam"
        assert sum(one["heat"] is not None for one in strip["slices"]) == 3
