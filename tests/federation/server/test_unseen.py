"""A model that is given to a run may not have seen its test site's patients; where nobody can tell, it is refused until the user says so."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from saved_runs import write_tiny_model, write_tiny_run
from tiny import tiny_cohort, tiny_config, tiny_prepared

from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.sites.ancestry import Link, attribute_links, chain_links, own_link, patients_sha256
from fl_rsna.cohort.sites.provenance import Patients, Seen, chain_of, find_image_roles
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort
from fl_rsna.cohort.steps import partition_settings
from fl_rsna.common.id_scheme import PLAIN, UNSALTED, id_scheme
from fl_rsna.federation.server.context import check_unseen, read_chains
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.saved import facts_in
from fl_rsna.run_folder.run_folder import MANIFEST, MODEL
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import Trainable
from fl_rsna.settings.partition import TEST_SITE, PartitionConfig
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Cohort]:
    """The same patients assigned twice: who is tested in one trains in the other."""
    folder = tmp_path_factory.mktemp("cohorts")
    prepared = tiny_prepared(folder / "prepared")
    cohorts = []
    for seed in (0, 1):
        config = Config()
        config.data.name, config.partition.num_sites, config.partition.seed = "tiny", 2, seed
        sites = split_patients(
            prepared.index, ICH, PartitionConfig(num_sites=2, alpha=1.0, test=0.3, validation=0.2, seed=seed)
        )
        cohorts.append(write_cohort(folder / f"sites-{seed}", prepared, sites, ICH, partition_settings(config)))
    return cohorts[0], cohorts[1]


def of_test_site(cohort: Cohort) -> pd.DataFrame:
    return open_site(cohort.site_folder(TEST_SITE), image_size=32).index


def checked(cohort: Cohort, **given: Any) -> list[str]:
    config = tiny_config(**given)
    return check_unseen(config, cohort, of_test_site(cohort), read_chains(config))


def seen(index: pd.DataFrame, file: Path, ids: str | None = PLAIN) -> Seen:
    """Of a run's folder or a file."""
    file = file / MODEL if file.is_dir() else file
    return find_image_roles(Patients(index=index, ids=ids), [chain_of(facts_in(file), file)])


@pytest.mark.parametrize("key", ["start", "sequence.encoder", "model.weights"])
def test_a_model_that_patients_of_the_test_site_trained_is_refused(
    cohorts: tuple[Cohort, Cohort], tmp_path: Path, key: str
) -> None:
    here, there = cohorts
    run = write_tiny_run(tmp_path / "runs" / "other", there)
    named = {key.replace(".", "__"): str(run if key == "start" else run / "model.safetensors")}
    index = open_site(here.site_folder(TEST_SITE), image_size=32).index
    count = seen(index, run).images
    assert 0 < count <= len(index)
    refusal = rf"^{re.escape(key)}: expected a model that never saw the test site's patients, got .*: {count} of their {len(index)} images"
    with pytest.raises(ValueError, match=refusal):
        checked(here, **named)
    assert checked(there, **named) == []  # its own cohort


def test_a_model_counts_with_those_it_began_with(cohorts: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    """Fine-tuned on this very cohort, but begun with a model that saw the patients tested elsewhere."""
    here, there = cohorts
    before = write_tiny_run(tmp_path / "runs" / "before", here)
    after = write_tiny_run(tmp_path / "runs" / "after", there)
    index = open_site(there.site_folder(TEST_SITE), image_size=32).index
    assert set(seen(index, after).roles) == {"neither"}
    manifest = json.loads((after / MANIFEST).read_text())
    (after / MANIFEST).write_text(json.dumps({**manifest, "start": {"file": str(before / "model.safetensors")}}))
    assert "train" in set(seen(index, after).roles)
    (after / MANIFEST).write_text(json.dumps({**manifest, "start": {"file": "gone/model.safetensors"}}))
    assert seen(index, after).counts() == {"train": 0, "validation": 0, "unknown": len(index)}


def test_what_nobody_can_tell_is_refused_until_the_user_says_so(cohorts: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    """A file by itself; a run whose cohort is gone; a coordinator's cohort, whose sites keep their own folders; a state dict."""
    here, there = cohorts
    kept = replace(there, folder=tmp_path / "site_data" / "kept")
    shutil.copytree(there.folder, kept.folder)
    run = write_tiny_run(tmp_path / "runs" / "other", kept)

    def refused(key: str, path: Path) -> None:
        named = {key.replace(".", "__"): str(path)}
        with pytest.raises(ValueError, match=rf"^{key}: unknown whether .* or say allow_unknown_patients=true$"):
            checked(here, **named)
        (warning,) = checked(here, allow_unknown_patients=True, **named)
        assert warning.startswith(f"{key}: unknown whether {path}")

    alone = write_tiny_model(tmp_path / "alone" / "model.safetensors")
    refused("start", alone)
    refused("model.weights", alone)
    torch.save({}, tmp_path / "imagenet.pth")
    refused("model.weights", tmp_path / "imagenet.pth")
    shutil.rmtree(kept.site_folder("site-1"))
    refused("start", run / MODEL)
    shutil.rmtree(kept.folder)
    refused("start", run / MODEL)


SALTED, OTHER = (
    id_scheme(True, salt) for salt in ("5637ebbab8769328365851fd92e225db", "0c1f62d8e94b7a35f1d20946be87c3a5")
)


@pytest.fixture
def salted(tmp_path: Path) -> Cohort:
    return tiny_cohort(tmp_path / "salted", ids=SALTED)


def moved(cohort: Cohort, folder: Path, **facts: Any) -> Path:
    """A model of the cohort, away from its run and cohort, which has only what its file says."""
    link = own_link(
        cohort.folder, cohort.sha256, cohort.ids, patients_sha256(of_test_site(cohort)["patient_id"], cohort.ids)
    )
    links = [link.to_json() for link in chain_links(link, facts.get("before", ()))]
    return write_tiny_model(folder / "model.safetensors", facts={"ancestry": links})


@pytest.mark.parametrize(
    ("ids", "answer"), [(SALTED, "seen"), (OTHER, "unknown"), (PLAIN, "unknown"), (None, "unknown")]
)
def test_a_file_alone_knows_its_patients_by_the_salt_they_were_hashed_under(
    salted: Cohort, tmp_path: Path, ids: str | None, answer: str
) -> None:
    file = moved(salted, tmp_path / "elsewhere")
    index = pd.read_csv(salted.site_folder("site-1") / "index.csv", dtype=str)
    index = index.assign(image_id="new " + index["image_id"]).drop(columns="split")  # other images of the same patients
    strangers = index.assign(patient_id="x" + index["patient_id"])
    split = pd.read_csv(salted.site_folder("site-1") / "index.csv")["split"].value_counts()
    known = {"train": split["train"], "validation": split["validation"], "neither": 0}
    nothing = {"train": 0, "validation": 0, "unknown": len(index)}
    assert seen(index, file, ids).counts() == (known if answer == "seen" else nothing)
    clean = {"train": 0, "validation": 0, "neither": len(index)}
    assert seen(strangers, file, ids).counts() == (clean if answer == "seen" else nothing)
    assert seen(of_test_site(salted), file, SALTED).counts()["neither"] == len(of_test_site(salted))


@pytest.mark.parametrize("ids", [PLAIN, UNSALTED])
def test_no_hash_that_can_be_guessed_is_in_a_file(tmp_path: Path, ids: str) -> None:
    """Nor an id itself; what the roll call found of the test site is known all the same."""
    cohort = tiny_cohort(tmp_path / "guessable", ids=ids)
    file = moved(cohort, tmp_path / "elsewhere")
    (link,) = chain_of(facts_in(file), file).links
    assert (link.train, link.validation, link.ids) == (None, None, ids)
    index = of_test_site(cohort)
    assert seen(index, file, ids).counts() == {"train": 0, "validation": 0, "neither": len(index)}
    assert seen(index.iloc[:-4], file, ids).why == (link.why,)


def test_a_file_alone_counts_with_those_it_began_with(salted: Cohort, tmp_path: Path) -> None:
    other = tiny_cohort(tmp_path / "other", ids=SALTED, patients=24)
    before = chain_of(facts_in(file := moved(salted, tmp_path / "first")), file).links
    second = moved(other, tmp_path / "second", before=attribute_links("start", before))
    links = chain_of(facts_in(second), second).links
    assert [link.by for link in links] == ["own", "start"]
    index = pd.read_csv(salted.site_folder("site-1") / "index.csv", dtype=str)
    assert seen(index, second, SALTED).images == len(index)
    unknown = Link(by="start: model.weights", why="of which nothing is known")
    third = moved(other, tmp_path / "third", before=[unknown])
    found = seen(index.assign(patient_id="x" + index["patient_id"], image_id="x").drop(columns="split"), third, SALTED)
    assert found.why == ("start: model.weights: of which nothing is known",)


def test_ids_are_compared_as_texts_and_near_ones_are_no_answer(tmp_path: Path) -> None:
    """007 read as a number is 7, perhaps the same patient; as text it is 007, the same."""
    cohort = tiny_cohort(tmp_path / "numbers", ids=PLAIN)
    for path in cohort.folder.glob("*/index.csv"):
        table = pd.read_csv(path, dtype=str)
        table.assign(patient_id=table["patient_id"].str.replace("p", "0")).to_csv(path, index=False)
    run = write_tiny_run(tmp_path / "runs" / "one", cohort)
    texts = pd.read_csv(cohort.site_folder("site-1") / "index.csv", dtype=str).assign(image_id="x")
    assert seen(texts, run).images == len(texts)
    numbers = texts.assign(patient_id=texts["patient_id"].astype(int))
    for other in (
        numbers,
        texts.assign(patient_id=" " + texts["patient_id"] + "  "),
        numbers.astype({"patient_id": float}),
    ):
        found = seen(other, run)
        assert found.images == 0
        assert "but for case, blanks or leading zeros" in found.why[0]


@pytest.mark.slow
def test_a_run_says_whose_images_its_models_saw(tmp_path: Path) -> None:
    """In ancestry.json, the manifest and every model's file; a run that starts with it hands that on."""
    cohort, quick = tiny_cohort(tmp_path / "salted", ids=SALTED), {"rounds": 1, "train__trainable": Trainable.head}
    run_federation(tiny_config(**quick), cohort, tmp_path / "first", ())
    shutil.copy(tmp_path / "first" / MODEL, tmp_path / "moved.safetensors")
    index = pd.read_csv(cohort.site_folder("site-1") / "index.csv", dtype=str)
    manifest = json.loads((tmp_path / "first" / MANIFEST).read_text())
    assert manifest["ids"] == manifest["ancestry"][0]["ids"] == SALTED
    assert seen(index.drop(columns="split"), tmp_path / "moved.safetensors", SALTED).images == len(index)
    run_federation(tiny_config(**quick, start=str(tmp_path / "moved.safetensors")), cohort, tmp_path / "second", ())
    (link,) = chain_of(facts_in(tmp_path / "second" / MODEL), tmp_path / "second" / MODEL).links  # the same patients
    assert link.by == "own"


def test_a_run_is_refused_before_a_site_is_asked(cohorts: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    here, there = cohorts
    given = write_tiny_run(tmp_path / "runs" / "other", there)
    with pytest.raises(ValueError, match=r"^start: expected a model that never saw"):
        run_federation(tiny_config(rounds=1, start=str(given)), here, tmp_path / "refused", ())
    assert not (tmp_path / "refused").exists()
