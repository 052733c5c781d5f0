"""A site's folder stands alone, cohort.json counts what the tables hold, and a cohort is written whole or not at all."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import CHEST, tiny_index, tiny_prepared

from fl_rsna.cohort.partition.split import SitePatients, split_patients
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort, write_cohort
from fl_rsna.common.hashes import table_sha256
from fl_rsna.imaging.png_store import read_png
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE, PartitionConfig
from fl_rsna.task import ICH, Task

PARTS = ("train", "validation", "test")


def assign(prepared: Prepared, task: Task = ICH, seed: int = 0) -> list[SitePatients]:
    return split_patients(
        prepared.index, task, PartitionConfig(num_sites=2, alpha=1.0, test=0.2, validation=0.3, seed=seed)
    )


def cohort_of(folder: Path, task: Task = ICH, **changes: Any) -> Cohort:
    prepared = tiny_prepared(folder / "prepared", task, patients=9, slices=3, **changes)
    return write_cohort(folder / "cohort", prepared, assign(prepared, task), task, {"num_sites": 2})


def table_of(cohort: Cohort, site: str) -> pd.DataFrame:
    return pd.read_csv(cohort.site_folder(site) / "index.csv")


@pytest.mark.parametrize("image", list(ImageKind))
def test_a_site_stands_alone(tmp_path: Path, image: ImageKind) -> None:
    cohort = cohort_of(tmp_path, image=image)
    shutil.rmtree(tmp_path / "prepared")
    shutil.move(cohort.folder, tmp_path / "elsewhere")
    for site in (*cohort.sites, TEST_SITE):
        folder = tmp_path / "elsewhere" / site
        table = pd.read_csv(folder / "index.csv")
        assert sorted(path.name for path in folder.iterdir()) == ["images", "index.csv", "site.json"]
        assert {path.stem for path in (folder / "images").iterdir()} == set(table["image_id"])
        for image_id in table["image_id"]:
            assert read_png(folder / "images" / f"{image_id}.png").shape[:2] == (32, 32)
        facts = json.loads((folder / "site.json").read_text())
        assert (facts["site"], facts["cohort"], facts["cohort_sha256"]) == (site, "cohort", cohort.sha256)
        assert (facts["task"], tuple(facts["labels"]), facts["image"], facts["size"]) == ("ich", ICH.labels, image, 32)


def test_images_are_hard_links_where_they_can_be(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path)
    for path in cohort.folder.rglob("*.png"):
        assert path.samefile(tmp_path / "prepared" / "images" / path.name)


def test_images_are_copies_where_links_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    for path in cohort_of(tmp_path).folder.rglob("*.png"):
        original = tmp_path / "prepared" / "images" / path.name
        assert path.read_bytes() == original.read_bytes()
        assert not path.samefile(original)


@pytest.mark.parametrize("task", [ICH, CHEST], ids=lambda task: task.name)
def test_every_slice_is_at_one_site_as_the_index_has_it(tmp_path: Path, task: Task) -> None:
    cohort = cohort_of(tmp_path, task)
    everyone = pd.concat([table_of(cohort, site) for site in (*cohort.sites, TEST_SITE)])
    index = tiny_index(task, patients=9, slices=3).sort_values("image_id").reset_index(drop=True)
    restored = everyone.drop(columns="split").sort_values("image_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(restored[list(index.columns)], index, check_dtype=False)
    assert everyone.groupby("patient_id")["split"].nunique().max() == 1


@pytest.mark.parametrize("task", [ICH, CHEST], ids=lambda task: task.name)
def test_the_record_counts_what_the_tables_hold(tmp_path: Path, task: Task) -> None:
    cohort = cohort_of(tmp_path, task)
    assert list(cohort.facts["sites"]) == ["site-1", "site-2", TEST_SITE]
    for site, parts in cohort.facts["sites"].items():
        table = table_of(cohort, site)
        assert set(parts) == set(table["split"]) == ({"test"} if site == TEST_SITE else {"train", "validation"})
        for part, counted in parts.items():
            rows = table[table["split"] == part]
            assert counted["slices"] == len(rows)
            assert counted["patients"] == rows["patient_id"].nunique()
            assert counted["positives"] == {label: rows[label].sum() for label in task.labels}
    assert cohort.facts["disjoint"] == {"by": "patient_id", "shared_patients": {}, "patients": 9}
    assert cohort.facts["settings"] == {"num_sites": 2}


def test_reading_gives_what_writing_gave(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path)
    assert read_cohort(tmp_path / "cohort") == cohort
    assert (cohort.name, cohort.task, cohort.labels, cohort.size) == ("cohort", "ich", ICH.labels, 32)


def test_sites_are_sorted_by_number(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=25, slices=2)
    sites = split_patients(
        prepared.index, ICH, PartitionConfig(num_sites=11, alpha=1.0, test=0.1, validation=0.3, seed=0)
    )
    cohort = write_cohort(tmp_path / "cohort", prepared, sites, ICH, {})
    assert cohort.sites == tuple(f"site-{n}" for n in range(1, 12))


def test_the_hash_is_of_labels_pixels_facts_and_places_not_of_names(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=9, slices=3)
    sites = assign(prepared)

    def sha256(name: str, index: pd.DataFrame, sites: list[SitePatients]) -> str:
        changed = Prepared(
            folder=prepared.folder, task=prepared.task, labels=prepared.labels, image=prepared.image, size=prepared.size,
            index_sha256=table_sha256(index), index=index,
        )  # fmt: skip
        return write_cohort(tmp_path / name, changed, sites, ICH, {}).sha256

    relabelled, refreshed = prepared.index.copy(), prepared.index.copy()
    relabelled.loc[0, "subdural"] = 1 - relabelled.loc[0, "subdural"]
    refreshed.loc[0, "brain_hu_mean"] += 1
    original = sha256("a", prepared.index, sites)
    assert sha256("another name", prepared.index, sites) == original
    assert sha256("other order", prepared.index[::-1], sites) == original
    others = [sha256("b", relabelled, sites), sha256("c", refreshed, sites), sha256("d", prepared.index, assign(prepared, seed=1))]  # fmt: skip
    assert len({original, *others}) == 4


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=9, slices=3)
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"^partition\.name: .*delete it or choose another name"):
        write_cohort(tmp_path / "cohort", prepared, assign(prepared), ICH, {})
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["diary.txt"]


def test_nothing_is_left_when_an_image_is_missing(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=9, slices=3)
    (tmp_path / "prepared" / "images" / "p08s2.png").unlink()
    (tmp_path / "sites").mkdir()
    with pytest.raises(ValueError, match=r"p08s2\.png, which index\.parquet names.*prepare the data again"):
        write_cohort(tmp_path / "sites" / "cohort", prepared, assign(prepared), ICH, {})
    assert list((tmp_path / "sites").iterdir()) == []


def test_a_patient_in_two_places_is_our_own_mistake(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=9, slices=3)
    sites = [SitePatients(name="site-1", train=("p00",), validation=("p01",)), SitePatients(name=TEST_SITE, test=("p01",))]  # fmt: skip
    with pytest.raises(AssertionError, match="two places"):
        write_cohort(tmp_path / "cohort", prepared, sites, ICH, {})


def test_a_missing_cohort_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^partition\.name: no cohort at .*run python -m fl_rsna\.partition first"):
        read_cohort(tmp_path / "nothing")
