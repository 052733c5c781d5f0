"""evaluate as a user types it: what it leaves behind, and how it refuses."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from composed import read_own
from dicom_files import write_tiny
from package import DATA
from saved_runs import SETTINGS, labels_csv, write_tiny_model, write_tiny_run
from tiny import rewrite_site, tiny_cohort, tiny_index, tiny_prepared

from fl_rsna.cohort.prepared.index import hash_id
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.cohort.sites.ancestry import own_link
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.evaluate import main
from fl_rsna.evaluation.settings import EvaluateConfig
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.learning.metrics.operating_points import calibrate
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName, Norm
from fl_rsna.task import ICH

PATIENTS, SLICES = 6, 3
RSNA = DATA / "rsna"  # real slices, where a checkout has them


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 patients of 3 slices, and files that are none; labels.csv knows all but the last patient; prepared/kept."""
    folder, labels = tmp_path_factory.mktemp("made"), dict[str, str | None]()
    for patient in range(PATIENTS):
        for rank in range(SLICES):
            image_id = f"ID_{patient:02d}{rank}"
            hu = np.random.default_rng([patient, rank]).normal(30, 5, (40, 40)).round().astype(np.int16)
            hu[8:20, 8:20] += 40 * (patient % 2)
            write_tiny(folder / "dicom" / f"{image_id}.dcm", image_id, f"patient {patient}", f"s{patient}", rank, hu=hu)
            if patient < PATIENTS - 1:
                labels[image_id] = ICH.specific_labels[patient] if patient % 2 else None
    labels_csv(folder / "labels.csv", labels)
    (folder / "dicom" / "readme.txt").write_text("not a slice")
    (folder / "dicom" / "ID_0badfeed.dcm").write_bytes((folder / "dicom" / "ID_000.dcm").read_bytes()[:-900])
    request = Request(task=ICH, image=ImageKind.hu, size=32, hash_ids=True, salt="")
    files = find_files(folder / "dicom")
    prepare_folder(folder / "prepared" / "kept", request, files, None, max_rejected=1, convert=convert_here)
    return folder


@pytest.fixture
def dicom(made: Path, tmp_path: Path) -> Path:
    """The folder dicom, labels.csv and prepared/kept, here."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "dicom"


def evaluated(*settings: str, out: str = "out") -> Path:
    main(read_own(EvaluateConfig, [*settings, f"out={out}"]))
    return Path(out)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def probabilities(folder: Path) -> pd.DataFrame:
    table = pd.read_parquet(folder / "predictions.parquet").set_index("image_id")
    return table[[f"probability_{label}" for label in ICH.labels]]


def test_every_slice_is_scored_labelled_or_not(dicom: Path, run_folder: Path) -> None:
    out = evaluated(f"model={run_folder}", "data.dicom=dicom", "data.labels=labels.csv")
    found, record = probabilities(out), read(out, "evaluation.json")
    assert (len(found), record["slices"], record["exams"], record["patients"]) == (18, 18, 6, 6)
    assert (record["labelled_slices"], read(out, "scorecard.json")["slices"]) == (15, 15)
    assert sum(record["rejected"].values()) == len(pd.read_csv(out / "rejected.csv")) == 2
    rows = pd.read_csv(out / "submission.csv").set_index("ID")["Label"]
    assert len(rows) == (18 + 1) * len(ICH.labels)  # the damaged slice, but not readme.txt
    assert record["guessed_in_submission"] == ["ID_0badfeed"]
    assert rows["ID_0badfeed_epidural"] == pytest.approx(found["probability_epidural"].mean(), rel=1e-6)
    for image_id, row in found.iterrows():
        assert rows[f"{image_id}_any"] == pytest.approx(row.max(), rel=1e-6)
        assert rows[f"{image_id}_subdural"] == pytest.approx(row["probability_subdural"], rel=1e-6)
    exams = pd.read_csv(out / "exams.csv")
    assert len(exams) == 6
    assert exams["label_any"].isna().sum() == 1
    table = pd.read_csv(out / "predictions.csv")
    pd.testing.assert_frame_equal(table[["image_id"]], pd.read_parquet(out / "predictions.parquet")[["image_id"]])
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.html", "evaluation.json", "exams.csv", "predictions.csv", "predictions.parquet", "rejected.csv", "scorecard.json",
        "submission.csv",
    ]  # fmt: skip
    assert "patient 3" not in "".join(path.read_bytes().decode("latin1") for path in out.iterdir())


def test_labels_change_scores_and_nothing_else(dicom: Path, run_folder: Path, tmp_path: Path) -> None:
    """Thresholds and predictions are the run's: what is true of the scored slices cannot move them."""
    shutil.copytree(run_folder, "run")
    summary = read(Path("run"), "summary.json")
    Path("run/summary.json").write_text(json.dumps(summary | {"operating_points": SETTINGS}))
    true = evaluated("model=run", "data.name=kept", "data.labels=labels.csv")
    truth = read_labels(Path("labels.csv"), ICH)
    turned = {str(image): None if row["any"] else "epidural" for image, row in truth.iterrows()}
    labels_csv(Path("labels.csv"), turned)
    other = evaluated("model=run", "data.name=kept", "data.labels=labels.csv", out="other")
    without = evaluated("model=run", "data.name=kept", out="without")
    for name in ("submission.csv", "rejected.csv"):
        assert (true / name).read_bytes() == (other / name).read_bytes() == (without / name).read_bytes()
    for folder in (true, other, without):
        assert read(folder, "evaluation.json")["operating_points"]["slice"] == SETTINGS["slice"]
    points = [read(folder, "scorecard.json")["slice"]["any"]["points"] for folder in (true, other)]
    assert [point["sensitivity_95"]["threshold"] for point in points] == [0.2, 0.2]
    positives = [point["sensitivity_95"]["tp"] + point["sensitivity_95"]["fn"] for point in points]
    assert positives == [6, 9]
    assert points[0]["youden"] is None
    assert not (without / "scorecard.json").exists()


@pytest.mark.parametrize("of", ["data.dicom=dicom", "data.name=kept"])
def test_labels_of_which_none_fits_are_refused(dicom: Path, run_folder: Path, of: str) -> None:
    Path("labels.csv").write_text(Path("labels.csv").read_text().replace("ID_", "OTHER_"))
    with pytest.raises(
        ValueError, match=r"^data\.labels: expected labels of these images, got none for .*OTHER_"
    ) as no:
        evaluated(f"model={run_folder}", of, "data.labels=labels.csv")
    assert "\n" not in str(no.value)
    assert not Path("out").exists()


@pytest.mark.parametrize("of", ["data.dicom=dicom", "data.name=kept"])
def test_labels_by_the_names_of_files_give_the_same_scorecard_and_say_so(
    dicom: Path, run_folder: Path, of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluated(f"model={run_folder}", of, "data.labels=labels.csv")
    assert "15 of 18 slices with labels" in capsys.readouterr().out
    truth = read_labels(Path("labels.csv"), ICH)
    truth.set_axis("dicom/" + truth.index + ".DCM").rename_axis("Image").to_csv("files.csv")
    other = evaluated(f"model={run_folder}", of, "data.labels=files.csv", out="other")
    assert "data.labels: 15 of 15 ids have a folder or a suffix, which was left out" in capsys.readouterr().out
    assert (plain / "scorecard.json").read_bytes() == (other / "scorecard.json").read_bytes()


def test_labels_that_lie_beside_and_fit_nothing_are_a_warning(dicom: Path, run_folder: Path) -> None:
    """Nobody asked for them."""
    dicom.rename("stage_2_train")
    Path("labels.csv").rename("stage_2_train.csv")
    out = evaluated(f"model={run_folder}", "data.dicom=stage_2_train")
    assert (out / "scorecard.json").exists()
    table = Path("stage_2_train.csv")
    table.write_text(table.read_text().replace("ID_", "OTHER_"))
    other = evaluated(f"model={run_folder}", "data.dicom=stage_2_train", out="other")
    assert "beside them has no row of any of these 18 images" in " ".join(read(other, "evaluation.json")["warnings"])
    assert not (other / "scorecard.json").exists()


def test_operating_points_and_temperatures_are_applied(dicom: Path, run_folder: Path, cohort: Cohort) -> None:
    """Of the default network, whose probabilities are far enough from each other for all of it to show."""
    write_tiny_run(Path("run"), cohort, SETTINGS, name=ModelName.efficientnet_lite0, pretrained=True)
    out = evaluated("model=run", "data.name=kept")
    table = pd.read_parquet(out / "predictions.parquet")
    before = table["probability_any"].to_numpy(np.float64)
    others = table[[f"calibrated_{label}" for label in ICH.specific_labels]].max(axis=1)
    own = calibrate(before, 2.0)
    np.testing.assert_allclose(table["calibrated_any"], np.maximum(own, others))
    assert (own < others).any(), "or nothing was bounded"
    np.testing.assert_allclose(table["calibrated_subdural"], table["probability_subdural"], rtol=1e-5)
    assert (table["any_at_sensitivity_95"] == (before >= 0.2)).all()
    assert "any_at_youden" not in table  # it could not be chosen
    rows = pd.read_csv(out / "submission.csv").set_index("ID")["Label"]
    after = table.set_index("image_id")["calibrated_any"]
    assert [rows[f"{image}_any"] for image in after.index] == pytest.approx(after.to_numpy(), rel=1e-6)
    record = read(out, "evaluation.json")  # ids are hashed here and were not in training
    assert record["seen_in_training"] == {"train": 0, "validation": 0, "unknown": 18}
    assert record["unknown_in_training"] == "ids are hashed in one and as in the files in the other"
    assert record["warnings"][-1].startswith("unknown: nobody checked whether any of these patients had a part")


def test_settings_of_another_model_are_not_applied(dicom: Path, cohort: Cohort) -> None:
    write_tiny_run(Path("run"), cohort, SETTINGS)
    write_tiny_model(Path("run/checkpoints/best.safetensors"), norm=Norm.local, seed=1)
    out = evaluated("model=run/checkpoints/best.safetensors", "data.name=kept")
    record = read(out, "evaluation.json")
    assert record["operating_points"] is None
    assert "FedBN" in record["model"]["instead_of_personal_parts"]
    assert record["warnings"][0] == record["model"]["instead_of_personal_parts"]


def test_a_model_file_alone_a_zip_and_a_kept_preparation_give_the_same(dicom: Path, run_folder: Path) -> None:
    whole = evaluated(f"model={run_folder}", "data.name=kept")
    shutil.copy(run_folder / "model.safetensors", "alone.safetensors")
    with zipfile.ZipFile("scans.zip", "w") as archive:
        for path in sorted(dicom.iterdir()):
            archive.write(path, path.name)
    settings = ["model=alone.safetensors", "data.dicom=scans.zip", "data.name=zipped"]
    first = evaluated(*settings, out="first")
    second = evaluated("model=alone.safetensors", "data.name=zipped", out="second")
    pd.testing.assert_frame_equal(probabilities(first), probabilities(whole))
    pd.testing.assert_frame_equal(probabilities(second), probabilities(whole))
    assert Path("prepared/zipped/prepare.json").exists()
    assert "nobody checked" in read(first, "evaluation.json")["warnings"][0]


def test_a_file_moved_away_from_its_run_says_the_same_to_the_bit(dicom: Path, cohort: Cohort) -> None:
    """Of images stored at another size than the default, with the run's temperatures and thresholds, and the set's shift."""
    facts = {"platt": LINES, "operating_points": SETTINGS, "strategy": "ditto"}
    run = write_tiny_run(Path("run"), cohort, SETTINGS, size=48, facts=facts)
    shutil.copy(run / "model.safetensors", "moved.safetensors")
    whole = evaluated("model=run", "data.dicom=dicom", "shift=true")
    moved = evaluated("model=moved.safetensors", "data.dicom=dicom", "shift=true", out="moved")
    for name in ("predictions.parquet", "exams.csv", "submission.csv", "submission_risky.csv"):
        assert (whole / name).read_bytes() == (moved / name).read_bytes()
    table = pd.read_parquet(moved / "predictions.parquet")
    assert {"calibrated_any", "any_at_sensitivity_95", "risky_subdural"} <= set(table)
    records = [read(folder, "evaluation.json") for folder in (whole, moved)]
    assert records[0]["scored"]["size"] == records[1]["scored"]["size"] == 48
    assert records[0]["operating_points"] == records[1]["operating_points"]
    assert "Ditto" in records[1]["model"]["instead_of_personal_parts"]


def test_a_site_is_scored_by_part_and_left_as_it_is(own_cohort: Cohort) -> None:
    write_tiny_run(Path("run"), own_cohort)
    site = own_cohort.site_folder("site-1")
    before = sorted(path.name for path in site.iterdir())
    held_out = evaluated("model=run", f"site={own_cohort.site_folder('test-site')}")
    validation = evaluated("model=run", f"site={site}", out="validation")
    everything = evaluated("model=run", f"site={site}", "part=all", out="all")
    index = pd.read_csv(site / "index.csv")
    assert read(held_out, "evaluation.json")["warnings"] == []
    assert read(validation, "evaluation.json")["scored"]["part"] == "validation"
    assert set(probabilities(validation).index) == set(index.loc[index["split"] == "validation", "image_id"])
    seen = read(everything, "evaluation.json")["seen_in_training"]
    assert seen == {
        "train": int((index["split"] == "train").sum()),
        "validation": int((index["split"] == "validation").sum()),
        "neither": 0,
    }
    assert "say nothing about new patients" in read(everything, "evaluation.json")["warnings"][0]
    assert sorted(path.name for path in site.iterdir()) == before


def test_another_slice_of_a_patient_who_trained_counts_as_seen(own_cohort: Cohort) -> None:
    write_tiny_run(Path("run"), own_cohort)
    index = pd.read_csv(own_cohort.site_folder("site-1") / "index.csv")
    patient = index.loc[index["split"] == "train", "patient_id"].iloc[0]
    write_tiny(Path("dicom/new.dcm"), "1.2.3", patient, hu=np.full((32, 32), 30, np.int16))
    out = evaluated("model=run", "data.dicom=dicom", "data.hash_ids=false")
    assert read(out, "evaluation.json")["seen_in_training"] == {"train": 1, "validation": 0, "neither": 0}


SECRET = "5637ebbab8769328365851fd92e225db"


@pytest.mark.parametrize("beside", ["run", "alone"])
@pytest.mark.parametrize(("salt", "answer"), [(SECRET, "train"), ("another", "unknown"), (None, "unknown")])
def test_follow_up_scans_of_training_patients_are_seen_or_unknown(
    tmp_path: Path, salt: str | None, answer: str, beside: str
) -> None:
    """Hashed under the salt of the training data, under another, or not at all; asked of a run or of its file by itself."""
    trained = tiny_cohort(tmp_path / "cohort", ids=id_scheme(True, SECRET))
    for path in trained.folder.glob("*/index.csv"):
        table = pd.read_csv(path, dtype=str)
        table.assign(patient_id=[hash_id(name, SECRET) for name in table["patient_id"]]).to_csv(path, index=False)
    index = pd.read_csv(trained.site_folder("site-1") / "index.csv").query("split == 'train'")
    link = own_link(trained.folder, trained.sha256, trained.ids, None)
    model = write_tiny_run(Path("run"), trained, facts={"ancestry": [link.to_json()]})
    if beside == "alone":
        model = Path(shutil.copy(model / "model.safetensors", "alone.safetensors"))
    patients = [
        name for name in tiny_index()["patient_id"].unique() if hash_id(name, SECRET) in set(index["patient_id"])
    ]
    for number, patient in enumerate(patients):
        write_tiny(Path(f"dicom/{number}.dcm"), f"1.2.{number}", patient, hu=np.full((32, 32), 30, np.int16))
    settings = ["data.hash_ids=false"] if salt is None else [f"data.salt={salt}"]
    record = read(evaluated(f"model={model}", "data.dicom=dicom", *settings), "evaluation.json")
    others = {"neither": 0} if answer == "train" else {"unknown": len(patients)}
    assert record["seen_in_training"] == {"train": len(patients) * (answer == "train"), "validation": 0, **others}
    (warning,) = record["warnings"]
    assert ("unknown" in warning) == (answer == "unknown")
    assert SECRET not in json.dumps(record)


LINES = {
    label: {"slope": 0.8, "intercept": -0.2, "prevalence": 0.3} if label in ("any", "subdural") else None
    for label in ICH.labels
}


def test_two_readings_lie_side_by_side_and_no_label_has_a_part_in_them(
    dicom: Path, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_run(Path("run"), cohort, SETTINGS, facts={"platt": LINES})
    out = evaluated("model=run", "data.name=kept", "data.labels=labels.csv", "shift=true")
    said = capsys.readouterr().out
    labels_csv(Path("labels.csv"), {f"ID_{p:02d}{r}": "epidural" for p in range(PATIENTS) for r in range(SLICES)})
    other = evaluated("model=run", "data.name=kept", "data.labels=labels.csv", "shift=true", out="other")
    without = evaluated("model=run", "data.name=kept", "shift=true", out="without")
    for folder in (other, without):
        assert read(folder, "evaluation.json")["shift"] == read(out, "evaluation.json")["shift"]
        assert (folder / "submission_risky.csv").read_bytes() == (out / "submission_risky.csv").read_bytes()
    assert (out / "submission_safe.csv").read_bytes() == (out / "submission.csv").read_bytes()
    table = pd.read_parquet(out / "predictions.parquet")
    assert (table["safe_any"] == table["calibrated_any"]).all()  # both raised to the greatest of the others
    np.testing.assert_allclose(table["safe_subdural"], table["calibrated_subdural"])
    np.testing.assert_allclose(table["risky_epidural"], table["safe_epidural"])  # nobody knows how honest it is
    assert not np.allclose(table["risky_subdural"], table["safe_subdural"])
    rows = pd.read_csv(out / "submission_risky.csv").set_index("ID")["Label"]
    assert rows["ID_000_subdural"] == pytest.approx(table.set_index("image_id").loc["ID_000", "risky_subdural"])
    shift = read(out, "evaluation.json")["shift"]
    assert shift["prevalence"]["epidural"]["here"] is None
    found = shift["prevalence"]["subdural"]
    assert found["of_the_model"] == 0.3
    assert found["here"] == pytest.approx(0.5 / 19)  # as far as 18 slices go: no interval
    assert found["low"] is found["high"] is None
    assert shift["words"].startswith("'match.prevalence={any: ")
    assert shift["words"] in said
    assert "safe: submission_safe.csv, which is submission.csv: assumes that" in said
    cards = [read(out, f"scorecard_{name}.json") for name in ("safe", "risky")]
    assert cards[0]["log_loss"]["value"] != cards[1]["log_loss"]["value"]
    assert not (without / "scorecard_safe.json").exists()


REFUSED = [
    (["data.dicom=dicom"], "^model: expected model=<run folder or .safetensors file>, got nothing"),
    (["model=nowhere", "data.dicom=dicom"], "^model: .*does not exist"),
    (["model=dicom", "data.dicom=dicom"], "^model: no model.safetensors in dicom"),
    (["model=labels.csv", "data.dicom=dicom"], "^model: expected a .safetensors file in labels.csv, got"),
    (["model=run"], "^data.dicom: expected one of .* got nothing"),
    (["model=run", "data.dicom=dicom", "site=x"], "^data.dicom: expected one of .* got site and data.dicom"),
    (["model=run", "data.dicom=nowhere"], "^data.dicom: .*does not exist"),
    (["model=run", "data.name=nowhere"], "^data.name: no prepared data"),
    (["model=run", "site=dicom"], "site.json"),
    (["model=run", "data.dicom=dicom", "part=train"], "^part: expected only with site="),
    (["model=run", "site=x", "data.labels=labels.csv"], "^data.labels: expected nothing with site="),
    (["model=run", "data.name=x", "data.size=64"], "^data.size: expected nothing with data.name="),
    (["model=run", "data.dicom=dicom", "data.image=windows"], "^data.image: expected images of kind hu"),
    (["model=run", "data.dicom=dicom", "data.max_rejected=0"], "^data.max_rejected: expected at most 0"),
    (["model=run", "data.dicom=dicom", "data.test_set=true"], "^data.test_set: expected stage_2_test"),
    (["model=run", "data.dicom=dicom", "shift=true"], "^shift: expected a model whose run says how honest"),
    (["model=run", "data.dicom=dicom", "out=dicom"], "^out: expected a new folder"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=lambda value: " ".join(value)[:60])
def test_a_request_that_cannot_be_met_leaves_nothing(
    dicom: Path, run_folder: Path, settings: list[str], sentence: str
) -> None:
    shutil.copytree(run_folder, "run")
    with pytest.raises(ValueError, match=sentence) as refused:
        main(read_own(EvaluateConfig, ["out=evaluations/one", *settings]))
    assert "\n" not in str(refused.value)
    assert not list(Path("evaluations").glob("*"))


@pytest.mark.parametrize("made", ["prepared", "site"])
def test_windows_are_refused_by_a_model_of_hounsfield_units(made: str, run_folder: Path, tmp_path: Path) -> None:
    if made == "site":
        settings = [f"site={tiny_cohort(tmp_path / 'w', image=ImageKind.windows).site_folder('site-1')}"]
    else:
        prepared = tiny_prepared(tmp_path / "prepared" / "w", image=ImageKind.windows)
        prepared.index.to_parquet(prepared.folder / "index.parquet")
        facts = {"task": "ich", "labels": list(ICH.labels), "image": "windows", "size": 32, "index_sha256": ""}
        (prepared.folder / "prepare.json").write_text(json.dumps(facts))
        settings = ["data.name=w"]
    with pytest.raises(ValueError, match="expected images of kind hu, which the model was trained on, got windows"):
        evaluated(f"model={run_folder}", *settings)


def test_the_command_ends_in_a_sentence_and_a_code(tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "fl_rsna.evaluate", "modell=x"]
    done = subprocess.run(typed, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: modell: no such setting; did you mean model=x?")


@pytest.mark.slow
@pytest.mark.skipif(not RSNA.is_dir(), reason=f"no real RSNA slices at {RSNA}")
def test_real_slices_come_out_under_kaggles_own_names(run_folder: Path) -> None:
    """Every row of Kaggle's table has a prediction, and so has the slice that nobody labelled."""
    out = evaluated(f"model={run_folder}", f"data.dicom={RSNA}", "data.size=32")
    rows = pd.read_csv(out / "submission.csv")
    asked = set(pd.read_csv(RSNA / "stage_2_train.csv")["ID"])
    unlabelled = {f"ID_000000e27_{label}" for label in ICH.labels}
    assert set(rows["ID"]) == asked | unlabelled
    assert len(rows) == len(asked | unlabelled)
    assert read(out, "evaluation.json")["labelled_slices"] == 58
    exams = pd.read_csv(out / "exams.csv")
    assert exams["slices"].max() == 36


@pytest.mark.parametrize(
    "place", ["federated/model.safetensors", "alone/site-1/model.safetensors", "checkpoints/best.safetensors"]
)
def test_a_folder_without_a_final_model_says_where_one_is(place: str) -> None:
    write_tiny_model(Path("runs/gap") / place)
    with pytest.raises(
        ValueError, match=rf"^model: no model\.safetensors in runs/gap, .* give model=runs/gap/{place}$"
    ):
        evaluated("model=runs/gap", "data.dicom=dicom")


def test_a_label_that_a_site_does_not_annotate_is_left_out_of_its_scorecard(own_cohort: Cohort) -> None:
    folder = own_cohort.site_folder("site-2")
    rewrite_site(folder, noise={"unannotated": ["epidural"]})
    model = write_tiny_model(Path("model.safetensors"))
    evaluated(f"model={model}", f"site={folder}", "part=train")
    card = json.loads(Path("out/scorecard.json").read_text())
    assert card["slices"] == len(pd.read_csv(folder / "index.csv").query("split == 'train'"))
    assert set(card["slice"]["epidural"]["auroc"].values()) == {None}
    assert card["slice"]["any"]["auroc"]["value"] is not None
    assert pd.read_csv("out/predictions.csv")["label_epidural"].isna().all()
