"""A model that is given to a run may not have seen its test site's patients; where nobody can tell, the run says so."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saved_runs import write_tiny_model, write_tiny_run
from tiny import tiny_config, tiny_prepared

from fl_rsna.cohort.partitioners import PartitionKind
from fl_rsna.cohort.sites import Cohort, write_cohort
from fl_rsna.cohort.split import TEST_SITE, split_patients
from fl_rsna.cohort.took_part import roles
from fl_rsna.cohort_name import partition_settings
from fl_rsna.config import Config
from fl_rsna.federation.unseen import check_unseen
from fl_rsna.learning.dataset import open_site
from fl_rsna.runner import run_federation
from fl_rsna.runs import MANIFEST
from fl_rsna.task import ICH


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Cohort]:
    """The same patients dealt twice: who is tested in one trains in the other."""
    folder = tmp_path_factory.mktemp("dealt")
    prepared = tiny_prepared(folder / "prepared")
    cohorts = []
    for seed in (0, 1):
        config = Config()
        config.data.name, config.partition.num_sites, config.partition.seed = "tiny", 2, seed
        sites = split_patients(
            prepared.index, ICH, kind=PartitionKind.iid, num_sites=2, alpha=1.0, test=0.3, validation=0.2, seed=seed
        )
        cohorts.append(write_cohort(folder / f"sites-{seed}", prepared, sites, ICH, partition_settings(config)))
    return cohorts[0], cohorts[1]


def checked(cohort: Cohort, **given: Any) -> list[str]:
    return check_unseen(tiny_config(**given), cohort, open_site(cohort.site_folder(TEST_SITE), image_size=32).index)


@pytest.mark.parametrize("word", ["start", "sequence.encoder", "model.weights"])
def test_a_model_that_patients_of_the_test_site_trained_is_refused(
    dealt: tuple[Cohort, Cohort], tmp_path: Path, word: str
) -> None:
    here, there = dealt
    run = write_tiny_run(tmp_path / "runs" / "other", there)
    named = {word.replace(".", "__"): str(run if word == "start" else run / "model.safetensors")}
    index = open_site(here.site_folder(TEST_SITE), image_size=32).index
    theirs = roles(index, run)
    assert theirs is not None
    seen = int((theirs != "neither").sum())
    assert 0 < seen <= len(index)
    refusal = rf"^{re.escape(word)}: expected a model that never saw the test site's patients, got .*: {seen} of their {len(index)} images"
    with pytest.raises(ValueError, match=refusal):
        checked(here, **named)
    assert checked(there, **named) == []  # its own cohort


def test_a_model_counts_with_those_it_began_with(dealt: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    """Fine-tuned on this very deal, but begun with a model that saw the patients tested elsewhere."""
    here, there = dealt
    before = write_tiny_run(tmp_path / "runs" / "before", here)
    after = write_tiny_run(tmp_path / "runs" / "after", there)
    index = open_site(there.site_folder(TEST_SITE), image_size=32).index
    alone = roles(index, after)
    assert alone is not None
    assert set(alone) == {"neither"}
    manifest = json.loads((after / MANIFEST).read_text())
    (after / MANIFEST).write_text(json.dumps({**manifest, "start": {"file": str(before / "model.safetensors")}}))
    with_start = roles(index, after)
    assert with_start is not None
    assert "train" in set(with_start)


def test_what_nobody_can_tell_is_said(dealt: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    """A file by itself; a run whose cohort is gone; a coordinator's cohort, whose sites keep their own folders."""
    here, there = dealt
    (warning,) = checked(here, start=str(write_tiny_model(tmp_path / "alone" / "model.safetensors")))
    assert warning.startswith("start: nobody checked whether")
    assert checked(here, model__weights=str(tmp_path / "alone" / "model.safetensors")) == []  # as of ImageNet's

    kept = replace(there, folder=tmp_path / "site_data" / "kept")
    shutil.copytree(there.folder, kept.folder)
    run = write_tiny_run(tmp_path / "runs" / "other", kept)
    shutil.rmtree(kept.site_folder("site-1"))
    assert "nobody checked" in checked(here, start=str(run))[0]
    shutil.rmtree(kept.folder)
    assert "nobody checked" in checked(here, start=str(run))[0]


def test_a_run_is_refused_before_a_site_is_asked(dealt: tuple[Cohort, Cohort], tmp_path: Path) -> None:
    here, there = dealt
    given = write_tiny_run(tmp_path / "runs" / "other", there)
    with pytest.raises(ValueError, match=r"^start: expected a model that never saw"):
        run_federation(tiny_config(rounds=1, start=str(given)), here, tmp_path / "refused", ())
    assert not (tmp_path / "refused").exists()
