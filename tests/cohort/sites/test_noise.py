"""Noise is a checked, recorded setting of a site; files, and cohorts without it, stay what they are."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_prepared

from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.sites.noise import SiteNoise, describe_noise, noise_of_sites, read_noise
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import PartitionConfig, check_noise
from fl_rsna.task import ICH

SITES = ("site-1", "site-2", "test-site")


def of_sites(asked: dict[str, Any], image: ImageKind = ImageKind.hu) -> dict[str, SiteNoise]:
    return noise_of_sites(asked, SITES, image, seed=3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"site-1": {"labels": 1.01}}, "site-1.labels: expected 0 to 1, a share of training slices, got 1.01"),
        ({"site-1": {"labels": True}}, "site-1.labels: expected 0 to 1, a share of training slices, got True"),
        ({"site-1": {"hu_shift": math.nan}}, "site-1.hu_shift: expected -4095 to 4095 HU, got nan"),
        ({"site-1": {"hu_noise": -1}}, "site-1.hu_noise: expected 0 to 4095 HU, got -1"),
        ({"all": {"blur": math.inf}}, "all.blur: expected 0 or more mm, got inf"),
        ({"site-1": {"blur": "strong"}}, "site-1.blur: expected 0 or more mm, got strong"),
        ({"site-1": {"seed": 1}}, "site-1.seed: no such setting; expected one of labels, hu_shift, hu_noise, blur"),
        ({"site-1": {"unannotated": "any"}}, "site-1.unannotated: expected a list of labels, got any"),
        (
            {"test-site": {"unannotated": ["any"]}},
            "test-site.unannotated: expected every label where models are scored",
        ),
        ({"site-1": 3}, "site-1: expected settings such as {labels: 0.2}, got 3"),
        ({"test-site": {"labels": 0.1}}, "test-site.labels: expected true labels where models are scored, got 0.1"),
    ],
)
def test_what_no_site_can_be_set_to_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'partition.noise.{said}')}"):
        check_noise(asked)


def test_all_is_every_training_site_and_a_site_has_the_last_word() -> None:
    found = of_sites({"all": {"labels": 0.2, "hu_shift": 15}, "site-2": {"hu_shift": 0}, "test-site": {"blur": 1}})
    assert found == {
        "site-1": SiteNoise(labels=0.2, hu_shift=15, seed=3),
        "site-2": SiteNoise(labels=0.2, seed=3),
        "test-site": SiteNoise(blur=1, seed=3),
    }
    assert of_sites({"all": {"labels": 0, "blur": 0}}) == of_sites({}) == {}


def test_a_strange_site_and_hu_of_windows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^partition\.noise\.site-3: no such site; .* all or one of site-1, site-2"):
        of_sites({"site-3": {"labels": 0.2}})
    with pytest.raises(ValueError, match=r"^partition\.noise\.site-1: .* got blur; .* data\.image=hu"):
        of_sites({"site-1": {"labels": 0.1, "blur": 1}}, ImageKind.windows)
    assert of_sites({"site-1": {"labels": 0.1}}, ImageKind.windows) == {"site-1": SiteNoise(labels=0.1, seed=3)}


def test_labels_that_a_site_does_not_annotate_are_its_tasks_and_not_all_of_them() -> None:
    key = "partition.noise.site-1.unannotated"
    with pytest.raises(ValueError, match=f"^{re.escape(key)}: expected labels among any, .* got fracture$"):
        check_noise({"site-1": {"unannotated": ["any", "fracture"]}}, labels=ICH.labels)
    with pytest.raises(ValueError, match=f"^{re.escape(key)}: expected one label at least"):
        check_noise({"site-1": {"unannotated": list(ICH.labels)}}, labels=ICH.labels)
    found = of_sites({"all": {"unannotated": ["epidural"]}, "site-2": {"unannotated": []}})
    assert found == {"site-1": SiteNoise(unannotated=("epidural",), seed=3)}


def test_a_label_nobody_annotates_is_recorded_and_a_record_without_is_as_it_was(tmp_path: Path) -> None:
    lacks, shifted = SiteNoise(unannotated=("epidural",)), SiteNoise(hu_shift=3)
    cohort = cohort_with(tmp_path, "lacking", {"site-1": lacks, "site-2": shifted})
    facts = [json.loads((cohort.site_folder(site) / "site.json").read_text()) for site in ("site-1", "site-2")]
    assert [read_noise(of_site) for of_site in facts] == [lacks, shifted]
    assert "unannotated" not in facts[1]["noise"]
    assert describe_noise(facts[0]["noise"]) == "no label epidural"
    assert cohort.sha256 != cohort_with(tmp_path, "other", {"site-2": shifted}).sha256
    assert repr(lacks) == repr(SiteNoise())  # a pack of images does not change its name


def cohort_with(folder: Path, name: str, noise: dict[str, SiteNoise] | None) -> Cohort:
    prepared = tiny_prepared(folder / f"prepared {name}", patients=9, slices=3)
    sites = split_patients(
        prepared.index, ICH, PartitionConfig(num_sites=2, alpha=1.0, test=0.2, validation=0.3, seed=0)
    )
    return write_cohort(folder / name, prepared, sites, ICH, {}, noise=noise)


def test_noise_is_recorded_and_changes_the_hash_but_no_table_and_no_image(tmp_path: Path) -> None:
    noise = SiteNoise(labels=0.2, hu_shift=15, seed=3)
    true, noisy = (cohort_with(tmp_path, name, made) for name, made in (("true", None), ("noisy", {"site-2": noise})))
    assert noisy.sha256 != true.sha256
    assert noisy.facts["sites"] == true.facts["sites"]
    for path in true.folder.rglob("*"):
        if path.suffix in (".csv", ".png"):
            assert (noisy.folder / path.relative_to(true.folder)).read_bytes() == path.read_bytes()
    for path in noisy.folder.rglob("*.png"):
        assert path.samefile(tmp_path / "prepared noisy" / "images" / path.name)
    record = {"labels": 0.2, "hu_shift": 15, "hu_noise": 0, "blur": 0, "seed": 3}
    assert noisy.facts["noise"] == {"site-2": record}
    facts = {site: json.loads((noisy.site_folder(site) / "site.json").read_text()) for site in SITES}
    assert [facts[site].get("noise") for site in SITES] == [None, record, None]
    assert read_noise(facts["site-2"]) == noise
    assert read_noise(facts["site-1"]) == SiteNoise()


def test_without_noise_a_cohort_is_as_it_ever_was(tmp_path: Path) -> None:
    before, after = cohort_with(tmp_path, "a", None), cohort_with(tmp_path, "b", {})
    assert before.sha256 == after.sha256
    assert "noise" not in after.facts
    others = [cohort_with(tmp_path, f"{shift}", {"site-1": SiteNoise(hu_shift=shift)}).sha256 for shift in (1, 2)]
    assert len({after.sha256, *others}) == 3


def test_blur_needs_the_size_of_a_pixel(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^partition\.noise\.site-1\.blur: .*, but (\d+) of \1 have none; leave it out"
    ):
        cohort_with(tmp_path, "blurred", {"site-1": SiteNoise(blur=1)})
    assert not (tmp_path / "blurred").exists()


def test_a_record_changed_by_hand_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^site\.json noise\.site-1\.labels: expected 0 to 1"):
        read_noise({"site": "site-1", "noise": {"labels": 3}})


def test_a_record_is_spoken() -> None:
    assert describe_noise({"labels": 0.2, "hu_shift": -15.0, "hu_noise": 0, "blur": 1.5, "seed": 3}) == (
        "20% of training labels wrong, -15 HU, blur of 1.5 mm"
    )
