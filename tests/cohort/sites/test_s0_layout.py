"""The layout s0 says in S0's tables and folders what the sites' own folders say, at no cost in space."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.datadict import tag_for_keyword
from tiny import tiny_prepared

from fl_rsna.cohort.partition.split import SitePatients, split_patients
from fl_rsna.cohort.prepared.index import COLUMNS, Prepared
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.cohort.sites.s0_layout import KEYWORDS, SPACING, check_names, metadata
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort
from fl_rsna.settings.partition import TEST_SITE, Layout, PartitionConfig
from fl_rsna.task import ICH

OWN = ["train.csv", "train_metadata.csv", "site-1.csv", "site-2.csv", "test.csv", "site_images"]


def assign(prepared: Prepared) -> list[SitePatients]:
    return split_patients(prepared.index, ICH, PartitionConfig(num_sites=2, test=0.2, validation=0.3, seed=0))


def cohort_of(folder: Path, layout: Layout = Layout.s0, unlabelled: pd.DataFrame | None = None) -> Cohort:
    there = folder / "prepared"
    prepared = tiny_prepared(there if not there.exists() else folder / f"prepared-{layout}", patients=9, slices=3)
    return write_cohort(folder / layout, prepared, assign(prepared), ICH, {}, layout=layout, unlabelled=unlabelled)


def table(cohort: Cohort, name: str) -> pd.DataFrame:
    return pd.read_csv(cohort.folder / name)


def short(site: str) -> str:
    return "test" if site == TEST_SITE else site


def test_the_data_is_the_same_in_every_layout(tmp_path: Path) -> None:
    s0, standard = cohort_of(tmp_path), cohort_of(tmp_path, Layout.standard)
    assert s0.sha256 == standard.sha256
    for site in s0.facts["sites"]:
        paths = [cohort.folder / site / "index.csv" for cohort in (s0, standard)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    names = [{path.name for path in cohort.folder.iterdir()} for cohort in (s0, standard)]
    assert names[0] - names[1] == set(OWN)


def test_the_whole_table_is_a_label_table_of_every_slice(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path)
    whole = table(cohort, "train.csv")
    assert list(whole) == ["Image", *ICH.labels]
    labels = read_labels(cohort.folder / "train.csv", ICH)
    index = tiny_prepared(tmp_path / "again", patients=9, slices=3).index.set_index("image_id").sort_index()
    pd.testing.assert_frame_equal(labels, index[list(ICH.labels)], check_dtype=False)
    assert list(table(cohort, "train_metadata.csv")["SOPInstanceUID"]) == list(whole["Image"])


def test_each_site_has_a_table_of_its_slices_and_all_have_the_whole(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path)
    parts = []
    for site in cohort.facts["sites"]:
        rows, own = table(cohort, f"{short(site)}.csv"), table(cohort, f"{site}/index.csv")
        assert list(rows) == ["Image", *ICH.labels, "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "split"]
        assert list(rows["Image"]) == list(own["image_id"])
        assert list(rows["PatientID"]) == list(own["patient_id"])
        assert list(rows["split"]) == list(own["split"])
        parts.append(rows)
    together = pd.concat(parts).sort_values("Image").reset_index(drop=True)
    whole = table(cohort, "train.csv")
    pd.testing.assert_frame_equal(together[list(whole)], whole)


def test_images_cost_no_space(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path)
    for site in cohort.facts["sites"]:
        folder = cohort.folder / "site_images" / f"{short(site)}-images"
        assert {path.stem for path in folder.iterdir()} == set(table(cohort, f"{short(site)}.csv")["Image"])
        for path in folder.iterdir():
            assert path.samefile(cohort.folder / site / "images" / path.name)
            assert path.samefile(tmp_path / "prepared" / "images" / path.name)


def test_where_the_prepared_data_is_elsewhere_images_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: str, target: str) -> None:
        if source.startswith(os.fspath(tmp_path / "prepared")):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    cohort = cohort_of(tmp_path)
    for path in (cohort.folder / "site-1" / "images").iterdir():
        assert path.samefile(cohort.folder / "site_images" / "site-1-images" / path.name)
        assert not path.samefile(tmp_path / "prepared" / "images" / path.name)


def test_slices_without_labels_are_listed_where_there_are_any(tmp_path: Path) -> None:
    others = pd.DataFrame({"image_id": ["b", "a"], "patient_id": ["q", "q"], "rows": [512, 256]})
    listed = table(cohort_of(tmp_path, unlabelled=others), "test_metadata.csv")
    assert listed.to_dict("list") == {"SOPInstanceUID": ["a", "b"], "PatientID": ["q", "q"], "Rows": [256, 512]}


def test_headers_have_the_keywords_of_their_tags() -> None:
    index = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "position_mm": [1.5, np.nan],
            "row_spacing_mm": [0.488281, np.nan],
            "column_spacing_mm": [0.5, np.nan],
            "signed": [True, False],
            "intercept": [-1024.0, 0.0],
            "any": [0, 1],
            "boxes": ["[]", "[[1.0, 2.0, 3.0, 4.0]]"],  # annotated, like labels
        }
    )
    expected = pd.DataFrame(
        {
            "SOPInstanceUID": ["a", "b"],
            "PixelRepresentation": [1, 0],
            "RescaleIntercept": [-1024.0, 0.0],
            "PixelSpacing": ["0.488281\\0.5", ""],
            "position_mm": [1.5, np.nan],
        }
    )
    pd.testing.assert_frame_equal(metadata(index, ["any"]), expected, check_dtype=False)


def test_keywords_are_pydicoms() -> None:
    assert all(tag_for_keyword(keyword) for keyword in [*KEYWORDS.values(), "PixelSpacing"])
    assert {*KEYWORDS, *SPACING} <= set(COLUMNS)


@pytest.mark.parametrize("names", [["test"], ["train"], ["Train_Metadata"], ["site_images"], ["north", "north.csv"]])
def test_sites_named_like_what_s0_writes_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^partition\.layout: expected site names that s0 leaves free, got"):
        check_names([*names, TEST_SITE])
    check_names(["north", "site-1", TEST_SITE])


def test_nothing_is_left_when_a_table_cannot_be_written(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared", patients=9, slices=3)
    odd = pd.DataFrame({"image_id": ["a"], "rows": [object()]})
    with pytest.raises(Exception, match="object"):
        write_cohort(tmp_path / "sites" / "s0", prepared, assign(prepared), ICH, {}, layout=Layout.s0, unlabelled=odd)
    assert list((tmp_path / "sites").iterdir()) == []
