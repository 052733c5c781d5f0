"""The commands as a user types them: what they leave behind, and how they refuse."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_tiny
from edited import edit_json
from tiny import tiny_config

from fl_rsna.audit import audit
from fl_rsna.cli.command import run_command
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.partition import partition
from fl_rsna.prepare import prepare
from fl_rsna.reporting.record.console import console
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.simulation.simulation import simulate
from fl_rsna.task import ICH

Run = Callable[..., tuple[int, str]]
PREPARE = [sys.executable, "-m", "fl_rsna.prepare", "data.dicom=dicom", "data.labels=labels.csv"]
LOOK = threading.Event()  # never set: between two looks at what another process has written, which needs the core
SMALL = [
    "model.name=tiny",
    "model.pretrained=false",
    "model.image_size=32",
    "engine.workers=0",
    "train.batch_size=8",
    "rounds=1",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty folder; its exit code and what it wrote on stderr."""
    monkeypatch.chdir(tmp_path)

    def act(story: Callable[[Config], object], *arguments: str) -> tuple[int, str]:
        few = ["prepare.workers=1"] if story is prepare else []  # a process each, for 48 files
        monkeypatch.setattr(sys, "argv", ["fl_rsna", *arguments, *few])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            run_command(story)
        return int(left.value.code or 0), capfd.readouterr().err

    return act


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    """The DICOM of `write_patients` in this test's folder."""
    return write_patients(tmp_path)


def write_patients(place: Path) -> Path:
    """Write 16 patients of 3 slices as DICOM to `dicom`, with Kaggle's label table beside it; every label has positives."""
    folder, rows = place / "dicom", []
    folder.mkdir()
    specific = [*ICH.specific_labels, None]
    for patient in range(16):
        found = specific[patient % len(specific)]
        for rank in range(3):
            image_id = f"ID_{patient:02d}{rank}"
            hu = np.random.default_rng([patient, rank]).normal(30, 5, (32, 32)).round()
            positive = found is not None and rank == 1
            hu[8:20, 8:20] += 40 * positive
            write_tiny(
                folder / f"{image_id}.dcm",
                image_id,
                f"patient {patient}",
                f"series {patient}",
                5.0 * rank,
                hu=hu.astype(np.int16),
            )
            rows += [(f"{image_id}_{label}", int(positive and label in ("any", found))) for label in ICH.labels]
    pd.DataFrame(rows, columns=["ID", "Label"]).to_csv(place / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `dicom` was prepared under the name mine."""
    place = tmp_path_factory.mktemp("prepared")
    write_patients(place)
    arguments = ["data.dicom=dicom", "data.labels=labels.csv", "data.name=mine", "prepare.workers=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["fl_rsna", *arguments])
        with pytest.raises(SystemExit, match=r"^0$"):
            run_command(prepare)
    return place


@pytest.fixture
def mine(template: Path, tmp_path: Path) -> Path:
    """A test's own copy of `template`."""
    return shutil.copytree(template, tmp_path, dirs_exist_ok=True) / "prepared" / "mine"


def prepared(run: Run) -> None:
    assert run(prepare, "data.dicom=dicom", "data.labels=labels.csv", "data.name=mine") == (0, "")


def left_behind(folder: Path) -> list[str]:
    """What a refused request must not leave: names in the output folders."""
    return [path.name for name in ("prepared", "site_data", "runs") for path in (folder / name).glob("*")]


def test_prepare_partition_simulate(run: Run, dicom: Path, tmp_path: Path) -> None:
    prepared(run)
    assert run(partition, "data.name=mine", "partition=dirichlet", "partition.alpha=5", "partition.num_sites=2") == (
        0,
        "",
    )
    arguments = ["data.name=mine", "partition=dirichlet", "partition.alpha=5", "partition.num_sites=2", *SMALL]
    assert run(simulate, *arguments, "run.name=first") == (0, "")
    names = {path.name for path in (tmp_path / "runs" / "first").iterdir()}
    assert {"report.html", "model.safetensors", "summary.json", "cohort_view.json", "explanations.json"} <= names
    said = (tmp_path / "runs" / "first" / "console.log").read_text()
    assert ("round 1" in said, said.splitlines()[-1]) == (True, "report: runs/first/report.html")
    (tmp_path / "runs" / "first" / "report.html").unlink()
    done = subprocess.run([sys.executable, "-m", "fl_rsna.report", "runs/first"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "report: runs/first/report.html\n")
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert "patient 3" not in (tmp_path / "prepared" / "mine" / "index.parquet").read_bytes().decode("latin1")


def test_prepare_and_partition_leave_a_page_each(run: Run, dicom: Path, tmp_path: Path) -> None:
    prepared(run)
    page = tmp_path / "prepared" / "mine" / "prepare.html"
    first = page.read_bytes()
    page.unlink()
    prepared(run)
    assert page.read_bytes() == first
    assert run(partition, "data.name=mine", "partition.num_sites=2") == (0, "")
    [page] = tmp_path.glob("site_data/*/partition.html")
    assert "test-site" in page.read_text()


def test_a_page_that_cannot_be_written_loses_no_data(run: Run, dicom: Path, tmp_path: Path) -> None:
    prepared(run)
    folder = tmp_path / "prepared" / "mine"
    (folder / "prepare.html").unlink()
    (folder / "prepare.html").mkdir()
    before = {path.name for path in folder.iterdir()}
    code, err = run(prepare, "data.dicom=dicom", "data.labels=labels.csv", "data.name=mine")
    assert (code, err.startswith("error: cannot read or write "), err.count("\n")) == (2, True, 1)
    assert {path.name for path in folder.iterdir()} == before
    assert run(partition, "data.name=mine", "partition.num_sites=2") == (0, "")


@pytest.mark.slow
def test_a_sweep_partitions_as_needed_and_ends_with_one_table(run: Run, mine: Path, tmp_path: Path) -> None:
    arguments = ["--multirun", "data.name=mine", *SMALL, "partition.num_sites=1,2", "run.name=sweep"]
    assert run(simulate, *arguments) == (0, "")
    runs = tmp_path / "runs" / "sweep"
    assert sorted(path.parent.name for path in runs.glob("*/summary.json")) == [
        f"partition.num_sites={n}" for n in (1, 2)
    ]
    assert (runs / "compare.html").exists()
    for n in (1, 2):
        assert "report: " in (runs / f"partition.num_sites={n}" / "console.log").read_text()
    assert len(list((tmp_path / "site_data").iterdir())) == 2


@pytest.mark.slow
def test_simulate_takes_the_cohort_that_is_there(run: Run, mine: Path, tmp_path: Path) -> None:
    assert run(partition, "data.name=mine", "partition=dirichlet", "partition.alpha=5", "partition.num_sites=2")[0] == 0
    assert run(simulate, "data.name=mine", *SMALL, "run.name=taken") == (0, "")
    [cohort] = (tmp_path / "site_data").iterdir()
    assert json.loads((tmp_path / "runs" / "taken" / "summary.json").read_text())["cohort"]["name"] == cohort.name
    assert "kind: dirichlet" in (tmp_path / "runs" / "taken" / "config.yaml").read_text()
    assert run(partition, "data.name=mine", "partition.num_sites=3")[0] == 0
    code, err = run(simulate, "data.name=mine", *SMALL)
    assert (code, "choose one with partition.name=" in err) == (2, True)
    assert run(simulate, "data.name=mine", f"partition.name={cohort.name}", *SMALL, "run.name=named")[0] == 0
    assert json.loads((tmp_path / "runs" / "named" / "summary.json").read_text())["cohort"]["sites"] == 2
    assert run(simulate, "data.name=mine", "partition.num_sites=4", *SMALL, "run.name=adopted")[0] == 0
    assert len(list((tmp_path / "site_data").iterdir())) == 3


@pytest.mark.slow
def test_prepare_follows_a_corrected_file_and_the_sites_of_the_earlier_one_are_refused(
    run: Run, dicom: Path, tmp_path: Path
) -> None:
    """The new file has the size of the old one, other pixels and another patient; the images of the sites stay as they were."""
    prepared(run)
    assert run(partition, "data.name=mine", "partition.num_sites=2") == (0, "")
    images = {path: path.read_bytes() for path in tmp_path.glob("site_data/*/*/images/*.png")}
    size = (dicom / "ID_000.dcm").stat().st_size
    write_tiny(dicom / "ID_000.dcm", "ID_000", "patient X", "series 0", hu=np.full((32, 32), 7, np.int16))
    assert (dicom / "ID_000.dcm").stat().st_size == size
    arguments = [*PREPARE, "data.name=mine"]
    assert (
        "kept 47 files, converted 1 again, 0 new, 0 removed"
        in subprocess.run(arguments, capture_output=True, text=True).stdout
    )
    assert "kept all 48 files: none has changed" in subprocess.run(arguments, capture_output=True, text=True).stdout
    index = pd.read_parquet("prepared/mine/index.parquet").set_index("image_id")
    assert index.loc["ID_000", "patient_id"] != index.loc["ID_001", "patient_id"]
    assert index.loc["ID_000", "hu_mean"] == 7
    code, err = run(
        simulate, "data.name=mine", "data.dicom=dicom", "data.labels=labels.csv", *SMALL, "partition.num_sites=2"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "was made from other data than prepared/mine holds now; delete it to partition again" in err
    assert {path: path.read_bytes() for path in images} == images


def test_same_request_twice_is_the_same_answer(run: Run, dicom: Path) -> None:
    prepared(run)
    prepared(run)
    assert run(partition, "data.name=mine") == (0, "")
    assert run(partition, "data.name=mine") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing=1"], "nothing: no such setting"),
        (["data.size=large"], "data.size: Value 'large' of type 'str' could not be converted to Integer"),
        (["data.size=8"], "data.size: expected 16 or more, got 8"),
        (["model=resnet"], "model: expected one of densenet121"),
        (
            ["data.dicom=absent", "data.labels=labels.csv"],
            "data.dicom: expected a folder, a zip archive or a CSV or Parquet list of files, got absent",
        ),
        (
            ["data.dicom=dicom", "data.labels=absent.csv"],
            "data.labels: expected a CSV or Parquet table of labels at absent.csv",
        ),
        (["data.dicom=dicom"], "data.labels: expected a table of labels, got nothing"),
        (
            ["data.dicom=dicom", "data.labels=labels.csv", "data.name=demo"],
            "data.name: expected a name for your data, got demo",
        ),
        (["data.labels=labels.csv"], "data.dicom: expected a folder, archive or list, got nothing"),
        (["rounds=1=2"], "rounds=1=2: expected key=value settings"),
        (["run.name=${nowhere}"], "run.name: Interpolation key 'nowhere' not found"),
    ],
)
def test_prepare_refuses_in_one_sentence(
    run: Run, dicom: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, err = run(prepare, "data.name=mine", *arguments)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1
    assert left_behind(tmp_path) == []


def test_a_few_slices_and_the_whole_label_table_are_enough_to_begin(run: Run, dicom: Path, tmp_path: Path) -> None:
    for patient in range(3):
        (dicom / f"ID_{patient:02d}1.dcm").unlink()
    (dicom / "stray.txt").write_text("not an image")
    arguments = ["data.dicom=dicom", "data.labels=labels.csv", "data.name=mine"]
    code, err = run(prepare, *arguments, "data.max_rejected=0.01")
    assert (code, err.startswith("error: data.max_rejected: expected at most 0.01 of the files")) == (2, True)
    assert "got 1 of 46 (1 not_dicom); see prepared/mine.part/rejected.csv" in err
    assert run(prepare, *arguments) == (0, "")
    facts = json.loads((tmp_path / "prepared" / "mine" / "prepare.json").read_text())
    assert (facts["slices"], facts["labels_without_image"], facts["rejected"]) == (45, 3, {"not_dicom": 1})


def test_rsnas_layout_is_prepared_with_its_test_set(run: Run, dicom: Path, tmp_path: Path) -> None:
    (tmp_path / "rsna").mkdir()
    dicom.rename(tmp_path / "rsna" / "stage_2_train")
    (tmp_path / "labels.csv").rename(tmp_path / "rsna" / "stage_2_train.csv")
    write_tiny(tmp_path / "rsna" / "stage_2_test" / "ID_t.dcm", "ID_t")
    assert run(prepare, "data.dicom=rsna", "data.name=mine") == (0, "")
    assert len(pd.read_parquet(tmp_path / "prepared" / "mine" / "index.parquet")) == 48
    assert pd.read_parquet(tmp_path / "prepared" / "mine-test" / "index.parquet")["image_id"].tolist() == ["ID_t"]
    assert run(partition, "data.name=mine")[0] == 0


def test_a_test_set_without_a_slice_does_not_hide_the_set_that_was_prepared(
    run: Run, dicom: Path, tmp_path: Path
) -> None:
    dicom.rename(tmp_path / "stage_2_train")
    (tmp_path / "stage_2_test").mkdir()
    (tmp_path / "stage_2_test" / "notes.txt").write_text("no DICOM")
    code, err = run(prepare, "data.dicom=stage_2_train", "data.labels=labels.csv", "data.name=mine")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: data.dicom: expected at least one usable image for mine-test, got none in 1 files")
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["mine"]
    assert (tmp_path / "prepared" / "mine" / "prepare.html").exists()


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_worker_and_is_finished(run: Run, dicom: Path, tmp_path: Path) -> None:
    """The command itself with its worker processes, killed once its journal has begun."""
    arguments = [*PREPARE, "prepare.workers=2"]
    with subprocess.Popen([*arguments, "data.name=killed"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        part = tmp_path / "prepared" / "killed.part"
        while running.poll() is None and not list(part.glob("images/*.png")):
            LOOK.wait(0.01)
        running.kill()
        running.communicate()  # ends when no worker holds the pipe any more
    assert not (tmp_path / "prepared" / "killed").exists()
    for name in ("killed", "whole"):
        assert run(prepare, "data.dicom=dicom", "data.labels=labels.csv", f"data.name={name}") == (0, "")
    folders = [tmp_path / "prepared" / name for name in ("killed", "whole")]
    killed, whole = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.p*") if p.is_file()} for f in folders)
    assert killed == whole


def test_partition_refuses_what_the_data_cannot_give(run: Run, mine: Path, tmp_path: Path) -> None:
    code, err = run(partition, "data.name=absent")
    assert (code, "run python -m fl_rsna.prepare first" in err) == (2, True)
    code, err = run(partition, "data.name=mine", "partition.num_sites=9")
    assert (code, err.startswith("error: partition.num_sites: expected at least 19 patients for 9 sites")) == (2, True)
    labels = pd.read_csv(tmp_path / "labels.csv").assign(Label=0)
    labels.to_csv(tmp_path / "none.csv", index=False)
    assert run(prepare, "data.dicom=dicom", "data.labels=none.csv", "data.name=none")[0] == 0
    code, err = run(partition, "data.name=none")
    assert (code, "expected images with the label any" in err, "got none of 48 in" in err) == (2, True, True)
    assert not (tmp_path / "site_data").exists()


def test_data_of_another_task_is_refused(run: Run, mine: Path, tmp_path: Path) -> None:
    facts = tmp_path / "prepared" / "mine" / "prepare.json"
    edit_json(facts, {"task": "chest"})
    for story in (partition, simulate):
        code, err = run(story, "data.name=mine")
        assert (code, "data.task: expected data prepared for task ich" in err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_an_empty_site_is_refused_and_no_run_is_left(run: Run, mine: Path, tmp_path: Path) -> None:
    assert run(partition, "data.name=mine", "partition.num_sites=2", "partition.name=two")[0] == 0
    index = tmp_path / "site_data" / "two" / "site-2" / "index.csv"
    index.write_text(index.read_text().splitlines()[0] + "\n")
    code, err = run(simulate, "data.name=mine", "partition.num_sites=2", "partition.name=two", *SMALL)
    assert (code, "site-2, got an empty" in err) == (2, True)
    assert list((tmp_path / "runs").iterdir()) == []


def test_all_sites_failing_exits_1_without_a_model(run: Run, mine: Path, tmp_path: Path) -> None:
    code, err = run(simulate, "data.name=mine", "train.learning_rate=1e30", "run.name=bad", *SMALL)
    assert code == 1
    assert err.startswith("error: ")
    assert "exploded" in err
    assert not list((tmp_path / "runs").rglob("model.safetensors"))
    assert json.loads((tmp_path / "runs" / "bad" / "summary.json").read_text())["status"] == "failed"


def test_an_existing_run_is_never_overwritten(run: Run, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    code, err = run(simulate, "data.name=mine", "run.name=mine", *SMALL)
    assert (code, "run.name: expected a new run, got the existing" in err) == (2, True)


def test_a_cohort_is_enough_without_the_data_it_came_from(run: Run, mine: Path, tmp_path: Path) -> None:
    assert run(partition, "data.name=mine", "partition.num_sites=2")[0] == 0
    shutil.rmtree(tmp_path / "prepared")
    assert run(simulate, "data.name=mine", "partition.num_sites=2", *SMALL)[0] == 0


def test_another_demo_is_not_taken_for_this_one(run: Run, tmp_path: Path) -> None:
    arguments = [
        "demo.patients=9",
        "demo.slices_per_series=4",
        "demo.size=32",
        "partition.num_sites=2",
    ]
    assert run(simulate, *arguments, *SMALL, "run.name=first") == (0, "")
    assert run(simulate, *arguments, *SMALL, "run.name=second") == (0, "")
    code, err = run(simulate, *arguments, *SMALL, "demo.patients=10")
    assert (code, err.startswith("error: demo.patients: expected 9, as prepared/demo was made with, got 10")) == (
        2,
        True,
    )
    hashes = {
        json.loads((tmp_path / "runs" / name / "summary.json").read_text())["model_sha256"]
        for name in ("first", "second")
    }
    assert len(hashes) == 1


def test_what_another_command_reads_is_named(run: Run, dicom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(console, "print", lambda text, **how: shown.append(str(text)))
    arguments = ["data.dicom=dicom", "data.labels=labels.csv", "data.name=mine", "rounds=3", "data.size=32"]
    assert run(prepare, *arguments) == (0, "")
    assert shown[0] == "rounds: has no effect here, which would need python -m fl_rsna.simulate"
    assert not any(line.startswith("data.size") for line in shown)


def test_the_configuration_is_printed(run: Run) -> None:
    assert run(simulate, "--cfg", "job")[0] == 0


def test_report_of_no_run_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "fl_rsna.report", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("error: expected a run folder")) == (2, True)


@pytest.mark.slow
def test_audit_of_a_cohort_exits_1_once_a_patient_is_at_two_sites(run: Run, mine: Path, tmp_path: Path) -> None:
    assert run(partition, "data.name=mine", "partition.num_sites=2", "partition.name=two")[0] == 0
    assert audit(["cohort=site_data/two", "out=clean.json", "strict=true"]) == 0
    verdict = {"code": 0, "sentence": "CLEAN: none of 16 patients in more than one of 5 places"}
    assert json.loads((tmp_path / "clean.json").read_text())["verdict"] == verdict
    sites = [tmp_path / "site_data" / "two" / f"site-{number}" / "index.csv" for number in (1, 2)]
    sites[1].write_text(sites[1].read_text() + sites[0].read_text().splitlines()[1] + "\n")
    command = [sys.executable, "-m", "fl_rsna.audit", "cohort=site_data/two"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1].startswith("LEAK: 1 of 16 patients in more than one of 5 places; ")
    done = subprocess.run([*command, "sites=2", "out=refused.json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr == "error: sites: no such setting; did you mean site=2?\n"
    assert not (tmp_path / "refused.json").exists()


def test_start_run_writes_config_first(cohort: Cohort, tmp_path: Path) -> None:
    start_run(tmp_path / "run", tiny_config(), cohort, "cpu", ())
    assert "image_size: 32" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.slow
def test_a_noisy_site_is_recorded_told_and_undone(run: Run, mine: Path, tmp_path: Path) -> None:
    arguments = [
        "data.name=mine",
        "partition.num_sites=2",
        "partition.noise={site-1: {labels: 0.5, hu_shift: 9, blur: 3}}",
    ]
    assert run(partition, *arguments) == (0, "")
    (noisy,) = (tmp_path / "site_data").iterdir()
    page = (noisy / "partition.html").read_text()
    assert "<td>site-1</td><td>50% of training labels wrong, +9 HU, blur of 3 mm</td>" in page
    assert run(simulate, "data.name=mine", *SMALL, "run.name=noisy") == (0, "")  # takes the cohort that is there
    assert "50% of training labels wrong" in (tmp_path / "runs" / "noisy" / "report.html").read_text()
    assert run(partition, *arguments[:2]) == (0, "")
    (true,) = (path for path in (tmp_path / "site_data").iterdir() if path != noisy)
    for site in ("site-1", "site-2", "test-site"):
        assert (true / site / "index.csv").read_bytes() == (noisy / site / "index.csv").read_bytes()
    assert "Noise" not in (true / "partition.html").read_text()


def test_noise_that_cannot_be_is_refused_in_one_sentence(run: Run, mine: Path, tmp_path: Path) -> None:
    refused = {
        "partition.noise.site-7.labels=0.1": "partition.noise.site-7: no such site; expected all or one of site-1",
        "partition.noise.site-1.fog=2": "partition.noise.site-1.fog: no such setting",
        "partition.noise=0.2": "partition.noise: ",
    }
    for story in (partition, simulate):
        for argument, said in refused.items():
            code, err = run(story, "data.name=mine", "partition.num_sites=2", argument)
            assert (code, err.startswith(f"error: {said}"), err.count("\n")) == (2, True, 1)
    assert left_behind(tmp_path) == ["mine"]
