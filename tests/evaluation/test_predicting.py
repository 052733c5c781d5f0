"""RSNA's layout from end to end: prepared, partitioned, trained on, and stage_2_test predicted as Kaggle takes it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fl_rsna.cli.command import run_command
from fl_rsna.phantom.chest.cohort import write_chest_cohort
from fl_rsna.phantom.head.cohort import Quirks, write_cohort
from fl_rsna.reporting.pages.submissions import check_submission, rows_of
from fl_rsna.settings.config import Config
from fl_rsna.simulation.simulation import simulate
from fl_rsna.task import COVID_CXR, ICH

SETTINGS = [
    "model.image_size=24",
    "data.size=32",
    "train.batch_size=8",
    "rounds=1",
    "engine.workers=0",
    "tracking=none",
]
SETTINGS += ["partition.num_sites=2", "train.trainable=head", "prepare.workers=1"]


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """stage_2_train with rows that stand twice and a damaged file, stage_2_test with a damaged file, and Kaggle's sample."""
    folder = tmp_path / "kaggle"
    write_cohort(
        folder, patients=10, seed=1, size=32, slices_per_series=3, quirks=Quirks(duplicate_rows=1, truncated_files=1)
    )
    write_cohort(tmp_path / "other", patients=3, seed=2, size=32, slices_per_series=3, quirks=Quirks(truncated_files=1))
    (tmp_path / "other" / "stage_2_train").rename(folder / "stage_2_test")
    images = sorted(path.stem for path in (folder / "stage_2_test").iterdir())
    sample = pd.DataFrame({"ID": rows_of(images, ICH), "Label": 0.5})
    sample.to_csv(folder / "stage_2_sample_submission.csv", index=False)
    return folder


def typed(story: Callable[[Config], object], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fl_rsna", *arguments])
    with pytest.raises(SystemExit) as left:
        run_command(story)
    return int(left.value.code or 0)


def test_one_command_makes_a_submission_of_kaggles_data(
    kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*SETTINGS, "experiment=kaggle", f"data.dicom={kaggle}", "run.name=one"]
    assert typed(simulate, monkeypatch, *arguments) == 0
    run, asked = tmp_path / "runs" / "one", list(pd.read_csv(kaggle / "stage_2_sample_submission.csv")["ID"])
    table = pd.read_csv(run / "submission.csv")
    check_submission(table, asked, "submission.csv")
    assert len(table) == 9 * 6
    record = json.loads((run / "predicted" / "evaluation.json").read_text())
    assert record["slices"] == 8
    assert len(record["guessed_in_submission"]) == 1
    assert record["labelled_slices"] == 0
    assert "submissions, each image and label once: submission.csv" in capfd.readouterr().out
    before = (run / "submission.csv").read_bytes()
    (kaggle / "stage_2_sample_submission.csv").write_text("ID,Label\nID_0_any,0.5\n")
    assert typed(simulate, monkeypatch, *arguments, "resume=true") == 1  # what Kaggle asks is not what was predicted
    assert "got no row for 1 ids, as ID_0_any" in capfd.readouterr().err
    assert (run / "submission.csv").read_bytes() == before


@pytest.mark.slow
def test_siims_studies_and_images_are_predicted_in_its_own_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """train with its two tables, test without; ids as the files have them, as Kaggle knows them."""
    monkeypatch.chdir(tmp_path)
    write_chest_cohort(tmp_path / "siim", patients=24, seed=1, size=48)
    write_chest_cohort(tmp_path / "other", patients=4, seed=2, size=48)
    (tmp_path / "other" / "train").rename(tmp_path / "siim" / "test")
    films = sorted((tmp_path / "siim" / "test").rglob("*.dcm"))
    arguments = [
        *SETTINGS,
        "task=covid_cxr",
        "data.dicom=siim",
        "data.name=siim",
        "data.hash_ids=false",
        "predict=siim-test",
    ]
    assert typed(simulate, monkeypatch, *arguments, "run.name=one") == 0
    table = pd.read_csv(tmp_path / "runs" / "one" / "submission.csv")
    studies = {f"{path.parents[1].name}_study" for path in films}
    assert set(table["id"]) == studies | {f"{path.stem}_image" for path in films}
    said = table.set_index("id").loc[sorted(studies)[0], "PredictionString"].split(" ")
    assert said[::6] == list(COVID_CXR.labels)
    assert sum(map(float, said[1::6])) == pytest.approx(1, abs=1e-5)
    shown = capfd.readouterr().out
    assert "hashes" not in shown
    assert "safe and risky" not in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict=nothing"], "error: predict: expected a prepared set, got none at "),
        (["predict=rsna-test", "baseline=local"], "error: predict: expected one final model, got baseline=local"),
        (["data.name=demo"], "error: data.name: expected a name for your data, got demo"),
    ],
)
def test_what_cannot_be_predicted_is_said_before_anything_trains(
    arguments: list[str],
    sentence: str,
    kaggle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(simulate, monkeypatch, *SETTINGS, "data=rsna", f"data.dicom={kaggle}", *arguments) == 2
    assert capfd.readouterr().err.startswith(sentence)
    assert not (tmp_path / "runs").exists()
