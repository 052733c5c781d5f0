"""Hospitals that never saw each other's data make one cohort."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from edited import edit_json
from tiny import SIZE, rewrite_site, tiny_config, tiny_prepared

from fl_rsna.cohort.audit.on_disk import read_on_disk
from fl_rsna.cohort.audit.overlap import find_shared, judge
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.own_site import write_own_site, write_own_test_site
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

HOSPITALS = ("hospital-a", "hospital-b")


def of_patients(prepared: Prepared, first: str) -> Prepared:
    """The same folder, patients called after a hospital."""
    index = prepared.index.assign(
        **{name: first + prepared.index[name] for name in ("patient_id", "study_id", "series_id")}
    )
    return Prepared(
        folder=prepared.folder, task=prepared.task, labels=prepared.labels, image=prepared.image, size=SIZE,
        index_sha256=prepared.index_sha256, index=index, ids=prepared.ids,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Cohort:
    """Each where only its own data is; the sites' folders are then brought together to be looked at."""
    for name in HOSPITALS:
        prepared = of_patients(tiny_prepared(tmp_path / name / "prepared"), name)
        write_own_site(tmp_path / name / "stroke", prepared, ICH, name, validation=0.25, seed=0)
    own = of_patients(tiny_prepared(tmp_path / "coordinator" / "prepared"), "test")
    cohort = write_own_test_site(tmp_path / "coordinator" / "stroke", own, ICH, HOSPITALS, {"kind": "explicit"})
    for name in HOSPITALS:
        shutil.copytree(tmp_path / name / "stroke" / name, cohort.folder / name)
    return cohort


def test_all_compute_the_same_cohort(made: Cohort) -> None:
    assert made.sites == HOSPITALS
    for name in (*HOSPITALS, "test-site"):
        data = open_site(made.site_folder(name), image_size=SIZE)
        assert (data.name, data.cohort_sha256, data.task) == (name, made.sha256, "ich")


def test_every_patient_is_in_one_part(made: Cohort) -> None:
    index = pd.read_csv(made.site_folder("hospital-a") / "index.csv")
    assert index.groupby("patient_id")["split"].nunique().eq(1).all()
    assert index.drop_duplicates("patient_id")["split"].value_counts().to_dict() == {"train": 14, "validation": 4}
    assert set(pd.read_csv(made.site_folder("test-site") / "index.csv")["split"]) == {"test"}


def test_they_can_train_together(made: Cohort, tmp_path: Path) -> None:
    """The roll call takes them for one cohort of disjoint patients."""
    config, run = tiny_config(rounds=1), tmp_path / "run"
    server = make_server_app(lambda context: (config, made, start_run(run, config, made, "cpu", ())))
    run_local(server, lambda: app_for_cohort(made.folder, run / "site_memory"), num_sites=2, workers=0)
    assert (run / "model.safetensors").exists()


@pytest.mark.parametrize("site", ["hospital-b", "test-site"])
def test_patients_hashed_under_two_salts_are_refused_by_the_roll_call(made: Cohort, tmp_path: Path, site: str) -> None:
    """One cohort by its twelve digits, and every patient of both hospitals the same: nobody could see it."""
    for name, salt in {"hospital-a": "one", "hospital-b": "one", "test-site": "one", site: "two"}.items():
        path = made.site_folder(name) / "site.json"
        edit_json(path, {"ids": id_scheme(True, salt)})
    config, run = tiny_config(rounds=1), tmp_path / "run"
    server = make_server_app(lambda context: (config, made, start_run(run, config, made, "cpu", ())))
    where = "the test site" if site == "test-site" else site
    with pytest.raises(
        ValueError, match=f"^roll call: unknown whether a patient is at two .* under salt [0-9a-f]{{8}} at {where}"
    ):
        run_local(server, lambda: app_for_cohort(made.folder, run / "site_memory"), num_sites=2, workers=0)


def test_what_was_not_agreed_makes_another_cohort(tmp_path: Path) -> None:
    kinds = {kind: tiny_prepared(tmp_path / kind, image=kind) for kind in ImageKind}
    names = {("one", ImageKind.hu), ("one", ImageKind.windows), ("two", ImageKind.hu)}
    found = {
        write_own_site(tmp_path / kind / name, kinds[kind], ICH, "a", validation=0.2, seed=0)["cohort_sha256"]
        for name, kind in names
    }
    assert len(found) == len(names)


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    prepared, folder = tiny_prepared(tmp_path / "prepared"), tmp_path / "stroke"
    write_own_site(folder, prepared, ICH, "a", validation=0.2, seed=0)
    with pytest.raises(ValueError, match="expected no such folder"):
        write_own_site(folder, prepared, ICH, "a", validation=0.2, seed=0)
    for name in ("", "a/b", "test-site"):
        with pytest.raises(ValueError, match="--site: expected"):
            write_own_site(folder, prepared, ICH, name, validation=0.2, seed=0)
    for names in (["a", "A"], ["test-site"]):
        with pytest.raises(ValueError, match="--hospitals: expected"):
            write_own_test_site(folder, prepared, ICH, names, {})
    assert sorted(path.name for path in folder.iterdir()) == ["a"]


def test_a_hospital_that_does_not_look_for_a_label_learns_it_from_the_other(made: Cohort, tmp_path: Path) -> None:
    """Its prepared data have no such column, and its site no such count; it is of the same cohort all the same."""
    prepared = of_patients(tiny_prepared(tmp_path / "hospital-b" / "again"), "hospital-b")
    lacking = replace(
        prepared, labels=tuple(label for label in ICH.labels if label != "epidural"), index=prepared.index.drop(columns="epidural")
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^--prepared: expected labelled data, got .* without epidural"):
        write_own_site(tmp_path / "stroke", lacking, ICH, "hospital-b", validation=0.25, seed=0)
    site = write_own_site(
        tmp_path / "stroke", lacking, ICH, "hospital-b", validation=0.25, seed=0, unannotated=["epidural"]
    )
    assert site["counts"]["train"]["positives"]["epidural"] is None
    assert site["cohort_sha256"] == made.sha256
    shutil.rmtree(made.site_folder("hospital-b"))
    shutil.copytree(tmp_path / "stroke" / "hospital-b", made.site_folder("hospital-b"))
    data = open_site(made.site_folder("hospital-b"), image_size=SIZE)
    assert (data.unknown_labels, data.labels.shape[1]) == (("epidural",), 6)
    assert "epidural" not in pd.read_csv(made.site_folder("hospital-b") / "index.csv")
    config = tiny_config(rounds=1)
    server = make_server_app(lambda context: (config, made, start_run(tmp_path / "run", config, made, "cpu", ())))
    run_local(server, lambda: app_for_cohort(made.folder, tmp_path / "run" / "memory"), num_sites=2, workers=0)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_salt_that_can_be_guessed_makes_no_site(tmp_path: Path) -> None:
    prepared = replace(tiny_prepared(tmp_path / "prepared"), ids=id_scheme(True, "stroke-2026"))
    said = r"^--prepared: expected ids hashed under 128 random bits, .*by python -m fl_rsna\.salt and prepare again$"
    with pytest.raises(ValueError, match=said):
        write_own_site(tmp_path / "stroke", prepared, ICH, "a", validation=0.2, seed=0)
    with pytest.raises(ValueError, match=said):
        write_own_test_site(tmp_path / "stroke", prepared, ICH, ["a"], {})
    assert not (tmp_path / "stroke").exists()


def test_sites_beside_each_other_are_of_one_salt_or_it_is_allowed(tmp_path: Path) -> None:
    plain = tiny_prepared(tmp_path / "prepared")
    salted = replace(plain, ids=id_scheme(True, "5637ebbab8769328365851fd92e225db"))
    folder = tmp_path / "stroke"
    write_own_site(folder, salted, ICH, "a", validation=0.2, seed=0)
    write_own_site(folder, salted, ICH, "b", validation=0.2, seed=0)
    said = "^--prepared: unknown whether a patient is at two .* under salt .* at a, b; as in the files at {}; .*--allow-unknown-patients$"
    with pytest.raises(ValueError, match=said.format("c")):
        write_own_site(folder, plain, ICH, "c", validation=0.2, seed=0)
    with pytest.raises(ValueError, match=said.format("test-site")):
        write_own_test_site(folder, plain, ICH, ["a", "b"], {})
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    write_own_test_site(folder, plain, ICH, ["a", "b"], {}, allow_unknown=True)


def test_two_hospitals_anonymous_is_not_one_patient(made: Cohort, tmp_path: Path) -> None:
    """Every place has a patient whose id is the same and stands for nobody: it is said, and refuses nothing."""
    for name in (*HOSPITALS, "test-site"):
        table = pd.read_csv(made.site_folder(name) / "index.csv", dtype=str)
        nobody = table["patient_id"] == table["patient_id"].iloc[0]
        table["placeholder"] = np.where(nobody, "ANONYMOUS", "")
        rewrite_site(made.site_folder(name), table.assign(patient_id=table["patient_id"].mask(nobody, "ANONYMOUS")))
    audited = read_on_disk(made.folder, pixels=False, on_progress=lambda what, done, total: None)
    sharing = find_shared(audited.slices)
    assert sharing.patients == {}
    assert "stands for nobody, such as ANONYMOUS" in judge(sharing).sentence
    config, run = tiny_config(rounds=1), tmp_path / "run"
    server = make_server_app(lambda context: (config, made, start_run(run, config, made, "cpu", ())))
    run_local(server, lambda: app_for_cohort(made.folder, run / "site_memory"), num_sites=2, workers=0)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    warned = [event["text"] for event in events if event["event"] == "warning"]
    assert any(
        "hospital-a, hospital-b, the test site hold images under patient ids that stand for nobody" in text
        for text in warned
    )
