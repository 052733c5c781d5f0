"""A cohort folder is audited as it lies there, and told apart from what cohort.json says."""

import json
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest
from tiny import rewrite_site

from fl_rsna.cohort.audit.on_disk import OnDisk, read_on_disk
from fl_rsna.cohort.audit.overlap import Sharing, find_shared
from fl_rsna.cohort.audit.slices import Kind
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.imaging.png_store import read_png


def read(folder: Path, pixels: bool = False) -> OnDisk:
    return read_on_disk(folder, pixels=pixels, on_progress=lambda what, done, total: None)


def table_of(folder: Path, site: str) -> pd.DataFrame:
    return pd.read_csv(folder / site / "index.csv", dtype=str)


def add_rows(folder: Path, site: str, rows: pd.DataFrame) -> None:
    rewrite_site(folder / site, pd.concat([table_of(folder, site), rows]))


def differences(found: OnDisk) -> dict[tuple[str, str], tuple[int, int]]:
    return {(row.site, row.what): (row.expected, row.found) for row in found.differences}


def shared(found: OnDisk) -> Sharing:
    return find_shared(found.slices)


def test_a_cohort_as_written_is_clean_and_as_recorded(cohort: Cohort) -> None:
    for pixels in (False, True):
        found = read(cohort.folder, pixels)
        assert found.differences == ()
        assert shared(found).patients == {}
        assert shared(found).views[0].pairs == ()
        assert (found.leaky, found.slices.site, found.slices.part) == (False, "site", "split")
        assert len(found.slices.ids) == shared(found).totals[Kind.pixels] == 72


def test_a_patient_copied_to_another_site_is_found_and_counted(own_cohort: Cohort) -> None:
    folder = own_cohort.folder
    rows = table_of(folder, "site-1").query("split == 'train'")
    rows = rows[rows["patient_id"] == rows["patient_id"].iloc[0]]
    add_rows(folder, "site-2", rows)
    for image_id in rows["image_id"]:
        shutil.copy(folder / "site-1" / "images" / f"{image_id}.png", folder / "site-2" / "images")
    found = read(folder)
    assert shared(found).patients == {rows["patient_id"].iloc[0]: ("site-1/train", "site-2/train")}
    assert shared(found).views[0].shared == {
        Kind.patient: 1,
        Kind.study: 1,
        Kind.series: 1,
        Kind.image: 4,
        Kind.pixels: 4,
    }
    expected = own_cohort.facts["sites"]["site-2"]["train"]
    assert differences(found)["site-2", "train patients"] == (expected["patients"], expected["patients"] + 1)
    assert differences(found)["site-2", "train slices"] == (expected["slices"], expected["slices"] + 4)
    assert {site for site, _ in differences(found)} == {"site-2"}


def test_a_patient_copied_under_another_id_is_found_by_its_pixels(own_cohort: Cohort) -> None:
    """Written again by another program the bytes differ: only decoded pixels tell."""
    folder = own_cohort.folder
    row = table_of(folder, "site-1").iloc[[0]]
    add_rows(
        folder, "test-site", row.assign(patient_id="alias", study_id="t", series_id="e", image_id="copy", split="test")
    )
    image = read_png(folder / "site-1" / "images" / f"{row['image_id'].iloc[0]}.png")
    cv2.imwrite(str(folder / "test-site" / "images" / "copy.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert shared(read(folder)).aliases == {}
    sharing = shared(read(folder, pixels=True))
    assert sharing.patients == {}
    assert sharing.aliases[Kind.pixels].of[0].patients == tuple(sorted(["alias", row["patient_id"].iloc[0]]))
    shutil.copy(
        folder / "site-1" / "images" / f"{row['image_id'].iloc[0]}.png", folder / "test-site" / "images" / "copy.png"
    )
    assert shared(read(folder)).aliases[Kind.pixels].count == 1


def test_recorded_hashes_are_used_and_checked_only_when_asked(own_cohort: Cohort) -> None:
    folder = own_cohort.folder
    for site in own_cohort.facts["sites"]:
        table = table_of(folder, site)
        rewrite_site(folder / site, table.assign(png_sha256=[f"{site}{n}" for n in range(len(table))]))
    found = read(folder)
    assert found.pixels_by == "png_sha256 of index.csv"
    assert found.differences == ()
    checked = differences(read(folder, pixels=True))
    assert sum(count for _, count in checked.values()) == 72
    assert {what for _, what in checked} == {"images that are not those of png_sha256"}


def test_constant_images_are_told_by_their_pixels_or_their_range(own_cohort: Cohort) -> None:
    folder = own_cohort.folder
    for site in ("site-1", "site-2"):
        table = table_of(folder, site).assign(hu_min="-100", hu_max="100")
        table.loc[0, ["hu_min", "hu_max"]] = "-1024"
        rewrite_site(folder / site, table)
        path = folder / site / "images" / f"{table.loc[0, 'image_id']}.png"
        cv2.imwrite(str(path), read_png(path) * 0)
    for pixels in (False, True):
        sharing = shared(read(folder, pixels))
        assert (sharing.views[0].shared[Kind.blank], sharing.views[0].shared[Kind.pixels]) == (1, 0)
        assert sharing.aliases == {}


def test_files_that_are_not_as_recorded_are_named(own_cohort: Cohort) -> None:
    folder = own_cohort.folder
    names = [path.name for path in sorted((folder / "site-1" / "images").iterdir())]
    (folder / "site-1" / "images" / names[0]).unlink()
    (folder / "site-1" / "images" / names[1]).write_bytes(b"no picture")
    (folder / "site-2" / "images" / "stray.png").write_bytes(b"")
    add_rows(folder, "site-3", table_of(folder, "site-3").iloc[[0]].assign(any="1"))
    shutil.copytree(folder / "site-3", folder / "site-9")
    found = differences(read(folder, pixels=True))
    assert found["site-1", "images missing"] == found["site-1", "unreadable images"] == (0, 1)
    assert found["site-2", "images that index.csv does not name"] == (0, 1)
    assert found["site-3", "image ids named twice"] == (0, 1)
    assert found["site-9", "site that cohort.json does not name"] == (0, 1)
    assert [what for site, what in found if site == "test-site"] == []


def test_a_leaky_cohort_says_what_it_was_partitioned_by(own_cohort: Cohort) -> None:
    path = own_cohort.folder / "cohort.json"
    path.write_bytes(dump_hashed_json({**json.loads(path.read_text()), "group": "series", "leaky": True}))
    found = read(own_cohort.folder)
    assert (found.group, found.leaky) == ("series", True)


@pytest.mark.parametrize("key", ["task", "group", "leaky"])
def test_a_cohort_that_does_not_say_what_was_assigned_is_refused(own_cohort: Cohort, key: str) -> None:
    path = own_cohort.folder / "cohort.json"
    facts = json.loads(path.read_text())
    del facts[key]
    path.write_bytes(dump_hashed_json(facts))
    with pytest.raises(ValueError, match=rf"^expected {key} in .*cohort\.json, got none; partition again$"):
        read(own_cohort.folder)


def test_a_folder_that_is_no_cohort_or_lacks_a_site_is_refused(own_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cohort: expected a folder that partition made"):
        read(tmp_path)
    table = table_of(own_cohort.folder, "site-2").drop(columns=["patient_id", "subdural"])
    rewrite_site(own_cohort.folder / "site-2", table)
    with pytest.raises(ValueError, match=r"^cohort: expected columns patient_id, subdural in .*site-2"):
        read(own_cohort.folder)
    shutil.rmtree(own_cohort.folder / "site-2")
    with pytest.raises(
        ValueError,
        match=r"^cohort: expected the table of a site that cohort\.json names in .*site-2.index\.csv, found no such",
    ):
        read(own_cohort.folder)
